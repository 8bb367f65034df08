"""``convoy-demo``: run the whole federation on this machine, or remove what it left."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

HOME_NAMES = ("summary.json", "embedded", "deployed")
"""All that a demo's folder can hold (``places``)."""
FEWEST_DRIVERS, MOST_DRIVERS = 1_000, 2_000_000
EXIT_OK, EXIT_FAILED, EXIT_REFUSED, EXIT_STOPPED = 0, 1, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; exit 0 done, 1 failed, 3 a run was refused, 130 stopped by Ctrl-C."""
    parser = argparse.ArgumentParser(prog="convoy-demo", description="A whole federation on one machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train both joint models; goes on with the same ledgers if called again")
    run.add_argument("--home", type=Path, default=Path("run/demo"), help="folder of the demo")
    run.add_argument("--runtime", choices=("embedded", "deployed"), default="embedded", help="one process, or Flower's")
    run.add_argument("--drivers", type=_drivers, help="size of the generated population (100,000)")
    run.add_argument("--seed", type=int, help="seed of the generated population (1)")
    run.add_argument("--no-wait", action="store_true", help="exit at once, also in a terminal")
    reset = commands.add_parser("reset", help="remove the demo's folder, ledgers included")
    reset.add_argument("--home", type=Path, default=Path("run/demo"), help="folder of the demo")
    given = parser.parse_args(arguments)
    if given.command == "reset":
        return _reset(given.home)
    for name in ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED"):
        os.environ.setdefault(name, "0")
    for name in ("FLWR_DISABLE_UPDATE_CHECK", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # seven processes on few cores: one thread each is fastest
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # also where a shell has SIGINT ignored, as in the background
    return _run(given)


def _drivers(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not FEWEST_DRIVERS <= number <= MOST_DRIVERS:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from {FEWEST_DRIVERS:,} to {MOST_DRIVERS:,}")
    return number


def _reset(home: Path) -> int:
    """Remove a demo's folder, and nothing that is none."""
    if not home.exists():
        print(f"There is no {home}. Next: make demo")
        return EXIT_OK
    strange = (
        sorted(path.name for path in home.iterdir() if path.name not in HOME_NAMES) if home.is_dir() else [home.name]
    )
    if strange or not any((home / name).exists() for name in HOME_NAMES):
        what = f"it holds {', '.join(strange[:3])}" if strange else "it is empty"
        print(
            f"{home} is no folder of the demo: {what}. Nothing was removed; name the demo's with --home.",
            file=sys.stderr,
        )
        return EXIT_FAILED
    shutil.rmtree(home)
    print(f"removed {home}. Next: make demo")
    return EXIT_OK


def _run(given: argparse.Namespace) -> int:
    # Late, so that --help answers at once.
    from convoy_demo import show
    from convoy_demo.api import DemoFailed
    from convoy_demo.run import RunRefused, demo
    from convoy_demo.scenario import Scenario

    try:
        asked = {name: value for name in ("drivers", "seed") if (value := getattr(given, name)) is not None}
        with demo(given.home, given.runtime, Scenario(**asked), asked) as outcome:
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
    except OSError as error:
        show.console.print(
            f"[bold red]The demo stopped:[/bold red] {error.filename}: {error.strerror}. Name another --home."
        )
        return EXIT_FAILED
    except DemoFailed as error:
        show.console.print(f"[bold red]The demo stopped:[/bold red] {error}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        show.console.print("Stopped; everything that was started has ended.")
        return EXIT_STOPPED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
