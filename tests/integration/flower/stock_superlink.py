"""A SuperLink of ours that offers a signed bundle with code, and after it one whose signature is of other bytes.

python stock_superlink.py HOME PRIVATE_KEY_FILE      prints the two hashes, good first, then serves
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from convoy_coordinator.federation.flower import environment, lifetime
from convoy_coordinator.federation.flower.link_home import DEFAULT_FEDERATION, LinkHome

KEY_ID = "fpk_security_office"
CLIENT = """\
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query("hello")
def hello(message, context):
    return Message(RecordDict({"said": ConfigRecord({"by": "the bundle MARK"})}), reply_to=message)
"""
PYPROJECT = """\
[project]
name = "convoy-federation"
version = "1.0.0"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "convoy"

[tool.flwr.app.components]
serverapp = "stock_app:app"
clientapp = "stock_app:app"

[tool.flwr.app.config]
run = ""
"""


def main() -> None:
    """Serve until told to stop."""
    home = LinkHome(Path(sys.argv[1]))
    environment.settle(home.flower_home)
    home.create_secrets()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from convoy_coordinator.federation.flower.app_bundle import bundle_of
    from convoy_coordinator.federation.flower.link import LinkSettings, build, seed, serve
    from convoy_coordinator.federation.flower.membership import FileMembership

    environment.hush()
    key = load_pem_private_key(Path(sys.argv[2]).read_bytes(), None)
    bundles = []
    for mark in ("one", "two"):
        code = CLIENT.replace("MARK", mark).encode()
        bundles.append(bundle_of({"stock_app/__init__.py": code, "pyproject.toml": PYPROJECT.encode()}))
    good, other = (bundle.signed(KEY_ID, key, at=1_790_000_000) for bundle in bundles)
    bad = replace(other, verifications=good.verifications)  # signed, but over other bytes
    settings = LinkSettings(in_memory=True)
    app = build(home, settings, FileMembership(home.membership_file))
    seed(app, good, DEFAULT_FEDERATION)

    def forge() -> None:
        """Put the other bundle in its place, as Flower keeps one of a name, once the test asks for it."""
        while not (home.path / "forge").exists():
            time.sleep(0.05)
        seed(app, bad, DEFAULT_FEDERATION)
        (home.path / "forged").touch()

    threading.Thread(target=forge, daemon=True).start()
    print(good.sha256, bad.sha256, flush=True)
    serve(app, home, settings, good, lifetime.when_stdin_ends)


if __name__ == "__main__":
    main()
