"""The consent office of a node: what people, apps and the runtime do with consents, in the right order.

    record(...) withdraw(...) import_table(...)    write the register, then the mark in node.db
    may_ask(...)                                   nobody is asked again soon after a refusal
    show(...) receipt(...) prove(...)              for the person and for an auditor
    epoch(contract) -> Epoch | None                root of all consents, signed as a statement for the log
    is_stale() / catch_up()                        a register restored from an older copy lets no run in

Order. A withdrawal and its receipt are durable in the register, in one commit, before anybody sees the receipt; then the
withdrawal a second time in ``node.db``. An epoch's statement is durable in ``node.db`` before the register knows the epoch; if the
process dies between, the statement stands and the next epoch follows it.
Does not: decide. ``REGISTER_STALE`` is added to the node's decision by ``admission``.
LENGTH: over 500 lines: the order of writes between two databases is one argument, and holds for every method.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from convoy_audit.canonical import b64, b64u
from convoy_audit.consent import PROOF, RECEIPT, leaf_of, sign_receipt
from convoy_audit.errors import AuditError
from convoy_audit.events import ConsentRooted
from convoy_audit.merkle import Tree, root
from convoy_audit.statement import open_statement, sign_statement
from convoy_contracts.canonical import unb64u
from convoy_contracts.consent import REASK_DAYS, asked_for, record_json, state_of
from convoy_contracts.document import Contract
from convoy_contracts.instants import instant, timestamp
from convoy_node import setup
from convoy_node.consent import history
from convoy_node.consent.against import Check
from convoy_node.consent.watermark import KnownEpoch, Watermark
from convoy_node.consent_table import LINK_BYTES, ConsentRow, TableReader
from convoy_node.errors import ConsentRefused
from convoy_node.identity import Identity
from convoy_node.memory import Memory
from convoy_node.register import Register, Withdrawal
from convoy_node.settings import Settings

if TYPE_CHECKING:
    from convoy_models.masks import PairKeys

BUCKET: Final = 50
"""Numbers of persons leave the node only in whole fifties, rounded down."""
MEMORY: Final = "node.db"
ANY_HOLDER: Final = "*"
"""Counterpart of a link that may be with any other holder: the party does not know, or is not to know, with which."""
_DAY_US: Final = 86_400_000_000
Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch as the log gets it; ``size`` stays at the node."""

    contract: str
    number: int
    root: bytes
    persons: int
    size: int
    statement: bytes


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import kept: its rows, and how many of them count nowhere, by reason (``consent.against``)."""

    rows: int
    counts: dict[str, int]


class ConsentOffice:
    """Register, mark and identity of one node together; works beside the running node, in another process.

    Args:
        settings: of the node.
        identity: its keys.
        register: its consents.
        memory: its statements.
        watermark: how far the register must be.
        contracts: text of each signed contract by digest.
        clock: returns the present instant, aware.
    """

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        register: Register,
        memory: Memory,
        watermark: Watermark,
        contracts: Callable[[], Mapping[str, str]],
        clock: Clock,
    ) -> None:
        self.party = settings.party
        self.register = register
        self.memory = memory
        self._settings = settings
        self._identity = identity
        self._watermark = watermark
        self._contracts = contracts
        self._clock = clock

    @classmethod
    def open(cls, home: Path, clock: Clock = lambda: datetime.now(UTC)) -> Self:
        """Open the office of a node's folder.

        Raises:
            NodeError: settings, keys or files that cannot be used.
        """
        settings = Settings.load(home)
        return cls(
            settings,
            Identity.load(home / "keys", settings.party),
            Register(home / setup.REGISTER, party=settings.party),
            Memory(home / MEMORY),
            Watermark(home / MEMORY),
            lambda: setup.contracts(home),
            clock,
        )

    def close(self) -> None:
        """Close the files that ``open`` opened."""
        self.register.close()
        self.memory.close()
        self._watermark.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Names and contracts -------------------------------------------------------------------------------------------------

    def uid(self, name: str) -> str:
        """Return the uid behind a short name of node.toml; a uid is its own."""
        return self._settings.contract_names.get(name, name)

    @property
    def role(self) -> str:
        """The party's role."""
        return self._settings.role

    @property
    def identity_seed(self) -> bytes:
        """The seed with which this party signs statements; never log it."""
        return self._identity.identity_seed

    def now(self) -> datetime:
        """Return the present instant of the office's clock."""
        return self._clock()

    def signed(self) -> list[Contract]:
        """Return every contract that this node has signed."""
        return [Contract.parse(text) for text in self._contracts().values()]

    def contract(self, uid: str) -> Contract | None:
        """Return the newest version of a contract that this node has signed."""
        versions = [contract for contract in self.signed() if contract.uid == uid]
        return max(versions, key=lambda one: one.version, default=None)

    def knows(self, uid: str) -> bool:
        """Whether a contract is signed here, named in node.toml, or has consents in the register."""
        return uid in self._unsigned() or self.contract(uid) is not None

    def reask_days(self, uid: str) -> int:
        """Return for how long a refusal silences the question."""
        contract = self.contract(uid)
        return (contract.consent.reaskAfterDays if contract else None) or REASK_DAYS

    # Recording -----------------------------------------------------------------------------------------------------------

    def record(
        self,
        person: str,
        contract: str,
        cells: Mapping[str, Any],
        *,
        channel: str,
        unasked: bool = False,
        evidence: str | None = None,
    ) -> dict[str, Any]:
        """Record what a person said; return the record, with a receipt and the link id for the other holder.

        Args:
            person: this party's own id.
            contract: uid or short name.
            cells: columns of the consent table by name; ``given`` is now if neither it nor ``refused`` is there;
                ``counterpart`` without ``link_id`` issues a random one.
            channel: app, car, hotline, desk ...
            unasked: the person came by themselves, so an earlier refusal does not stand in the way.
            evidence: digest of what shows the person's act.

        Raises:
            ConsentRefused: every fault at once, or the person refused not long ago (code ``REASK_BLOCKED``).
        """
        now, uid = self._clock(), self.uid(contract)
        row = self._row(person, uid, cells, now)
        if row.given is not None and not unasked:
            self._check_not_asked_again(person, uid, now)
        was_stale = self.is_stale()
        with self.register.writing():  # one commit for what was said and its receipt
            record, seq = self.register.record(row, now, channel=channel, evidence=evidence)
            made = self.show(person, contract)["records"][-1]
            receipt = self._sign_receipt(uid, person, record, "consent", timestamp(now), made["event"]["state"])
        self._moved(seq, was_stale)
        return {
            "record": made,
            "receipt": receipt,
            "linkId": row.link_id.hex() if row.link_id else None,
        }

    def may_ask(self, person: str, contract: str) -> dict[str, Any]:
        """Return whether the app may ask a person, and from when on it may."""
        uid = self.uid(contract)
        refused = self.register.refused_at(person, uid)
        now = instant(timestamp(self._clock())) or 0
        days = self.reask_days(uid)
        blocked = refused is not None and now < refused + days * _DAY_US
        after = None
        if refused is not None and blocked:
            after = timestamp(self._clock() + timedelta(microseconds=refused + days * _DAY_US - now))
        return {"contract": uid, "mayAsk": not blocked, "notBefore": after}

    def withdraw(self, person: str, contract: str, *, channel: str = "desk") -> dict[str, Any]:
        """Record a withdrawal, durably, and return its signed receipt; the second time the same receipt.

        Raises:
            ConsentRefused: no such person under this contract.
        """
        uid = self.uid(contract)
        was_stale = self.is_stale()
        with self.register.writing():  # one commit for the withdrawal and its receipt
            made = self.register.withdraw(person, uid, self._clock(), channel=channel)
            receipt = self._receipt_of(person, uid, made)
        # If we die behind this line: withdrawn, and whoever asks again gets the receipt.
        if made.is_new:
            change = None if was_stale else (made.seq, self._token(made.seq))
            self._watermark.remember_withdrawal(uid, person, made.at, change)
        return receipt

    def receipt(self, person: str, contract: str) -> dict[str, Any]:
        """Return the signed receipt of the last thing that a person said.

        Raises:
            ConsentRefused: nothing is recorded.
        """
        uid = self.uid(contract)
        _, records = self._records(person, uid)
        last = records[-1]
        kept = self._kept_receipt(last.id)
        if kept is not None:
            return kept
        if last.terms.withdrawn is not None:
            return self._receipt_of(person, uid, Withdrawal(last.id, last.terms.withdrawn, last.seq, is_new=False))
        return self._sign_receipt(uid, person, last.id, "consent", last.at, last.terms.state)

    def link(self, contract: str, counterpart: str, links: Mapping[str, bytes], now: datetime) -> None:
        """Give link ids to persons who have none yet (``alignment.bootstrap``); nothing of what they said changes.

        Args:
            contract: uid or short name.
            counterpart: the other holder of the link ids.
            links: 16 bytes by own id.
            now: aware.

        Raises:
            ConsentRefused: a link id that another person has.
        """
        was_stale = self.is_stale()
        self._moved(self.register.link(self.uid(contract), counterpart, links, now), was_stale)

    def pair_keys(self, contract: Contract) -> PairKeys:
        """Return this party's keys towards the others of a contract, as the signed text pins them."""
        from convoy_models.masks import PairKeys  # numpy, for few commands

        pinned = {p.id: unb64u(p.maskKey.x) for p in contract.parties if p.maskKey is not None}
        own = self._identity.mask_of(pinned.pop(self.party, None)) or self._identity.mask
        return PairKeys(self.party, own, pinned, contract.digest)

    def import_table(self, source: Path) -> Imported:
        """Import a consent table from a file; see ``Register.import_table`` and ``consent.against``.

        Raises:
            ConsentRefused: every fault of the table at once; nothing was imported.
        """
        was_stale = self.is_stale()
        made = self._import(source)
        self._moved(history.last_change(self.register.db)[0], was_stale)
        return made

    def import_sql(self, url: str, query: str) -> Imported:
        """Import a consent table from a database; see ``consent.sources``.

        Raises:
            ConsentRefused: every fault of the table at once; nothing was imported.
        """
        from convoy_node.consent.sources import rows_of_query

        was_stale = self.is_stale()
        with rows_of_query(url, query, party=self.party) as (names, batches):
            reader = TableReader(names, self._settings.contract_names, party=self.party)
            days, now = self._all_reask_days(), self._clock()
            check = self._check(now)
            rows = self.register.import_batches(reader, batches, now=now, channel="sql", reask_days=days, check=check)
        self._moved(history.last_change(self.register.db)[0], was_stale)
        return Imported(rows, check.counts())

    # Showing -------------------------------------------------------------------------------------------------------------

    def show(self, person: str, contract: str) -> dict[str, Any]:
        """Return every record about a person under a contract, oldest first, after ISO/IEC TS 27560.

        Raises:
            ConsentRefused: nothing is recorded.
        """
        uid = self.uid(contract)
        _, records = self._records(person, uid)
        standing = self.register.row(person, uid)
        link = standing.link_id.hex() if standing and standing.link_id else None
        made, previous = [], None
        for one in records:
            made.append(
                record_json(
                    one.id.hex(),
                    one.terms,
                    contract=uid,
                    controller=self.party,
                    subject=person,
                    at=one.at,
                    channel=one.channel,
                    previous=previous,
                    link_id=link,
                    counterpart=standing.counterpart if standing else "",
                    evidence=one.evidence,
                )
            )
            previous = one.id.hex()
        return {"contract": uid, "state": records[-1].terms.state, "records": made}

    def prove(self, person: str, contract: str, epoch: int | None = None) -> dict[str, Any]:
        """Return a proof of a person's state in an epoch, or that nothing stood there; ``convoy-audit consent`` checks it.

        Args:
            person: this party's own id.
            contract: uid or short name.
            epoch: number; the last one if not given.

        Raises:
            ConsentRefused: there is no such epoch.
        """
        uid, db = self.uid(contract), self.register.db
        series = history.find_series(db, uid)
        row = self._epoch_row(series, epoch)
        if series is None or row is None:
            raise ConsentRefused(
                "there is no such epoch of this contract.",
                party=self.party,
                code="EPOCH_UNKNOWN",
                fix="convoy-node consent epoch makes one; a run does as well.",
            )
        number, seq, size, statement = row
        name = series.pseudonym(person)
        listed = list(history.leaves(db, series, seq))
        tree = Tree(leaf_of(*leaf) for leaf in listed)
        place = _place(listed, name)
        proof: dict[str, Any] = {
            "schema": PROOF,
            "party": self.party,
            "contract": uid,
            "epoch": number,
            "statement": b64(statement),
            "pseudonym": b64u(name),
            "size": size,
        }
        if place < len(listed) and listed[place][0] == name:
            record = next(r for r in history.history(db, series, person)[::-1] if r.seq <= seq)
            return proof | {
                "found": {
                    "index": place,
                    "path": [b64u(node) for node in tree.inclusion_proof(place)],
                    "salt": b64u(series.salt(record.id)),
                    "state": state_of(record.id.hex(), record.terms),
                }
            }
        return proof | {
            "found": None,
            "left": _neighbour(listed, tree, place - 1) if place > 0 else None,
            "right": _neighbour(listed, tree, place) if place < len(listed) else None,
        }

    # Epochs --------------------------------------------------------------------------------------------------------------

    def epoch(self, contract: str, *, only_if_changed: bool = True) -> Epoch | None:
        """Sign the root of all consents of a contract as a statement for the log.

        Args:
            contract: uid or short name.
            only_if_changed: make none if nothing changed since the last one.

        Returns:
            The epoch, or None if there is nothing new or nobody.

        Raises:
            ConsentRefused: the register is older than this node's memory (code ``REGISTER_STALE``).
        """
        uid, db = self.uid(contract), self.register.db
        series = history.find_series(db, uid)
        if series is None:
            return None
        if self.is_stale():
            raise self._stale()
        self._watermark.read_statements()
        known = self._watermark.last_epoch(uid)
        seq, token = history.last_change(db)
        taken = self._taken(series, known)
        if only_if_changed and known is not None and taken is not None and series.changed <= taken:
            return None
        sized = _Counted(leaf_of(*leaf) for leaf in history.leaves(db, series, seq))
        top = root(sized)
        mark = self._watermark.mark() or self._watermark.set_mark(seq, token)
        event = ConsentRooted(
            at=self._clock(),
            party=self.party,
            contract=uid,
            epoch=known.number + 1 if known else 1,
            root="sha256:" + top.hex(),
            persons=sized.count // BUCKET * BUCKET,
            withdrawn=history.withdrawn_since(db, series, taken or 0, seq) // BUCKET * BUCKET,
            incarnation=mark.incarnation,
            previous=known.root if known else None,
        )
        self._watermark.move((seq, token))
        seed = self._identity.identity_seed
        raw = self.memory.state(lambda n, previous: sign_statement(event, number=n, previous=previous, seed=seed))
        with self.register.writing() as writing:
            writing.execute(
                "INSERT OR REPLACE INTO epoch VALUES (?, ?, ?, ?, ?)",
                (series.number, event.epoch, seq, sized.count, raw),
            )
        self._watermark.read_statements()
        return Epoch(uid, event.epoch, top, event.persons, sized.count, raw)

    def recount(self, contract: str) -> tuple[int, bool]:
        """Derive the last epoch's root again from the register; return its number and whether it is the signed one.

        For an auditor on site: it shows that the tree is sorted and complete.

        Raises:
            ConsentRefused: there is no epoch.
        """
        uid, db = self.uid(contract), self.register.db
        series = history.find_series(db, uid)
        row = self._epoch_row(series, None)
        if series is None or row is None:
            raise ConsentRefused("there is no epoch of this contract.", party=self.party, code="EPOCH_UNKNOWN")
        event = open_statement(row[3], self._identity.identity_public).event
        if not isinstance(event, ConsentRooted):
            raise ConsentRefused(
                "the register's epoch holds another statement.", party=self.party, code="REGISTER_DAMAGED"
            )
        names = [leaf[0] for leaf in history.leaves(db, series, row[1])]
        top = root(leaf_of(*leaf) for leaf in history.leaves(db, series, row[1]))
        return event.epoch, names == sorted(set(names)) and event.root == "sha256:" + top.hex()

    # Staleness -----------------------------------------------------------------------------------------------------------

    def is_stale(self) -> bool:
        """Whether this register lacks a change that this node has made: it was restored from an older copy."""
        mark = self._watermark.mark()
        return mark is not None and mark.seq > 0 and not history.has_change(self.register.db, mark.seq, mark.token)

    def learn_epoch(self, raw: bytes) -> int:
        """Compare with what the log holds: a later epoch of this node than its memory has means that the memory was restored.

        From then on the register is stale until ``catch_up``.

        Args:
            raw: this party's statement of an epoch, as the log has it; nobody else can make one, so others count for nothing.

        Returns:
            The statement's number, 0 where it counts for nothing.
        """
        try:
            statement = open_statement(raw, self._identity.identity_public)
        except AuditError:
            return 0
        event = statement.event
        if not isinstance(event, ConsentRooted):
            return 0
        self._watermark.read_statements()
        known = self._watermark.last_epoch(event.contract)
        if known is None or known.number < event.epoch or (known.number == event.epoch and known.root != event.root):
            self._watermark.lose(event.contract, event.epoch, event.root)
        return statement.number

    def catch_up(self, table: Path | None = None, *, nothing_since: bool = False) -> dict[str, Any]:
        """Bring a restored register up to date and begin a new life of it.

        Every withdrawal that ``node.db`` remembers is made again; what was said since comes from a table, with withdrawals.
        The next epoch states the new incarnation in the log.

        Args:
            table: of the app, the call centre or the CRM: who said what since the copy was made.
            nothing_since: the party says that nobody said anything since; needed in place of a table where ``node.db`` was
                restored as well.

        Raises:
            ConsentRefused: faults of the table, or neither of the two where one is needed; nothing is changed then.
        """
        if self._watermark.is_lost and table is None and not nothing_since:
            raise ConsentRefused(
                "register and memory were restored together: nobody here knows who withdrew since.",
                party=self.party,
                code="REGISTER_STALE",
                fix="Export what was said since from the app or CRM: consent catch-up --table FILE; or --nothing-since.",
            )
        rows = self._import(table).rows if table else 0
        again = 0
        for contract, person, at in self._watermark.withdrawals():
            standing = self.register.row(person, contract)
            if standing is None or (standing.given_us or 0) > (instant(at) or 0):
                continue
            again += self.register.withdraw(person, contract, datetime.fromisoformat(at), channel="caught up").is_new
        seq, token = history.last_change(self.register.db)
        mark = self._watermark.set_mark(seq, token, is_new_life=True)
        return {"withdrawalsAgain": again, "rows": rows, "incarnation": mark.incarnation}

    # Inside --------------------------------------------------------------------------------------------------------------

    def _row(self, person: str, uid: str, cells: Mapping[str, Any], now: datetime) -> ConsentRow:
        told = {name: value for name, value in cells.items() if value is not None}
        told |= {"local_id": person, "contract": uid}
        if not told.get("refused") and "given" not in told:
            told["given"] = timestamp(now)
        if told.get("counterpart") and "link_id" not in told:
            standing = self.register.row(person, uid)
            same = standing is not None and standing.counterpart == told["counterpart"]
            told["link_id"] = standing.link_id if standing and same else secrets.token_bytes(LINK_BYTES)
        names = {*told, *("given", "until", "notice", "purpose", "recipients", "separate", "age")}
        contract = self.contract(uid)
        if told.get("refused"):
            told = _refusable(contract) | {"until": "open-ended"} | told
        reader = TableReader(names, party=self.party)
        (row,) = reader.rows({name: [told.get(name)] for name in reader.names})
        if row.withdrawn is not None:
            row = replace(row, withdrawn=None, withdrawn_us=None)
        self._check(now, is_said_now=True).see([row], reader)
        reader.raise_faults()
        return row

    def _import(self, table: Path) -> Imported:
        now = self._clock()
        check = self._check(now)
        rows = self.register.import_table(
            table, self._settings.contract_names, now=now, reask_days=self._all_reask_days(), check=check
        )
        return Imported(rows, check.counts())

    def _check(self, now: datetime, *, is_said_now: bool = False) -> Check:
        return Check(self.signed(), self._unsigned(), self.party, now, is_said_now=is_said_now)

    def _unsigned(self) -> set[str]:
        """Return the contracts that this node may know without having signed them: named in node.toml, or in the register."""
        kept = {uid for (uid,) in self.register.db.execute("SELECT contract FROM series")}
        return kept | set(self._settings.contract_names.values())

    def _all_reask_days(self) -> dict[str, int]:
        return {contract.uid: self.reask_days(contract.uid) for contract in self.signed()}

    def _check_not_asked_again(self, person: str, uid: str, now: datetime) -> None:
        asked = self.may_ask(person, uid)
        if not asked["mayAsk"]:
            raise ConsentRefused(
                f"this person refused and is not asked again before {asked['notBefore']}.",
                party=self.party,
                code="REASK_BLOCKED",
                fix="Do not ask. If the person came by themselves, say so (--unasked).",
            )

    def _records(self, person: str, uid: str) -> tuple[history.Series, list[history.Record]]:
        series = history.find_series(self.register.db, uid)
        records = history.history(self.register.db, series, person) if series else []
        if series is None or not records:
            raise ConsentRefused(
                "no such person under this contract.",
                code="PERSON_UNKNOWN",
                party=self.party,
                fix="Check the local id and the contract's uid.",
            )
        return series, records

    def _receipt_of(self, person: str, uid: str, made: Withdrawal) -> dict[str, Any]:
        kept = self._kept_receipt(made.record)
        if kept is not None:
            return kept
        return self._sign_receipt(uid, person, made.record, "withdrawal", made.at, "withdrawn")

    def _kept_receipt(self, record: bytes) -> dict[str, Any] | None:
        row = self.register.db.execute("SELECT raw FROM receipt WHERE record = ?", (record,)).fetchone()
        kept: dict[str, Any] | None = json.loads(row[0]) if row else None
        return kept

    def _sign_receipt(self, uid: str, person: str, record: bytes, kind: str, at: str, state: str) -> dict[str, Any]:
        series = history.find_series(self.register.db, uid)
        last = self._last_epoch_number(series)
        effect = "excluded-from-every-run-authorised-after" if kind == "withdrawal" else "recorded"
        signed = sign_receipt(
            {
                "schema": RECEIPT,
                "kind": kind,
                "party": self.party,
                "contract": uid,
                "record": record.hex(),
                "state": state,
                "at": at,
                "effect": effect,
                "pseudonym": b64u(series.pseudonym(person)) if series else "",
                "byEpoch": last + 1,
            },
            self._identity.identity_seed,
        )
        with self.register.writing() as db:
            db.execute("INSERT OR IGNORE INTO receipt VALUES (?, ?)", (record, json.dumps(signed, ensure_ascii=False)))
        return signed

    def _epoch_row(self, series: history.Series | None, number: int | None) -> tuple[int, int, int, bytes] | None:
        if series is None:
            return None
        row = self.register.db.execute(
            "SELECT number, seq, size, statement FROM epoch WHERE series = ?1 AND (?2 IS NULL OR number = ?2)"
            " ORDER BY number DESC LIMIT 1",
            (series.number, number),
        ).fetchone()
        return (row[0], row[1], row[2], bytes(row[3])) if row else None

    def _last_epoch_number(self, series: history.Series | None) -> int:
        if series is None:
            return 0
        row = self.register.db.execute("SELECT MAX(number) FROM epoch WHERE series = ?", (series.number,)).fetchone()
        return int(row[0] or 0)

    def _taken(self, series: history.Series, known: KnownEpoch | None) -> int | None:
        """Return the change at which the last signed epoch was taken, if the register knows it."""
        if known is None:
            return None
        row = self.register.db.execute(
            "SELECT seq FROM epoch WHERE series = ? AND number = ?", (series.number, known.number)
        ).fetchone()
        return int(row[0]) if row else None

    def _token(self, seq: int) -> bytes:
        row = self.register.db.execute("SELECT token FROM change WHERE seq = ?", (seq,)).fetchone()
        return bytes(row[0]) if row else b""

    def _moved(self, seq: int, was_stale: bool) -> None:
        """Move the mark, unless the register was stale before: nothing but ``catch_up`` makes it current again."""
        if not was_stale and seq:
            self._watermark.move((seq, self._token(seq)))

    def _stale(self) -> ConsentRefused:
        return ConsentRefused(
            "the consent register is older than what this node has signed: it was restored from a copy.",
            party=self.party,
            code="REGISTER_STALE",
            fix="convoy-node consent catch-up, with a table of the consents given since; until then no run gets in.",
        )


class _Counted:
    """Counts what it hands on."""

    def __init__(self, items: Any) -> None:
        self._items = items
        self.count = 0

    def __iter__(self) -> Any:
        for item in self._items:
            self.count += 1
            yield item


def _refusable(contract: Contract | None) -> dict[str, Any]:
    """Return what a contract's notice asks for: what a person who says no has refused."""
    if contract is None:
        return {}
    purposes, recipients = asked_for(contract)
    return {
        "notice": contract.consent.notices[0],
        "purpose": purposes[0] if purposes else "convoy:Any",
        "recipients": recipients,
    }


def _place(listed: list[tuple[bytes, bytes]], name: bytes) -> int:
    from bisect import bisect_left

    return bisect_left(listed, name, key=lambda leaf: leaf[0])


def _neighbour(listed: list[tuple[bytes, bytes]], tree: Tree, index: int) -> dict[str, Any]:
    name, committed = listed[index]
    return {
        "index": index,
        "path": [b64u(node) for node in tree.inclusion_proof(index)],
        "pseudonym": b64u(name),
        "commitment": b64u(committed),
    }
