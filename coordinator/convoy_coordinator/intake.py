"""What the ServerApp process and the parties' nodes may have written in the log, and nothing else.

A node brings its own statements over the partner channel (``take``), in order and without a gap; one that is in the log
already is answered with its index. The ServerApp may bring the statements of parties, which are verified against their
enrolled keys, and the coordinator's own ``run.authorised`` and ``query.opened`` of a run that is not over. A run is not
authorised before a quorum of witnesses has cosigned all that it rests on (``ground``). Everything else that the coordinator
says is written by the service that does it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from convoy_audit.entry import parse_entry
from convoy_audit.errors import AuditError
from convoy_audit.events import Event, QueryOpened, RunAuthorised, StatedEvent
from convoy_audit.keys import key_id_of
from convoy_audit.statement import Statement, verify_statement
from convoy_coordinator.contracts.service import ContractService
from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.journal import Journal
from convoy_coordinator.log.levels import Level
from convoy_coordinator.parties.heads import ReadLog, StatementHeads
from convoy_coordinator.parties.service import PartyService
from convoy_coordinator.runs.service import RunService


class Intake:
    """Takes entries of the ServerApp process.

    Args:
        journal: the log.
        parties: whose keys statements are verified with.
        contracts: what runs rest on.
        runs: the runs that entries may be about.
        log: where statements are found again.
    """

    def __init__(
        self, journal: Journal, parties: PartyService, contracts: ContractService, runs: RunService, log: ReadLog
    ) -> None:
        self._journal = journal
        self._parties = parties
        self._contracts = contracts
        self._runs = runs
        self.heads = StatementHeads(log)

    def append(self, entries: Sequence[bytes]) -> list[int]:
        """Write entries; all of them or none.

        Raises:
            Problem: LOG_REFUSED with every entry that may not be written, and why; LOG_NOT_WITNESSED for the authorisation of
                a run whose ground no quorum has cosigned.
        """
        faults: list[Fault] = []
        blamed: str | None = None
        with self._journal.order():
            known: list[int | None] = []
            authorised: list[str] = []
            for position, raw in enumerate(entries):
                try:
                    content = parse_entry(raw)
                    known.append(self._check(content))
                    if isinstance(content, RunAuthorised):
                        authorised.append(content.run)
                except (AuditError, Problem) as error:
                    faults.append(Fault(f"/entries/{position}", error.cause))
                    blamed = error.party or blamed
            if faults:
                raise Problem(
                    "LOG_REFUSED",
                    f"{len(faults)} of {len(entries)} entries may not be written: {faults[0].cause}",
                    party=blamed,
                    faults=faults,
                )
            for run in authorised:
                what = f"run {run} rests on a contract or key that no quorum has cosigned yet"
                self._journal.require(self.ground(run), Level.WITNESSED, what)
            return self._write(entries, known)

    def ground(self, run: str) -> int:
        """Return the index of the last entry that a run rests on.

        That is its request, or what came later: a signature or event of the contract, a key of one of its parties. All that
        stands before it in the tree is witnessed when it is.

        Raises:
            Problem: RUN_UNKNOWN.
        """
        order = self._runs.get(run)
        view = self._contracts.view(order.contract_digest)
        keys = [party.log_index for party in self._parties.all() if party.id in view.agreed.parties]
        return max(order.log_index, view.rests_on, *keys)

    def take(self, statements: Sequence[bytes], party: str) -> list[int]:
        """Write statements of one party, all or none; those that are there already keep their index.

        Raises:
            Problem: STATEMENT_NOT_YOURS, STATEMENT_GAP, STATEMENT_FORKED, PARTY_REVOKED, or LOG_REFUSED with the
                reason.
        """
        with self._journal.order():
            following, known = self.heads.last(party) + 1, []
            for raw in statements:
                statement = self._statement(raw, party)
                found = self._known(statement)
                known.append(found)
                if found is None and statement.number != following:
                    raise Problem(
                        "STATEMENT_GAP", f"statement {following} comes next, sent was {statement.number}", party=party
                    )
                following += found is None
            return self._write(statements, known)

    def read(self, raw: bytes, party: str) -> StatedEvent:
        """Return what a party's statement says, verified, without writing it.

        Raises:
            Problem: as ``take``.
        """
        return self._statement(raw, party).event

    def _statement(self, raw: bytes, party: str) -> Statement:
        try:
            content = parse_entry(raw)
            if not isinstance(content, Statement):
                raise Problem("LOG_REFUSED", f"{content.TYPE} is not a statement", party=party)
            if content.party != party:
                raise Problem("STATEMENT_NOT_YOURS", f"a statement of {content.party}, sent by {party}", party=party)
            self._verify(content)
        except AuditError as error:
            raise Problem("LOG_REFUSED", error.cause, party=party) from None
        return content

    def _verify(self, statement: Statement) -> None:
        """Verify a statement; one that is in the log already was verified then."""
        keys = self._parties.signing_keys(statement.party)
        if not keys and self._known(statement) is None:
            raise Problem("PARTY_REVOKED", f"{statement.party} takes no part any more", party=statement.party)
        if keys and self._known(statement) is None:
            verify_statement(statement, next((k for k in keys if key_id_of(k) == statement.key_id), keys[0]))

    def _known(self, statement: Statement) -> int | None:
        found = self.heads.find(statement.party, statement.number)
        if found is None:
            return None
        if found[1] != hashlib.sha256(statement.raw).digest():
            raise Problem(
                "STATEMENT_FORKED",
                f"statement {statement.number} is in the log with other words",
                party=statement.party,
            )
        return found[0]

    def _write(self, entries: Sequence[bytes], known: Sequence[int | None]) -> list[int]:
        fresh = [raw for raw, index in zip(entries, known, strict=True) if index is None]
        indexes = iter(self._journal.append(fresh) if fresh else [])
        return [next(indexes) if index is None else index for index in known]

    def _check(self, content: Event | Statement) -> int | None:
        """Check an entry of the ServerApp; return its index where it is a statement that is in the log already."""
        if isinstance(content, Statement):
            self._verify(content)
            return self._known(content)
        if not isinstance(content, RunAuthorised | QueryOpened):
            raise Problem("LOG_REFUSED", f"{content.TYPE} is not for the ServerApp to write")
        run = self._runs.get(content.run)
        if run.state.is_final:
            raise Problem("RUN_STATE_WRONG", f"run {run.uid} is {run.state.value}")
        if isinstance(content, RunAuthorised) and content.contract != run.contract_digest:
            raise Problem("LOG_REFUSED", f"run {run.uid} is under contract {run.contract_digest}")
        return None
