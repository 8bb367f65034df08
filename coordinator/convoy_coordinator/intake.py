"""What the ServerApp process may have written in the log, and nothing else.

It may bring the statements of parties, which are verified against their enrolled keys, and the
coordinator's own ``run.authorised`` and ``query.opened`` of a run that is not over. Everything
else that the coordinator says is written by the service that does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convoy_audit.entry import parse_entry
from convoy_audit.errors import AuditError
from convoy_audit.events import Event, QueryOpened, RunAuthorised
from convoy_audit.statement import Statement, verify_statement
from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.journal import Journal
from convoy_coordinator.parties.keys import read_key
from convoy_coordinator.parties.service import PartyService
from convoy_coordinator.runs.service import RunService


class Intake:
    """Takes entries of the ServerApp process.

    Args:
        journal: the log.
        parties: whose keys statements are verified with.
        runs: the runs that entries may be about.
    """

    def __init__(self, journal: Journal, parties: PartyService, runs: RunService) -> None:
        self._journal = journal
        self._parties = parties
        self._runs = runs

    def append(self, entries: Sequence[bytes]) -> list[int]:
        """Write entries; all of them or none.

        Raises:
            Problem: LOG_REFUSED with every entry that may not be written, and why.
        """
        keys = {party.id: read_key(party.identity_key) for party in self._parties.all()}
        faults: list[Fault] = []
        blamed: str | None = None
        for position, raw in enumerate(entries):
            try:
                self._check(raw, keys)
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
        return self._journal.append(entries)

    def _check(self, raw: bytes, keys: Mapping[str, bytes]) -> None:
        content: Event | Statement = parse_entry(raw)
        if isinstance(content, Statement):
            key = keys.get(content.party)
            if key is None:
                raise Problem("PARTY_UNKNOWN", f"{content.party} is not enrolled", party=content.party)
            verify_statement(content, key)
            return
        if not isinstance(content, RunAuthorised | QueryOpened):
            raise Problem("LOG_REFUSED", f"{content.TYPE} is not for the ServerApp to write")
        run = self._runs.get(content.run)
        if run.state.is_final:
            raise Problem("RUN_STATE_WRONG", f"run {run.uid} is {run.state.value}")
        if isinstance(content, RunAuthorised) and content.contract != run.contract_digest:
            raise Problem("LOG_REFUSED", f"run {run.uid} is under contract {run.contract_digest}")
