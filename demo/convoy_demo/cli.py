"""``convoy-demo``: run the whole federation on this machine, or remove what it left."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

EXIT_OK, EXIT_FAILED, EXIT_REFUSED, EXIT_STOPPED = 0, 1, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; exit 0 done, 1 failed, 3 a run was refused, 130 stopped by Ctrl-C."""
    parser = argparse.ArgumentParser(prog="convoy-demo", description="A whole federation on one machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train both joint models; goes on with the same ledgers if called again")
    run.add_argument("--home", type=Path, default=Path("run/demo"), help="folder of the demo")
    run.add_argument("--runtime", choices=("embedded", "deployed"), default="embedded", help="one process, or Flower's")
    run.add_argument("--drivers", type=int, default=100_000, help="size of the generated population")
    run.add_argument("--seed", type=int, default=1, help="seed of the generated population")
    run.add_argument("--no-wait", action="store_true", help="exit at once, also in a terminal")
    reset = commands.add_parser("reset", help="remove the demo's folder, ledgers included")
    reset.add_argument("--home", type=Path, default=Path("run/demo"), help="folder of the demo")
    given = parser.parse_args(arguments)
    if given.command == "reset":
        if given.home.exists():
            shutil.rmtree(given.home)
        print(f"removed {given.home}. Next: make demo")
        return EXIT_OK
    for name in ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED"):
        os.environ.setdefault(name, "0")
    for name in ("FLWR_DISABLE_UPDATE_CHECK", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # seven processes on few cores: one thread each is fastest
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # also where a shell has SIGINT ignored, as in the background
    return _run(given)


def _run(given: argparse.Namespace) -> int:
    # Late, so that --help answers at once.
    from convoy_demo import show
    from convoy_demo.api import DemoFailed
    from convoy_demo.run import RunRefused, demo
    from convoy_demo.scenario import Scenario

    try:
        with demo(given.home, given.runtime, Scenario(drivers=given.drivers, seed=given.seed)) as outcome:
            summary, audit = outcome.summary, outcome.summary["audit"]
            show.result(summary)
            show.console.print(
                f"Audit: {audit['entries']} entries, {audit['witnesses']} witnesses, "
                f"[bold]{'verified offline' if audit['verified'] else 'NOT VERIFIED'}[/bold]"
            )
            show.console.print(f"Release: {summary['release']}", soft_wrap=True)
            show.console.print(f"Figures: {given.home / 'summary.json'}", soft_wrap=True)
            show.console.print(f"Overview: {outcome.url}/", soft_wrap=True)
            if sys.stdin.isatty() and sys.stdout.isatty() and not given.no_wait:
                show.console.print("The page stays open. Press Enter to stop.")
                sys.stdin.readline()
            show.console.print("Next: make demo (adds up in the same ledgers) or make demo-reset (starts over)")
    except RunRefused as stop:
        show.refused(stop.kind, stop.run)
        show.console.print("Next: make demo-reset starts over with new parties and empty ledgers")
        return EXIT_REFUSED if stop.run["state"] == "refused" else EXIT_FAILED
    except DemoFailed as error:
        show.console.print(f"[bold red]The demo stopped:[/bold red] {error}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        show.console.print("Stopped; everything that was started has ended.")
        return EXIT_STOPPED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
