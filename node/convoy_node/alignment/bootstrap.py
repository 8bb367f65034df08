"""Give link ids, once, to persons who consented before link ids were issued: private set intersection over consented lists.

Two holders, five sealed files that anybody may carry (the coordinator, a USB stick): only the other holder can open them.

    holder A   offer(...)  -> OFFER      its consented identifiers under its key
    holder B   ask(OFFER)  -> ASK        its own, under its key
    holder A   answer(ASK) -> ANSWER     B's under both keys; once for each offer
    holder B   match(ANSWER) -> LINKS    finds the common persons, draws a random link id for each, keeps them, tells A
    holder A   accept(LINKS)             keeps them

``LEAKAGE`` says what this discloses; people see it before they begin. Only persons whose consent counts now, covers every
recipient of the contract, and who have no link id yet are in a list; each list is padded with random entries to a multiple of 50.

LIMIT: semi-honest (library openmined-psi: ECDH over P-256). Who makes up identifiers learns whether those are customers of the
other; the contract forbids it, one answer for an offer bounds it, and nothing here can prevent it. New consents issue link ids
by themselves, so this is for the first day only.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from convoy_audit.witness_store import write_atomically
from convoy_contracts.document import Contract
from convoy_models.errors import ModelsError
from convoy_node.consent.office import BUCKET, ConsentOffice
from convoy_node.consent_table import LINK_BYTES
from convoy_node.errors import DatasetRefused, NodeError

SCHEMA: Final = "convoy-psi/1"
FOLDER: Final = "psi"
LEAKAGE: Final = (
    "Both holders learn which consented persons they have in common, and the length of the other's list in whole fifties.",
    "The coordinator and everybody else who carries the files learn the lengths only.",
    "A holder that makes up identifiers learns whether those persons are customers of the other: it takes an honest partner.",
    "What was learned cannot be taken back by a withdrawal. Link ids issued with the consent disclose none of this: prefer them.",
)
_FALSE_POSITIVES: Final = 1e-9  # of no effect with RAW, which holds every element
_MAX_FILE: Final = 1 << 30


class BootstrapRefused(NodeError):
    """A step of the bootstrap that cannot be taken; nothing was changed or told."""

    code = "PSI_REFUSED"
    fix = "Begin again with convoy-node psi offer."
    fix_zh = "请从 convoy-node psi offer 重新开始。"


@dataclass(frozen=True, slots=True)
class Step:
    """What a step did: persons in whole fifties, except where this party's own register changed."""

    session: str
    peer: str
    listed: int
    linked: int = 0


class Bootstrap:
    """The steps at one holder.

    Args:
        home: the node's folder; the keys of a session stand in ``psi/`` until it ends.
        office: register, keys and signed contracts.
        contract: uid or short name.
        ids: CSV or Parquet with ``person_id`` (this party's own) and ``identifier`` (the same at both, such as a VIN).

    Raises:
        NodeError: PSI_MISSING without the extra; CONTRACT_UNKNOWN.
    """

    def __init__(self, home: Path, office: ConsentOffice, contract: str, ids: Path | None = None) -> None:
        self._psi = library()
        self._home, self._office, self._ids = home, office, ids
        found = office.contract(office.uid(contract))
        if found is None:
            raise BootstrapRefused(
                "this node has signed no such contract.",
                code="CONTRACT_UNKNOWN",
                fix="convoy-node status lists them.",
                fix_zh="convoy-node status 会列出。",
            )
        self._contract: Contract = found
        self._keys = office.pair_keys(found)

    def offer(self, peer: str, out: Path) -> Step:
        """Write the offer for another holder."""
        session = secrets.token_hex(16)
        listed = self._listed()
        server = self._psi.server.CreateWithNewKey(True)
        padded = _padded(listed)
        setup = server.CreateSetupMessage(_FALSE_POSITIVES, len(padded), padded, self._psi.DataStructure.RAW)
        self._keep(session, {"role": "offer", "peer": peer, "key": server.GetPrivateKeyBytes().hex()})
        self._write(out, "offer", session, peer, setup.SerializeToString())
        return Step(session, peer, _fifties(listed))

    def ask(self, offer: Path, out: Path) -> Step:
        """Answer an offer with the own list."""
        session, peer, setup = self._read(offer, "offer")
        listed = self._listed()
        client = self._psi.client.CreateWithNewKey(True)
        padded = _padded(listed)
        request = client.CreateRequest(padded)
        state = {"role": "ask", "peer": peer, "key": client.GetPrivateKeyBytes().hex(), "setup": setup.hex()}
        self._keep(session, state | {"order": padded})
        self._write(out, "ask", session, peer, request.SerializeToString())
        return Step(session, peer, _fifties(listed))

    def answer(self, ask: Path, out: Path) -> Step:
        """Put the own key on the other's list; once for each offer."""
        session, peer, raw = self._read(ask, "ask")
        state = self._state(session, "offer", peer)
        if state.get("answered"):
            raise BootstrapRefused(
                "this offer was answered before.",
                fix="Make a new offer; each is answered once.",
                fix_zh="请重新生成要约；每份只应答一次。",
            )
        # If we die behind this line: answered, and the other holder begins again.
        self._keep(session, state | {"answered": True, "key": ""})
        server = self._psi.server.CreateFromKey(bytes.fromhex(state["key"]), True)
        request = self._psi.Request()
        request.ParseFromString(raw)
        self._write(out, "answer", session, peer, server.ProcessRequest(request).SerializeToString())
        return Step(session, peer, 0)

    def match(self, answer: Path, out: Path, now: datetime) -> Step:
        """Find the common persons, draw their link ids, keep them, and write them for the other holder."""
        session, peer, raw = self._read(answer, "answer")
        state = self._state(session, "ask", peer)
        client = self._psi.client.CreateFromKey(bytes.fromhex(state["key"]), True)
        setup, response = self._psi.ServerSetup(), self._psi.Response()
        setup.ParseFromString(bytes.fromhex(state["setup"]))
        response.ParseFromString(raw)
        order = state["order"]
        common = [order[int(index)] for index in client.GetIntersection(setup, response)]
        listed = self._listed()
        drawn = {one: secrets.token_bytes(LINK_BYTES) for one in sorted(set(common) & set(listed))}
        # The file first: if we die behind it, the other holder may have link ids that nobody here has, which join nobody.
        self._write(out, "links", session, peer, json.dumps({one: link.hex() for one, link in drawn.items()}).encode())
        self._office.link(self._contract.uid, peer, {listed[one]: link for one, link in drawn.items()}, now)
        self._forget(session)
        return Step(session, peer, _fifties(listed), len(drawn))

    def accept(self, links: Path, now: datetime) -> Step:
        """Keep the link ids of the common persons."""
        session, peer, raw = self._read(links, "links")
        self._state(session, "offer", peer)
        listed = self._listed()
        told: dict[str, str] = {}
        with suppress(ValueError):
            told = json.loads(raw)
        pairs = {listed[one]: bytes.fromhex(link) for one, link in told.items() if one in listed}
        if any(len(link) != LINK_BYTES for link in pairs.values()):
            raise BootstrapRefused("the file's link ids are not 16 bytes long.", party=peer)
        self._office.link(self._contract.uid, peer, pairs, now)
        self._forget(session)
        return Step(session, peer, _fifties(listed), len(pairs))

    # Inside --------------------------------------------------------------------------------------------------------------

    def _listed(self) -> dict[str, str]:
        """Return own id by identifier, of the persons who may be in a list."""
        if self._ids is None:
            raise BootstrapRefused(
                "the file of identifiers is missing.", fix="Name it with --ids.", fix_zh="请用 --ids 指定。"
            )
        contract = self._contract
        own = [row for row in contract.data if row.provider == self._office.party]
        cohort = self._office.register.cohort(
            contract.uid,
            purpose=asked_purpose(contract),
            recipients=sorted({to for output in contract.outputs for to in output.recipients}),
            notices=contract.consent.notices,
            now=self._office.now(),
            sensitive=any(field.sensitive for row in own for field in row.fields),
        )
        may, found, repeated = set(cohort.solo), dict[str, str](), 0
        for person, identifier in read_ids(self._ids, self._office.party):
            if person in may and identifier:
                repeated += identifier in found
                found[identifier] = person
        if repeated:
            raise BootstrapRefused(
                f"{repeated} identifiers belong to several persons.",
                fix="An identifier names one person; mend the file.",
                fix_zh="一个标识只对应一人；请修正该文件。",
            )
        if not found:
            raise BootstrapRefused(
                "nobody consents who has no link id yet.",
                fix="Nothing to do, or import consents.",
                fix_zh="无须处理，或请先导入同意记录。",
            )
        return found

    def _write(self, out: Path, step: str, session: str, peer: str, plain: bytes) -> None:
        head = {"schema": SCHEMA, "step": step, "session": session, "from": self._office.party, "to": peer,
                "contract": self._contract.digest}  # fmt: skip
        line = json.dumps(head, sort_keys=True).encode()
        try:
            sealed = self._keys.seal(peer, line, plain)
        except ModelsError as error:
            raise BootstrapRefused(f"{peer} has no mask key in the contract.", party=peer) from error
        write_atomically(out, line + b"\n" + sealed)

    def _read(self, path: Path, step: str) -> tuple[str, str, bytes]:
        try:
            if path.stat().st_size > _MAX_FILE:
                raise BootstrapRefused(f"{path.name} is too large.")
            line, _, sealed = path.read_bytes().partition(b"\n")
            head: dict[str, Any] = json.loads(line)
            session, peer = str(head["session"]), str(head["from"])
            known = (head["schema"], head["step"], head["to"], head["contract"])
            expected = (SCHEMA, step, self._office.party, self._contract.digest)
            if known != expected or len(session) != 32 or not session.isalnum():
                raise BootstrapRefused(
                    f"{path.name} is not the {step} of this contract for this party.",
                    fix=f"Name the file of step {step}.",
                )
            return session, peer, self._keys.unseal(peer, line, sealed)
        except OSError as error:
            raise BootstrapRefused(
                f"{path.name} cannot be read.", fix="Name a readable file.", fix_zh="请指定可读的文件。"
            ) from error
        except (ValueError, KeyError, TypeError, ModelsError) as error:
            raise BootstrapRefused(f"{path.name} was changed, or is not for this party.") from error

    def _keep(self, session: str, state: Mapping[str, Any]) -> None:
        folder = self._home / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        place = folder / f"{session}.json"
        write_atomically(place, json.dumps(state).encode())
        place.chmod(0o600)

    def _state(self, session: str, role: str, peer: str) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self._home / FOLDER / f"{session}.json").read_bytes())
        except (OSError, ValueError):
            state = {}
        if (state.get("role"), state.get("peer")) != (role, peer):
            raise BootstrapRefused(
                "this node knows nothing of this session; it ended, or was begun elsewhere.", party=peer
            )
        return state

    def _forget(self, session: str) -> None:
        (self._home / FOLDER / f"{session}.json").unlink(missing_ok=True)


def library() -> Any:
    """Return openmined-psi.

    Raises:
        BootstrapRefused: PSI_MISSING, with the command that installs it.
    """
    try:
        import private_set_intersection.python as psi
    except ImportError as error:
        raise BootstrapRefused(
            "private set intersection is not installed.",
            code="PSI_MISSING",
            fix="pip install 'convoy-node[psi]'. Consents given from now on issue link ids and need none of it.",
        ) from error
    return psi


def read_ids(path: Path, party: str) -> list[tuple[str, str]]:
    """Return (own id, identifier) of a file; identifiers are compared without spaces, in capitals.

    Raises:
        BootstrapRefused: no such file or columns.
    """
    from convoy_node.connectors import duckdb

    try:
        table = duckdb.read_text(path, party=party)
        people, named = (table.column(name).to_pylist() for name in ("person_id", "identifier"))
    except (DatasetRefused, KeyError) as error:
        raise BootstrapRefused(
            f"{path.name} has no columns person_id and identifier.",
            fix="Write a CSV or Parquet file with both.",
            fix_zh="请写入同时含有两者的 CSV 或 Parquet 文件。",
        ) from error
    return [(str(person), "".join(str(one or "").split()).upper()) for person, one in zip(people, named, strict=True)]


def asked_purpose(contract: Contract) -> str:
    """Return the purpose that a contract asks persons for."""
    from convoy_contracts.consent import asked_for

    purposes, _ = asked_for(contract)
    return purposes[0] if purposes else "convoy:Any"


def utc_now() -> datetime:
    """Return the present instant."""
    return datetime.now(UTC)


def _padded(listed: Mapping[str, str]) -> list[str]:
    """Return the identifiers in a fixed order with random entries up to a whole fifty."""
    missing = -len(listed) % BUCKET
    return sorted([*listed, *(f"\x00{secrets.token_hex(16)}" for _ in range(missing))])


def _fifties(listed: Sequence[str] | Mapping[str, str]) -> int:
    return -(-len(listed) // BUCKET) * BUCKET
