"""Queue runs, hand them to the ServerApp process one at a time, and keep how each one ended.

Every effect has its entry in the log first. A run that was claimed and fell silent for longer
than the lease goes back to the queue if it was not authorised yet, and counts as failed if it
was: what the nodes reserved, they settle by their own rule.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from convoy_audit.events import RunAuthorised, RunFailed, RunFinished, RunRefused, RunRequested
from convoy_coordinator.contracts.service import ContractService, ContractView
from convoy_coordinator.db.session import SessionFactory, writing
from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.journal import Author, Clock, Journal
from convoy_coordinator.log.levels import Level
from convoy_coordinator.runs import store
from convoy_coordinator.runs.states import MOVES, Ending, RunState
from convoy_coordinator.runs.store import Run

LIST_LIMIT: Final = 100


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a requester asks for; ``request`` holds the optional members, as they were given."""

    contract_digest: str
    algorithm: str
    requester: str
    purpose: str
    request: Mapping[str, Any]


class RunService:
    """The queue of runs.

    Args:
        sessions: the database.
        journal: the log, written before each effect.
        contracts: what was agreed.
        clock: the present instant.
        lease_s: seconds without a sign of life after which a claim lapses.
    """

    def __init__(
        self,
        sessions: SessionFactory,
        journal: Journal,
        contracts: ContractService,
        clock: Clock,
        lease_s: int,
    ) -> None:
        self._sessions = sessions
        self._journal = journal
        self._contracts = contracts
        self._clock = clock
        self.lease_s = lease_s
        self._lease = timedelta(seconds=lease_s)

    def queue(self, asked: RunRequest) -> Run:
        """Put a run in the queue.

        Raises:
            Problem: CONTRACT_UNKNOWN, CONTRACT_NOT_ACTIVE or REQUEST_OUTSIDE_CONTRACT; nothing is
                queued then, and the
                refusal stands in the log.
        """
        now = self._clock()
        with self._journal.order():
            view = self._contracts.view(asked.contract_digest)
            try:
                _check(asked, view)
            except Problem as refusal:
                self._journal.record(_refused(asked, refusal))
                raise
            uid = f"run-{now:%Y%m%d}-{secrets.token_hex(6)}"
            with self._sessions() as session:
                number = store.next_number(session)
                round_ = store.next_round(session, view.contract.uid)
            index = self._journal.record(_requested(uid, round_, asked))
            # If we die here: the log knows a request that nobody runs; the requester has no uid
            # and asks again.
            run = Run(
                uid=uid,
                number=number,
                contract_digest=asked.contract_digest,
                contract_uid=view.contract.uid,
                round=round_,
                algorithm=asked.algorithm,
                requester=asked.requester,
                purpose=asked.purpose,
                request=dict(asked.request),
                state=RunState.QUEUED,
                requested_at=now,
                log_index=index,
                claimed_at=None,
                alive_at=None,
                ended_at=None,
                progress={},
                reason=None,
                reasons=[],
                party=None,
                cause=None,
                fix=None,
            )
            with writing(self._sessions) as session:
                store.insert_run(session, run)
        return run

    def check(self, asked: RunRequest) -> None:
        """Check an order against its contract as it stands now; queue nothing.

        Raises:
            Problem: CONTRACT_UNKNOWN, CONTRACT_NOT_ACTIVE or REQUEST_OUTSIDE_CONTRACT.
        """
        _check(asked, self._contracts.view(asked.contract_digest))

    def cancel(self, uid: str) -> Run:
        """Stop a run by a person's order; the ServerApp learns of it at its next sign of life, nodes settle by their rule.

        Raises:
            Problem: RUN_UNKNOWN; RUN_STATE_WRONG where it has ended otherwise.
        """
        return self.move(uid, RunState.CANCELLED, _CANCELLED)

    def again(self, uid: str) -> Run:
        """Queue the order of a run that did not finish once more, as a run of its own: its sums and its price are new.

        Raises:
            Problem: RUN_UNKNOWN; RUN_STATE_WRONG for a run that is still going or that finished; what ``queue`` says.
        """
        run = self.get(uid)
        if not run.state.needs_reason:
            raise Problem(
                "RUN_STATE_WRONG", f"run {uid} is {run.state.value}; only one that was stopped can be run again"
            )
        return self.queue(RunRequest(run.contract_digest, run.algorithm, run.requester, run.purpose, run.request))

    def claim(self) -> tuple[Run, ContractView] | None:
        """Give the next queued run to the caller, who alone may run it; ``None`` if there is
        nothing to do.
        """
        self.end_silent()
        now = self._clock()
        with writing(self._sessions) as session:
            run = store.oldest_unclaimed(session)
            if run is None or not store.mark_claimed(session, run.uid, now):
                return None
        return self.get(run.uid), self._contracts.view(run.contract_digest)

    def report(self, uid: str, progress: Mapping[str, Any]) -> Run:
        """Keep a progress report; members that it does not name keep their last value.

        Raises:
            Problem: RUN_UNKNOWN, or RUN_STATE_WRONG for a run that has ended.
        """
        with self._journal.order():
            run = self.get(uid)
            if run.state.is_final:
                raise Problem("RUN_STATE_WRONG", f"run {uid} is {run.state.value}", party=run.party)
            with writing(self._sessions) as session:
                store.set_progress(session, uid, run.progress | dict(progress), self._clock())
        return self.get(uid)

    def move(self, uid: str, state: RunState, ending: Ending | None = None) -> Run:
        """Move a run to another state; repeating the last move changes nothing.

        Raises:
            Problem: RUN_UNKNOWN; RUN_STATE_WRONG if the table has no such move; INPUT_INVALID if
                a run is stopped
                without a reason.
        """
        with self._journal.order():
            run = self.get(uid)
            if run.state is state:
                return run
            if state not in MOVES[run.state]:
                raise Problem(
                    "RUN_STATE_WRONG",
                    f"run {uid} is {run.state.value} and cannot become {state.value}",
                    party=run.party,
                )
            if state.needs_reason and ending is None:
                raise Problem(
                    "INPUT_INVALID",
                    f"a run that is {state.value} needs a reason",
                    faults=[Fault("/reason", "missing")],
                )
            if state is RunState.AUTHORISED:
                # Under the same quorum stand all entries before it: the contract's activation, every party's keys.
                self._journal.require(self._authorisation(run), Level.WITNESSED, f"run {uid} is not authorised yet")
            if state.is_final:
                self._journal.record(_ended(run, state, ending))
                # If we die here: the log says that the run ended; the lease ends it in the
                # database as well.
            with writing(self._sessions) as session:
                store.set_state(session, uid, run.state, state, ending, self._clock())
        return self.get(uid)

    def _authorisation(self, run: Run) -> int:
        """Return the index of the entry that authorises a run."""
        wanted = (run.uid, run.contract_digest)
        found = self._journal.find(
            run.log_index,
            lambda event: isinstance(event, RunAuthorised) and (event.run, event.contract) == wanted,
        )
        if found is None:
            raise Problem("RUN_STATE_WRONG", f"the log has no authorisation of run {run.uid}")
        return found[0]

    def end_silent(self) -> tuple[Run, ...]:
        """End, or put back in the queue, every claimed run whose lease has lapsed; return those
        ended.
        """
        before = self._clock() - self._lease
        with self._sessions() as session:
            silent = store.claimed_and_silent(session, before)
        ended = []
        for run in silent:
            if run.state is RunState.QUEUED:
                with writing(self._sessions) as session:
                    store.release_claim(session, run.uid)
            else:
                ended.append(self.move(run.uid, RunState.FAILED, _silent(run)))
        return tuple(ended)

    def get(self, uid: str) -> Run:
        """Return a run.

        Raises:
            Problem: RUN_UNKNOWN.
        """
        with self._sessions() as session:
            run = store.find_run(session, uid)
        if run is None:
            raise Problem("RUN_UNKNOWN", f"no run {uid[:80]!r}")
        return run

    def latest(self, limit: int = LIST_LIMIT) -> tuple[Run, ...]:
        """Return the last runs, newest first."""
        with self._sessions() as session:
            return store.latest_runs(session, limit)


_CANCELLED: Final = Ending(
    reasons=("RUN_CANCELLED",),
    party="coordinator",
    cause="the operator cancelled the run",
    fix="Queue it again, if it should run: convoy-coordinator run again RUN.",
)


def _check(asked: RunRequest, view: ContractView) -> None:
    if not view.standing.is_active:
        raise Problem(
            "CONTRACT_NOT_ACTIVE",
            f"contract {view.contract.uid} version {view.contract.version} "
            f"is {view.standing.state.value}"
            + (f"; not signed by {', '.join(view.standing.unsigned)}" if view.standing.unsigned else ""),
            party=view.standing.unsigned[0] if view.standing.unsigned else None,
        )
    faults = []
    if asked.requester not in view.agreed.parties:
        faults.append(Fault("/requester", "is not a party of the contract"))
    if asked.algorithm not in view.agreed.algorithms:
        faults.append(Fault("/algorithm", f"is not one of {', '.join(view.agreed.algorithms)}"))
    if faults:
        raise Problem(
            "REQUEST_OUTSIDE_CONTRACT",
            f"{len(faults)} member(s) are outside contract {view.contract.uid}",
            party=asked.requester,
            faults=faults,
        )


def _silent(run: Run) -> Ending:
    since: datetime | None = run.alive_at
    return Ending(
        reasons=("RUN_SILENT",),
        party="coordinator",
        cause=f"the ServerApp process gave no sign of life since {since:%Y-%m-%d %H:%M:%S} UTC"
        if since is not None
        else "the ServerApp process gave no sign of life",
        fix="Check the ServerApp process, then start a new run; nodes settle by themselves.",
    )


def _requested(uid: str, round_: int, asked: RunRequest) -> Author:
    return lambda at: RunRequested(
        at=at,
        run=uid,
        contract=asked.contract_digest,
        algorithm=asked.algorithm,
        requester=asked.requester,
        purpose=asked.purpose,
        round=round_,
    )


def _refused(asked: RunRequest, refusal: Problem) -> Author:
    return lambda at: RunRefused(
        at=at,
        contract=asked.contract_digest,
        algorithm=asked.algorithm,
        requester=asked.requester,
        party=refusal.party,
        reasons=(refusal.code,),
    )


def _ended(run: Run, state: RunState, ending: Ending | None) -> Author:
    if ending is None:
        return lambda at: RunFinished(at=at, run=run.uid, contract=run.contract_digest)
    event = RunRefused if state is RunState.REFUSED else RunFailed
    return lambda at: event(
        at=at,
        run=run.uid,
        contract=run.contract_digest,
        party=ending.party,
        reasons=ending.reasons,
    )
