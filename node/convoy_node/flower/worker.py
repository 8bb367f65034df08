"""Run the partner's installed application for the SuperNode that started this process:

``python -m convoy_node.flower.worker --home DIR --client-app module:factory --runtime HOST:PORT``

Started by ``supernode``; not meant to be started by hand. Standard input is the line to the
SuperNode.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from convoy_contracts.operations.logs import start_logs
from convoy_contracts.operations.traces import start_traces, stop_traces
from convoy_node.flower import environment, lifetime
from convoy_node.flower.errors import FlowerError, WorkerEnded


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    line = argparse.ArgumentParser("worker", description="Run the installed ClientApp.")
    line.add_argument("--home", type=Path, required=True, help="the node's folder")
    line.add_argument("--client-app", required=True, help="module:factory; factory(home)")
    line.add_argument("--runtime", required=True, metavar="HOST:PORT", help="the SuperNode")
    line.add_argument("--ready-fd", type=int, required=True, help="written to when ready")
    return line


def main(arguments: Sequence[str] | None = None) -> None:
    """Work until the SuperNode ends or says stop."""
    given = parser().parse_args(arguments)
    environment.settle(given.home / "flower" / "flwr")
    start_logs("worker")
    start_traces("convoy-node")
    code = 0
    try:
        lifetime.stop_on_signals()
        # Flower reads the environment when it is imported, so not before here.
        from convoy_node.flower.client_tasks import ClientTasks

        environment.hush()

        factory = load(given.client_app)
        with ClientTasks(given.home, factory, given.runtime) as tasks:
            with os.fdopen(given.ready_fd, "wb") as ready:
                ready.write(b"\n")
            tasks.work_until_line_ends(sys.stdin.fileno())
    except lifetime.Stop:
        pass
    except FlowerError as error:
        logging.error("%s", error)
        code = 1
    stop_traces()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # the application's thread may be in the middle of a sum that nobody awaits now


def load(reference: str) -> Callable[[Path], Any]:
    """Import the installed factory.

    Raises:
        WorkerEnded: it is not there.
    """
    module, _, attribute = reference.partition(":")
    try:
        factory: Callable[[Path], Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise WorkerEnded(
            f"there is no application {reference} ({error}).",
            fix="Name an installed one as module:factory.",
        ) from error
    return factory


if __name__ == "__main__":
    main()
