"""The sessions of ``sums`` with commit and audit (``row_audit``): the same steps, and four more at the end.

What each side does, by action:

    action    data holder                                   trustee
    matrix    hold(peer, X); commit(peer, inputs)           receive (shapes, roots)
    deal                                                    deal: also draws and sends the challenges
    share/close  as ever; what the challenge asks is kept
    report    report(): what was received; no step after it
    reveal                                                  reveal(): rows that each holder opens
    disclose  disclose(): these rows
    judge                                                   judge(...): findings, none if all is well

The order is what makes the challenge secret until it is too late: a holder that has reported takes no further step of
any query, and the trustee names rows only when it has every report. So whoever relays messages cannot show a cheat the
rows first and ask the queries then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from convoy_models.errors import MessageMalformed, MessageMissing, MessageUnexpected, TagReused
from convoy_models.fixedpoint import FACTOR_BITS, MATRIX_BITS, Floats, Words
from convoy_models.masks import PairKeys
from convoy_models.messages import parse_name, to_party
from convoy_models.plan import PlannedQuery
from convoy_models.sums.bilinear import from_bytes
from convoy_models.sums.dealer import DealerSession, vector_side
from convoy_models.sums.row_audit import (
    AuditTerms,
    Challenge,
    CommittedRows,
    OpenedRow,
    Watch,
    block_bound,
    check_opening,
    pack_openings,
    read_report,
    unpack_openings,
)
from convoy_models.sums.session import PartySession

FindingCode = Literal["OPENING_FAILED", "ROW_DIFFERS", "BLOCK_TOO_LARGE", "REPORT_INCOMPLETE"]
_MATRIX = "matrix"


class AuditedSession(PartySession):
    """A data holder's state machine under ``rowAudit``.

    Args:
        run: uid of the run.
        attempt: number of the try.
        keys: own keys under the contract.
        rest: as for ``PartySession``.
    """

    def __init__(self, run: str, attempt: int, keys: PairKeys, **rest: Any) -> None:
        super().__init__(run, attempt, keys, **rest)
        self._committed: dict[str, CommittedRows] = {}
        self._watches: dict[str, Watch] = {}
        self._revealed: dict[str, Challenge] = {}
        self._has_reported = False

    def commit(self, peer: str, inputs: Floats) -> bytes:
        """Commit to own rows towards a peer, after ``hold``; returns the root.

        Args:
            peer: the other holder.
            inputs: (rows given to ``hold``, width) what beside the matrix decides own factors.
        """
        if peer in self._committed:
            raise TagReused("rows were committed to before.", party=self.party)
        self._committed[peer] = CommittedRows(*self._pair(peer).commitment(inputs))
        return self._committed[peer].root

    def matrix(self, chunk: int) -> dict[str, bytes]:
        """As ``PartySession.matrix``; with chunk 0 also the roots for the trustee."""
        blobs = super().matrix(chunk)
        if chunk == 0:
            for peer, rows in self._committed.items():
                blobs |= self._blob(self._trustee, f"commit.{peer}", rows.root)
        return blobs

    def receive(self, blobs: Mapping[str, bytes]) -> None:
        """As ``PartySession.receive``; challenges and revealed rows come from the trustee."""
        rest = {}
        for name, blob in blobs.items():
            _, sender, tag = parse_name(name)
            kind, _, peer = tag.partition(".")
            if kind not in ("challenge", "reveal") or sender != self._trustee:
                rest[name] = blob
                continue
            if (sender, tag) in self._seen:
                raise TagReused(f"the blob {tag} arrived before.", party=sender)
            plain = self._keys.unseal(sender, self._attempt.aad(tag, sender, self.party), blob)
            asked = Challenge.from_bytes(plain, sender)
            if kind == "challenge":
                self._watches[peer] = Watch(asked, self._pair(peer).rows)
            else:
                self._revealed[peer] = asked
            self._seen.add((sender, tag))
        super().receive(rest)

    def share(
        self, query: PlannedQuery, vectors: Mapping[str, Floats] | None = None, cap: float = 1.0
    ) -> dict[str, bytes]:
        """As ``PartySession.share``; refused until the trustee has sent its challenges."""
        if query.kind in ("DOT", "WEIGHTED"):
            for peer in self._peers(query):
                if peer not in self._watches or peer not in self._committed:
                    raise MessageMissing(f"rows with {peer} are not committed to and challenged.", party=self.party)
        return super().share(query, vectors, cap)

    def report(self) -> dict[str, bytes]:
        """Return, to the trustee, what the peers' messages were at its challenges; no query goes on after this.

        Raises:
            MessageMissing: a challenge has not arrived.
        """
        if set(self._watches) != set(self._committed):
            raise MessageMissing("the trustee has not sent its challenges.", party=self.party)
        self._has_reported = True
        blobs: dict[str, bytes] = {}
        for peer, watch in self._watches.items():
            masked = self._pair(peer).masked
            if masked is not None:
                watch.see(_MATRIX, masked)
            blobs |= self._blob(self._trustee, f"report.{peer}", watch.report())
        return blobs

    def disclose(self) -> dict[str, bytes]:
        """Return, to the trustee, the rows it named.

        Raises:
            MessageMissing: the trustee has named no rows.
        """
        if not self._has_reported or set(self._revealed) != set(self._committed):
            raise MessageMissing("the trustee has not named the rows to open.", party=self.party)
        blobs: dict[str, bytes] = {}
        for peer, rows in self._committed.items():
            named = [int(row) for row in self._revealed[peer].rows if 0 <= row < self._pair(peer).rows]
            blobs |= self._blob(
                self._trustee, f"disclosed.{peer}", pack_openings({row: rows.opened(row) for row in named})
            )
        return blobs

    def _step(self, query: PlannedQuery, step: str) -> None:
        if self._has_reported:
            raise MessageUnexpected(f"query {query.id} after the report to the trustee.", party=self.party)
        super()._step(query, step)

    def _share_of(self, query: PlannedQuery, peer: str) -> Words:
        if self._holds_matrix(query) and peer in self._watches:
            opened = self._peek(peer, f"open.{query.id}") if query.kind == "WEIGHTED" else None
            received = self._pairs[peer].received(query, opened, self._peek(peer, f"share.{query.id}"))
            self._watches[peer].see(query.id, received)
        return super()._share_of(query, peer)

    def _products(self, query: PlannedQuery) -> dict[str, Words]:
        for peer in self._peers(query):
            if peer in self._watches:
                e = from_bytes(self._peek(peer, f"open.{query.id}"), self._pairs[peer].rows, peer)
                self._watches[peer].see(f"{query.id}#factor", e[None, :])
        return super()._products(query)


class Values(Protocol):
    """What honest holders send, from the signed specification and public weights."""

    def factor(self, query: PlannedQuery, party: str, row: OpenedRow) -> Floats | None:
        """Return a party's factor (1,) or vector (J,) of a row; None where only the cap is known."""

    def cap(self, query: PlannedQuery, party: str) -> float:
        """Return the most that it may be in size."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One failed check: ``party`` was checked, ``by`` the party that received its messages; nothing of a row."""

    party: str
    by: str
    code: FindingCode


class AuditingDealer(DealerSession):
    """The trustee under ``rowAudit``.

    Args:
        run: uid of the run.
        attempt: number of the try.
        keys: the trustee's keys.
        terms: of the contract.
    """

    def __init__(self, run: str, attempt: int, keys: PairKeys, terms: AuditTerms) -> None:
        super().__init__(run, attempt, keys)
        self._terms = terms
        self._roots: dict[tuple[str, str], bytes] = {}
        self._reports: dict[tuple[str, str], bytes] = {}
        self._disclosed: dict[tuple[str, str], bytes] = {}
        self._challenges: dict[tuple[str, str], Challenge] = {}
        self._asked: dict[str, PlannedQuery] = {}

    @property
    def roots(self) -> dict[tuple[str, str], bytes]:
        """The commitments by (holder, its peer)."""
        return dict(self._roots)

    def receive(self, blobs: Mapping[str, bytes]) -> None:
        """As ``DealerSession.receive``; also commitments, reports and disclosures."""
        rest = {}
        for name, blob in blobs.items():
            _, holder, tag = parse_name(name)
            kind, _, peer = tag.partition(".")
            kept = {"commit": self._roots, "report": self._reports, "disclosed": self._disclosed}.get(kind)
            if kept is None:
                rest[name] = blob
                continue
            if (holder, peer) in kept:
                raise TagReused(f"a second {kind} for the pair with {peer}.", party=holder)
            kept[holder, peer] = self._keys.unseal(holder, self._attempt.aad(tag, holder, self._keys.party), blob)
        super().receive(rest)

    def deal(self, query: PlannedQuery) -> dict[str, bytes]:
        """As ``DealerSession.deal``; with a pair's first query also both its challenges.

        Raises:
            MessageMissing: a holder has not committed to its rows.
        """
        blobs = super().deal(query)
        if query.kind not in ("DOT", "WEIGHTED"):
            return blobs
        self._asked[query.id] = query
        for p in query.matrix.parties:
            for q in vector_side(query):
                for holder, peer in ((p, q), (q, p)):
                    if (holder, peer) not in self._roots:
                        raise MessageMissing(f"no commitment to the rows with {peer}.", party=holder)
                    if (holder, peer) not in self._challenges:
                        made = Challenge.draw(self._shape(holder, peer).rows, self._terms)
                        self._challenges[holder, peer] = made
                        blobs |= self._sealed(holder, f"challenge.{peer}", made.to_bytes())
        return blobs

    def reveal(self) -> dict[str, bytes]:
        """Name to every holder the rows that it opens: those its peers and it were asked to look at.

        Raises:
            MessageMissing: a holder has not reported; it could still take steps.
        """
        for holder, peer in self._challenges:
            if (holder, peer) not in self._reports:
                raise MessageMissing(f"no report of what {peer} sent.", party=holder)
        blobs: dict[str, bytes] = {}
        for holder, peer in self._challenges:
            blobs |= self._sealed(
                holder, f"reveal.{peer}", Challenge(self._rows(holder, peer), bytes(32), 1).to_bytes()
            )
        return blobs

    def judge(self, values: Values, closed: Sequence[str]) -> list[Finding]:
        """Compare everything; an empty list means that all checks held.

        Args:
            values: what honest holders send.
            closed: ids of queries that must have been answered; those that a holder reports are checked too.
        """
        findings: list[Finding] = []
        rows: dict[tuple[str, str], dict[int, OpenedRow]] = {}
        reports: dict[tuple[str, str], dict[str, tuple[Words, Words]]] = {}
        for pair in self._challenges:
            try:
                rows[pair], reports[pair] = self._read(*pair)
            except (MessageMalformed, MessageMissing):
                findings.append(Finding(pair[0], pair[1], "OPENING_FAILED"))
        if findings:
            return findings
        for receiver, sender in self._challenges:
            findings += self._check(receiver, sender, rows, reports[receiver, sender], values, closed)
        return findings

    # --- inside -----------------------------------------------------------------------------

    def _sealed(self, party: str, tag: str, plain: bytes) -> dict[str, bytes]:
        return {to_party(party, tag): self._keys.seal(party, self._attempt.aad(tag, self._keys.party, party), plain)}

    def _rows(self, holder: str, peer: str) -> Any:
        return np.union1d(self._challenges[holder, peer].rows, self._challenges[peer, holder].rows)

    def _read(self, holder: str, peer: str) -> tuple[dict[int, OpenedRow], dict[str, tuple[Words, Words]]]:
        if (holder, peer) not in self._disclosed:
            raise MessageMissing("nothing was disclosed.", party=holder)
        openings = unpack_openings(self._disclosed[holder, peer], holder)
        count, root = self._shape(holder, peer).rows, self._roots[holder, peer]
        wanted = self._rows(holder, peer).tolist()
        if set(openings) != set(wanted):
            raise MessageMissing("other rows were opened than were named.", party=holder)
        opened = {row: check_opening(openings[row], row, count, root, holder) for row in wanted}
        return opened, read_report(self._reports[holder, peer], holder)

    def _check(
        self,
        receiver: str,
        sender: str,
        rows: Mapping[tuple[str, str], Mapping[int, OpenedRow]],
        report: Mapping[str, tuple[Words, Words]],
        values: Values,
        closed: Sequence[str],
    ) -> list[Finding]:
        challenge = self._challenges[receiver, sender]
        theirs, own = rows[sender, receiver], rows[receiver, sender]
        reported = {name.partition("#")[0] for name in report}
        messages = self._messages(receiver, sender, sorted(reported.union(closed)))
        count = self._shape(sender, receiver).rows
        tests = max(1, len(self._challenges) * len(messages) * -(-count // self._terms.block))
        found: set[FindingCode] = set()
        for name, (query, pad) in messages.items():
            if name not in report:
                found.add("REPORT_INCOMPLETE")
                continue
            seen, sums = report[name]
            at_rows, blocks = pad(challenge, name)
            if seen.shape != at_rows.shape or sums.shape != blocks.shape:
                found.add("REPORT_INCOMPLETE")
                continue
            cap, bits = _cap(values, query, name, sender, receiver)
            plain = (seen - at_rows).view(np.int64)
            largest = np.abs((sums - blocks).view(np.int64).astype(np.float64)).max(initial=0.0) / 2.0**bits
            if largest > block_bound(self._terms.block, cap, tests) + 1e-6:
                found.add("BLOCK_TOO_LARGE")
            for place, row in enumerate(challenge.rows.tolist()):
                if not _fits(values, query, name, (sender, receiver), theirs[row], own[row], plain[:, place]):
                    found.add("ROW_DIFFERS")
        return [Finding(sender, receiver, code) for code in sorted(found)]

    def _messages(
        self, receiver: str, sender: str, closed: Sequence[str]
    ) -> dict[str, tuple[PlannedQuery | None, Callable[[Challenge, str], tuple[Words, Words]]]]:
        """Return every message of a sender to a receiver that is checked, with the pads to take off."""
        shape = self._shape(sender, receiver)
        at_sender = self._pads(sender, receiver, shape.salt)
        out: dict[str, tuple[PlannedQuery | None, Callable[[Challenge, str], tuple[Words, Words]]]] = {}
        if shape.columns:

            def matrix_pads(challenge: Challenge, name: str) -> tuple[Words, Words]:
                parts = [at_sender.matrix(shape.rows, column, 1) for column in range(shape.columns)]
                at_rows = np.concatenate([part[:, challenge.rows] for part in parts])
                return at_rows, np.concatenate([challenge.project(name, part) for part in parts])

            out[_MATRIX] = (None, matrix_pads)
        for name in closed:
            query = self._asked.get(name)
            if query is None or not {sender, receiver} <= set(query.participants):
                continue
            if receiver in query.matrix.parties:
                out[name] = (query, _taking(at_sender.vector, query, shape.rows))
            elif query.kind == "WEIGHTED":
                out[f"{name}#factor"] = (query, _taking(_one(at_sender.factor), query, shape.rows, negative=True))
        return out


def _one(pads: Callable[[PlannedQuery, int], Words]) -> Callable[[PlannedQuery, int], Words]:
    return lambda query, rows: pads(query, rows)[None, :]


def _taking(
    pads: Callable[[PlannedQuery, int], Words], query: PlannedQuery, rows: int, negative: bool = False
) -> Callable[[Challenge, str], tuple[Words, Words]]:
    """Return what takes a query's pads at a challenge's rows and blocks."""

    def take(challenge: Challenge, name: str) -> tuple[Words, Words]:
        words = pads(query, rows)
        words = np.zeros_like(words) - words if negative else words
        return words[:, challenge.rows], challenge.project(name, words)

    return take


def _cap(values: Values, query: PlannedQuery | None, name: str, sender: str, receiver: str) -> tuple[float, int]:
    if query is None:
        return 1.0, MATRIX_BITS
    if name.endswith("#factor") or query.kind == "DOT":
        return values.cap(query, sender), FACTOR_BITS
    return values.cap(query, sender) * values.cap(query, receiver), 2 * FACTOR_BITS


def _fits(
    values: Values,
    query: PlannedQuery | None,
    name: str,
    ends: tuple[str, str],
    theirs: OpenedRow,
    own: OpenedRow,
    plain: Any,
) -> bool:
    """Whether what was sent for a row is what its committed inputs give; two grid steps are rounding."""
    if query is None:
        return bool(np.array_equal(plain, theirs.x))
    scale = 2.0**FACTOR_BITS
    expected = values.factor(query, ends[0], theirs)
    if expected is None:
        return True
    if name.endswith("#factor") or query.kind == "DOT":
        return bool(np.all(np.abs(plain / scale - expected) <= 2 / scale))
    other = values.factor(query, ends[1], own)
    if other is None:
        return True
    slack = (2 * (np.abs(expected) + np.abs(other)) + 4 / scale) / scale
    return bool(np.all(np.abs(plain / scale**2 - expected * other) <= slack))


def unexpected(kind: str, party: str) -> MessageUnexpected:
    """Return the refusal of an audit step where the contract asks for none."""
    return MessageUnexpected(f"the contract asks for no row audit; there is no step {kind}.", party=party)
