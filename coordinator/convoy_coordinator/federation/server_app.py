"""The Flower ServerApp: one Flower run drives one Convoy run. The same in the embedded and in the deployed runtime.

``context.run_config`` names the coordinator (``coordinator-url``) and the file that holds the internal token
(``token-file``); both stay on the coordinator's side. Code in a Flower app bundle is never looked at.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from convoy_audit.entry import encode
from convoy_audit.events import RunAuthorised
from convoy_contracts.errors import ContractsError
from convoy_contracts.operations.logs import about
from convoy_contracts.operations.traces import span
from convoy_coordinator.federation.assignment import Assignment, assignment
from convoy_coordinator.federation.errors import CoordinatorSaid, FederationError, NodeFailed, NodeLost, NodeRefused
from convoy_coordinator.federation.evaluation import check_insurers
from convoy_coordinator.federation.exchange import Exchange, Figures
from convoy_coordinator.federation.flower.gated_grid import grid_nodes
from convoy_coordinator.federation.port import CoordinatorPort
from convoy_coordinator.federation.release import release_body
from convoy_coordinator.federation.round_loop import RoundLoop
from convoy_models.errors import ModelsError
from convoy_models.plan_digest import plan_digest

log = logging.getLogger(__name__)
app = ServerApp()
PROGRESS_EVERY_S = 0.25
ALIVE_EVERY_S = 5.0
ENDED = "RUN_STATE_WRONG"
"""What the coordinator answers about a run that has ended already."""
CODE = re.compile(r"[A-Z][A-Z0-9_]+")
"""A reason code; every other reason is a sentence for people."""


@app.main()  # type: ignore[untyped-decorator]
def main(grid: Grid, context: Context) -> None:
    """Claim the next queued run and carry it out."""
    settings = context.run_config
    token = Path(str(settings["token-file"])).read_text(encoding="utf-8").strip()
    with httpx.Client(
        base_url=str(settings["coordinator-url"]), headers={"Authorization": f"Bearer {token}"}, timeout=60.0
    ) as client:
        serve_next(grid, CoordinatorPort(client))


def serve_next(grid: Grid, port: CoordinatorPort) -> str | None:
    """Carry out the next queued run; return its uid, or None where nothing is queued.

    A run that stops is reported with party, code, cause and fix; it never ends in silence.
    """
    order = port.next_run()
    if order is None:
        return None
    uid = str(order["uid"])
    figures = Figures()
    loop: RoundLoop | None = None
    try:
        run = assignment(order, datetime.now(UTC))
        exchange = Exchange(grid, grid_nodes(grid), uid, figures)
        loop = RoundLoop(run, exchange, port, _Reporter(port, uid))
        with (
            about(run=uid, contract=run.contract.digest),
            span("run", run=uid, contract=run.contract.digest),
            _heartbeat(port, uid),
        ):
            _carry_out(run, loop, port, figures)
    except (FederationError, ModelsError, ContractsError) as error:
        _stop(port, uid, loop, error)
    return uid


def _carry_out(run: Assignment, loop: RoundLoop, port: CoordinatorPort, figures: Figures) -> None:
    started = time.monotonic()
    check_insurers(run)
    sizes = loop.hello()
    if not port.has_ground(run.uid):
        sizes = dict.fromkeys(sizes, loop.witness(sizes)[1])
    entry = encode(
        RunAuthorised(
            at=datetime.now(UTC),
            run=run.uid,
            contract=run.contract.digest,
            scope=run.scope,
            algorithm=run.algorithm_digest,
            plan=plan_digest(run.plan),
            round=int(run.request["round"]),
            attempt=loop.attempt,
            requester=str(run.request["requester"]),
            purpose=str(run.request["purpose"]),
            providers=tuple(run.request["providers"]),
            epsilon_micro=dict(run.request["epsilonMicro"]),
            delta_nano=dict(run.request["deltaNano"]),
        )
    )
    # If we die here: nothing has been asked of any node. After the append: the log names a run that never started.
    index = port.append([entry])[0]
    note, size = loop.witness(sizes)
    rows = loop.authorise(index, size, note, entry)
    port.state(run.uid, "authorised")
    port.progress(run.uid, {"step": "authorised", "rows": rows})
    port.state(run.uid, "running")
    loop.exchange_matrices()
    model = loop.fit()
    evaluation = loop.evaluate(model)
    loop.audit_rows()
    released = port.release(release_body(run, model, figures, rows, {"index": index, "size": size}, evaluation))
    loop.finish(str(released["manifestDigest"]))
    loop.witness(loop.hello())
    port.progress(
        run.uid,
        {
            "step": "finished",
            "seconds": round(time.monotonic() - started, 3),
            "secondsByAction": {k: round(v, 3) for k, v in sorted(figures.seconds.items())},
            "exchanges": dict(sorted(figures.exchanges.items())),
            "messages": sum(figures.messages.values()),
            "blobBytes": figures.blob_bytes,
            "release": released.get("path"),
        },
    )
    port.state(run.uid, "finished")


def _stop(
    port: CoordinatorPort, uid: str, loop: RoundLoop | None, error: FederationError | ModelsError | ContractsError
) -> None:
    party = str(getattr(error, "party", None) or "coordinator")
    code = str(getattr(error, "code", "RUN_FAILED"))
    with about(run=uid, party=party):
        log.warning("run stopped: %s", code)
    if loop is not None:
        loop.abort(code, party if isinstance(error, NodeLost | NodeFailed) else None)
    if code == ENDED:
        return  # cancelled, or given up by the coordinator: it has said so itself
    told = list(getattr(error, "reasons", ())) + list(getattr(error, "problems", ()))
    faults = [reason for reason in told if CODE.fullmatch(reason) is None]
    port.state(
        uid,
        "refused" if isinstance(error, NodeRefused) else "failed",
        reason=code,
        reasons=[reason for reason in told if CODE.fullmatch(reason) is not None],
        party=party,
        cause="\n".join([str(getattr(error, "cause", None) or error), *(f"- {fault}" for fault in faults)]),
        fix=str(getattr(error, "fix", None) or "See the log of the coordinator and of the party named here."),
    )


@contextlib.contextmanager
def _heartbeat(port: CoordinatorPort, uid: str) -> Iterator[None]:
    """Tell the coordinator every few seconds that this process lives, also while it waits for a slow node."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(ALIVE_EVERY_S):
            with contextlib.suppress(CoordinatorSaid):  # the run's own calls say what is wrong
                port.progress(uid, {})

    thread = threading.Thread(target=beat, name=f"alive-{uid}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


class _Reporter:
    """Reports progress, at most every ``PROGRESS_EVERY_S``, the first and last step of a kind always."""

    def __init__(self, port: CoordinatorPort, run: str) -> None:
        self._port = port
        self._run = run
        self._last = ("", 0.0)

    def __call__(self, facts: Mapping[str, Any]) -> None:
        step, now = str(facts.get("step", "")), time.monotonic()
        is_last = facts.get("done") == facts.get("total")
        if step != self._last[0] or is_last or now - self._last[1] >= PROGRESS_EVERY_S:
            self._port.progress(self._run, facts)
            self._last = (step, now)
