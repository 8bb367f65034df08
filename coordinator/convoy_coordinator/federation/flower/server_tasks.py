"""Take ServerApp tasks from the SuperLink and run the installed ServerApp for each.

Guarantees: the ServerApp is the one installed here, whatever a bundle holds; a task is kept alive
while it runs and always ends as completed, failed or stopped; an exception's text stays in this
process's log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import httpx
from flwr.app import Context
from flwr.common.config import get_fused_config_from_fab
from flwr.common.constant import SubStatus
from flwr.common.serde import context_from_proto, fab_from_proto, run_from_proto
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.serverapp import Grid
from flwr.supercore.constant import TaskType
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from convoy_coordinator.federation.flower.http_grid import PromptGrid, quicken_pulls
from convoy_coordinator.federation.flower.link_home import LinkHome

_LOG = logging.getLogger(__name__)
_HEARTBEAT_S: Final = 8.0
"""A task's token lapses 30 s after its last heartbeat."""


class ServerTasks:
    """The ServerApp tasks of one SuperLink.

    Args:
        home: the link's folder; the SuperLink must be running.
        app: the installed ServerApp, called with a Grid and a Context.
        settings: added to ``context.run_config``; they stay at the coordinator.
    """

    def __init__(self, home: LinkHome, app: Callable[[Grid, Context], None], settings: Mapping[str, str]) -> None:
        quicken_pulls()
        self._app = app
        self._settings = dict(settings)
        self._address = home.read_ready().internal
        self._ca = home.ca_file.read_bytes()
        secret = SuperExecAuthHttpInterceptor(
            master_secret=home.superexec_secret(),
            protected_methods={"/flwr.proto.Runtime/AcquireTask"},
        )
        self._executor = RuntimeHttpClient.from_server_address(
            self._address,
            insecure=False,
            root_certificates=self._ca,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec"), secret],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.close()

    def work_forever(self, *, idle_s: float, retry_s: float) -> None:
        """Take and run tasks; returns only by an exception, as a rule ``Stop``."""
        while True:
            try:
                token = self.acquire()
            except httpx.HTTPError as error:
                _LOG.warning("the SuperLink does not answer (%s)", type(error).__name__)
                time.sleep(retry_s)
                continue
            if token:
                self.run(token)
            else:
                time.sleep(idle_s)

    def acquire(self) -> str:
        """Take a task and return its token, or return an empty text where there is none."""
        request = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
        return str(self._executor.AcquireTask(request).token)

    def run(self, token: str) -> str:
        """Run one task to its end and return how it ended: completed, failed or stopped."""
        grid = PromptGrid(self._address, self._ca, token=token)
        outcome, details = SubStatus.STOPPED, "the worker was stopped"
        try:
            context = self._begin(grid)
            _LOG.info("run %s begins", context.run_id)
            fault = self._finish(grid, context)
            outcome = SubStatus.COMPLETED if fault is None else SubStatus.FAILED
            details = "" if fault is None else type(fault).__name__
            _LOG.info("run %s: %s", context.run_id, outcome, exc_info=fault)
        except httpx.HTTPError as error:
            outcome, details = SubStatus.FAILED, type(error).__name__
            _LOG.warning("the task was lost (%s)", details)
        finally:
            grid.give_up_at_once()
            with suppress(httpx.HTTPError):
                end = PushTaskOutputRequest(sub_status=outcome, details=details)
                grid.client.PushTaskOutput(end)
            grid.close()
        return str(outcome)

    def _begin(self, grid: PromptGrid) -> Context:
        task = grid.client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id = task.task_id
        TaskIdentity.run_id = task.run.run_id
        TaskIdentity.node_id = task.context.node_id
        run = run_from_proto(task.run)
        grid.set_run(run)
        context = context_from_proto(task.context)
        bundle = fab_from_proto(task.fab)
        context.run_config = {**get_fused_config_from_fab(bundle.content, run), **self._settings}
        return context

    def _finish(self, grid: PromptGrid, context: Context) -> BaseException | None:
        """Run the ServerApp in a thread, keep the task alive, and return what it raised."""
        runner = ThreadPoolExecutor(1, thread_name_prefix="ServerApp")
        future: Future[None] = runner.submit(self._app, grid, context)
        runner.shutdown(wait=False)
        while not wait([future], timeout=_HEARTBEAT_S).done:
            if not grid.client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success:
                _LOG.warning("run %s was stopped; its ServerApp ends at its next step", context.run_id)
        return future.exception()
