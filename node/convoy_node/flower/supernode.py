"""Run a node's SuperNode and its warm worker:

``python -m convoy_node.flower.supernode --home DIR --link HOST:PORT --ca FILE --key FILE
--client-app module:factory --app-hash SHA256``

``factory(home)`` returns the ClientApp that is installed here; code in a bundle is never looked at.
The record of all messages is ``DIR/log/flower.jsonl``. SIGTERM or SIGINT ends both processes.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from convoy_contracts.operations.logs import start_logs
from convoy_node.flower import environment, lifetime
from convoy_node.flower.errors import FlowerError
from convoy_node.flower.policy import Policy

EXIT_REFUSED: Final = 3


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    line = argparse.ArgumentParser("supernode", description="Run a SuperNode with a warm worker.")
    line.add_argument("--home", type=Path, required=True, help="the node's folder")
    line.add_argument("--link", required=True, metavar="HOST:PORT", help="the SuperLink")
    line.add_argument("--ca", type=Path, required=True, help="CA certificate of the SuperLink")
    line.add_argument("--key", type=Path, required=True, help="this node's EC key, mode 0600")
    line.add_argument("--client-app", required=True, help="installed application, module:factory")
    line.add_argument("--app-hash", action="append", required=True, help="an approved app bundle, SHA-256 in hex")
    line.add_argument("--message-type", action="append", help="accept this instead of Convoy's own messages")
    line.add_argument("--give-up-after", type=float, metavar="SECONDS", help="end when refused for so long")
    line.add_argument("--rules", default="", help="digest of the rules in force, for the log")
    line.add_argument("--stop-with-stdin", action="store_true", help="stop when standard input is closed")
    return line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop; returns the exit code."""
    given = parser().parse_args(arguments)
    home = given.home.resolve()
    environment.settle(home / "flower" / "flwr")
    start_logs("supernode")
    if given.stop_with_stdin:
        lifetime.when_stdin_ends(lifetime.terminate_self)

    # Flower reads the environment when it is imported, so not before here.
    from convoy_node.flower.connection import Patience
    from convoy_node.flower.supernode_loop import NodeSettings, run

    environment.hush()

    if given.rules:
        logging.info("rules %s are in force", given.rules)
    hashes = frozenset(given.app_hash)
    policy = Policy(hashes, frozenset(given.message_type)) if given.message_type else Policy(hashes)
    try:
        run(
            NodeSettings(
                home=home,
                link=given.link,
                ca_file=given.ca.resolve(),
                key_file=given.key.resolve(),
                client_app=given.client_app,
                policy=policy,
                patience=Patience(give_up_s=given.give_up_after),
            )
        )
    except FlowerError as error:
        logging.error("%s", error)
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
