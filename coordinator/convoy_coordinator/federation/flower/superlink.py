"""Run a SuperLink: ``python -m convoy_coordinator.federation.flower.superlink --home DIR``.

``DIR`` holds ``tls/`` and ``membership.json`` (see ``link_home``); secrets, and with ``--name`` also a
certificate, are created at the first start. The process is ready when ``DIR/ready.json`` is there. SIGTERM or SIGINT ends it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from convoy_coordinator.federation.flower import environment, lifetime, pki
from convoy_coordinator.federation.flower.link_home import DEFAULT_FEDERATION, LinkHome


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    line = argparse.ArgumentParser("superlink", description="Run a SuperLink on two listeners.")
    line.add_argument("--home", type=Path, required=True, help="the link's folder")
    line.add_argument("--internal-port", type=int, default=0, help="loopback port; 0 takes a free one")
    line.add_argument("--public-host", default="127.0.0.1", help="address that partners reach")
    line.add_argument("--public-port", type=int, default=0, help="port that partners reach")
    line.add_argument("--database", choices=("memory", "sqlite"), default="memory", help="where state is kept")
    line.add_argument(
        "--federation",
        action="append",
        help=f"a federation whose runs may start (default {DEFAULT_FEDERATION})",
    )
    line.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        help="name or address by which partners reach it; makes a certificate at the first start, where tls/ has none",
    )
    line.add_argument("--stop-with-stdin", action="store_true", help="stop when standard input is closed")
    return line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop; returns the exit code."""
    given = parser().parse_args(arguments)
    home = LinkHome(given.home.resolve())
    home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment.settle(home.flower_home)
    home.create_secrets()
    if given.name and not home.key_file.exists():
        # The coordinator hands the CA to enrolled nodes over the partner channel; nobody else has to believe it.
        pki.write_certificates(home, [*given.name, "localhost", "127.0.0.1"], valid_for=pki.SERVED_FOR)

    # Flower reads the environment when it is imported, so not before here.
    from convoy_coordinator.federation.flower.app_bundle import app_bundle
    from convoy_coordinator.federation.flower.link import LinkSettings, build, seed, serve
    from convoy_coordinator.federation.flower.membership import FileMembership

    environment.hush()
    settings = LinkSettings(
        internal_port=given.internal_port,
        public_host=given.public_host,
        public_port=given.public_port,
        in_memory=given.database == "memory",
    )
    app, bundle = build(home, settings, FileMembership(home.membership_file)), app_bundle()
    for federation in given.federation or [DEFAULT_FEDERATION]:
        seed(app, bundle, federation)
    watch = lifetime.when_stdin_ends if given.stop_with_stdin else _never
    serve(app, home, settings, bundle, watch)
    return 0


def _never(_: Callable[[], None]) -> None:
    return


if __name__ == "__main__":
    sys.exit(main())
