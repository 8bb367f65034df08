"""Run the installed ServerApp for the runs of a SuperLink:

``python -m convoy_coordinator.federation.flower.server_worker --home DIR --app module:attribute``

``DIR`` is the link's folder. The worker takes one ServerApp task at a time, runs the ServerApp that
is installed here (a bundle's code is never looked at), keeps the task alive, and reports how it
ended. It prints ``ready`` once and ends with SIGTERM, SIGINT, or (with ``--stop-with-stdin``) with
the process that started it.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from convoy_contracts.operations.logs import start_logs
from convoy_contracts.operations.traces import start_traces, stop_traces
from convoy_coordinator.federation.flower import environment, lifetime
from convoy_coordinator.federation.flower.errors import LinkHomeUnusable
from convoy_coordinator.federation.flower.link_home import LinkHome

_IDLE_S: Final = 0.1
_RETRY_S: Final = 1.0


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    line = argparse.ArgumentParser("server_worker", description="Run the installed ServerApp.")
    line.add_argument("--home", type=Path, required=True, help="the link's folder")
    line.add_argument("--app", required=True, help="the installed ServerApp, module:attribute")
    line.add_argument(
        "--setting",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="added to context.run_config here, never sent to a node; no secrets",
    )
    line.add_argument(
        "--ready-file", type=Path, help="made when tasks are taken, removed at the end; for health checks"
    )
    line.add_argument("--stop-with-stdin", action="store_true", help="stop when standard input is closed")
    return line


def main(arguments: Sequence[str] | None = None) -> None:
    """Work until told to stop."""
    given = parser().parse_args(arguments)
    home = LinkHome(given.home.resolve())
    environment.settle(home.flower_home)
    start_logs("server-worker")
    start_traces("convoy-coordinator-worker")
    lifetime.stop_on_signals()
    if given.stop_with_stdin:
        lifetime.when_stdin_ends(lifetime.terminate_self)
    try:
        # Flower reads the environment when it is imported, so not before here.
        from convoy_coordinator.federation.flower.server_tasks import ServerTasks

        environment.hush()

        with ServerTasks(home, load(given.app), dict(_pairs(given.setting))) as tasks:
            print("ready", flush=True)
            if given.ready_file is not None:
                given.ready_file.touch()
            tasks.work_forever(idle_s=_IDLE_S, retry_s=_RETRY_S)
    except lifetime.Stop:
        if given.ready_file is not None:
            given.ready_file.unlink(missing_ok=True)
        stop_traces()
        logging.shutdown()
        sys.stdout.flush()
        # The ServerApp's thread may still wait for a node: its task was reported as stopped.
        os._exit(0)


def load(reference: str) -> Any:
    """Import the installed ServerApp.

    Raises:
        LinkHomeUnusable: it is not there.
    """
    module, _, attribute = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise LinkHomeUnusable(
            f"there is no ServerApp {reference} ({error})",
            fix="Name an installed one as module:attribute.",
        ) from error


def _pairs(settings: Sequence[str]) -> Iterator[tuple[str, str]]:
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator:
            raise LinkHomeUnusable(f"--setting {name} has no value", fix="Write KEY=VALUE.")
        yield name, value


if __name__ == "__main__":
    main()
