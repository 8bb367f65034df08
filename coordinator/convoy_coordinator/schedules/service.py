"""Queue runs when their time has come.

A time that passed while the coordinator was down is made up for once, however many were missed. A request that the contract no
longer permits queues nothing; the refusal stands in the log, the schedule says why, and it tries again at its next time.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from convoy_coordinator.db.session import SessionFactory, writing
from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.journal import Clock
from convoy_coordinator.runs.service import RunRequest, RunService
from convoy_coordinator.schedules import store
from convoy_coordinator.schedules.store import Schedule

LOOK_S: Final = 1.0
"""Seconds between two looks at the clock."""
log = logging.getLogger(__name__)


class ScheduleService:
    """Standing orders and the clock that carries them out; the same clock ends runs whose ServerApp fell silent.

    Args:
        sessions: the database.
        runs: where due runs are queued.
        clock: the present instant.
    """

    def __init__(self, sessions: SessionFactory, runs: RunService, clock: Clock) -> None:
        self._sessions, self._runs, self._clock = sessions, runs, clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, asked: RunRequest, cron: str, zone: str) -> Schedule:
        """Make a schedule; the order is checked as a run's is, so that a wrong one is told now and not at night.

        Raises:
            Problem: INPUT_INVALID for the expression or the zone; what ``RunService.check`` says of the order.
        """
        next_at = next_time(cron, zone, self._clock())
        self._runs.check(asked)
        schedule = Schedule(
            uid=f"schedule-{secrets.token_hex(6)}",
            cron=cron,
            zone=zone,
            contract_digest=asked.contract_digest,
            algorithm=asked.algorithm,
            requester=asked.requester,
            purpose=asked.purpose,
            request=dict(asked.request),
            is_paused=False,
            next_at=next_at,
            last_run=None,
            last_problem=None,
        )
        with writing(self._sessions) as session:
            store.insert(session, schedule)
        return schedule

    def all(self) -> tuple[Schedule, ...]:
        """Return every schedule, the one due first at the front."""
        with self._sessions() as session:
            return store.every(session)

    def get(self, uid: str) -> Schedule:
        """Return a schedule.

        Raises:
            Problem: SCHEDULE_UNKNOWN.
        """
        with self._sessions() as session:
            found = store.find(session, uid)
        if found is None:
            raise Problem("SCHEDULE_UNKNOWN", f"no schedule {uid[:80]!r}")
        return found

    def pause(self, uid: str) -> Schedule:
        """Queue nothing more until it is resumed."""
        self.get(uid)
        with writing(self._sessions) as session:
            store.change(session, uid, is_paused=True)
        return self.get(uid)

    def resume(self, uid: str) -> Schedule:
        """Go on at the next time from now; times that passed in the pause are not made up for."""
        schedule = self.get(uid)
        next_at = next_time(schedule.cron, schedule.zone, self._clock())
        with writing(self._sessions) as session:
            store.change(session, uid, is_paused=False, next_at=next_at)
        return self.get(uid)

    def remove(self, uid: str) -> None:
        """Delete a schedule; runs that it queued stay."""
        self.get(uid)
        with writing(self._sessions) as session:
            store.remove(session, uid)

    def carry_out(self) -> int:
        """Queue what is due; returns how many runs were queued."""
        now, queued = self._clock(), 0
        with self._sessions() as session:
            due = store.due(session, now)
        for schedule in due:
            with writing(self._sessions) as session:
                if not store.move_on(session, schedule, next_time(schedule.cron, schedule.zone, now)):
                    continue
            # If we die here: this time is lost, and the next one comes as planned; never two runs for one time.
            order = RunRequest(
                schedule.contract_digest, schedule.algorithm, schedule.requester, schedule.purpose, schedule.request
            )
            try:
                run = self._runs.queue(order)
                told: dict[str, str | None] = {"last_run": run.uid, "last_problem": None}
                queued += 1
            except Problem as problem:
                log.warning("schedule %s queued nothing: %s", schedule.uid, problem.code)
                told = {"last_problem": f"{problem.code}: {problem.cause}"}
            with writing(self._sessions) as session:
                store.change(session, schedule.uid, **told)
        return queued

    def start(self) -> None:
        """Look at the clock from a thread, until ``stop``."""
        self._thread = threading.Thread(target=self._keep_looking, name="schedules", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)

    def _keep_looking(self) -> None:
        started = time.monotonic()
        while not self._stop.wait(LOOK_S):
            try:
                if (
                    time.monotonic() - started > self._runs.lease_s
                ):  # who was silent because we were down may speak first
                    self._runs.end_silent()
                self.carry_out()
            except Exception:  # the clock must go on; a database that is away comes back
                log.exception("schedules could not be looked at")


def next_time(cron: str, zone: str, after: datetime) -> datetime:
    """Return the first time of a cron expression after an instant, in UTC.

    Args:
        cron: five fields, as in crontab(5).
        zone: IANA time zone in which they are meant.
        after: aware.

    Raises:
        Problem: INPUT_INVALID; both faults at once.
    """
    faults, place = [], None
    try:
        place = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        faults.append(Fault("/zone", "is no IANA time zone, such as Asia/Shanghai"))
    try:
        found = next(CronSim(cron, after.astimezone(place or UTC)))
    except (CronSimError, StopIteration):
        faults.append(Fault("/cron", "is no cron expression of five fields that ever comes true, such as '0 2 * * 1'"))
    if faults:
        raise Problem("INPUT_INVALID", f"the schedule has {len(faults)} fault(s)", faults=faults)
    return found.astimezone(UTC)
