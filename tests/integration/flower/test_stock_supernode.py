"""The fallback for partners who insist on stock Flower: ``flower-supernode --trusted-entities`` at our SuperLink."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from convoy_coordinator.federation.flower.control import LinkControl
from convoy_coordinator.federation.flower.link_home import DEFAULT_FEDERATION, LinkHome, write_private
from convoy_coordinator.federation.flower.pki import new_node_key, write_loopback_certificates
from convoy_demo.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
HERE = Path(__file__).parent
PARTY = "did:web:insists.example"
KEY_ID = "fpk_security_office"


@contextlib.contextmanager
def process(log: Path, *words: str | Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in a session of its own until the block ends."""
    with log.open("ab") as output:
        made = subprocess.Popen(
            list(map(str, words)),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", **environment},
        )
    try:
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(made.pid, 15)
        try:
            made.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(made.pid, 9)
            made.wait()


def waited(true: Callable[[], object], log: Path, seconds: float = 120.0) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
        time.sleep(0.1)


def test_a_stock_supernode_runs_a_bundle_that_its_security_office_has_signed_and_no_other(tmp_path: Path) -> None:
    """Both come from our SuperLink; the one whose signature does not hold never runs, and the server hears why."""
    home = LinkHome(tmp_path / "link")
    write_loopback_certificates(home)
    home.write_membership({DEFAULT_FEDERATION: [PARTY]})
    office, results = tmp_path / "office.pem", tmp_path / "results"
    results.mkdir()
    key = Ed25519PrivateKey.generate()
    write_private(office, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    trusted = tmp_path / "trusted.yaml"
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    trusted.write_text(f"{KEY_ID}: '{public} security office'\n")
    private, registered = new_node_key()
    stock = load_pem_private_key(
        private, None
    )  # stock Flower reads OpenSSH's format only: ssh-keygen -p makes it of ours
    write_private(tmp_path / "supernode.key", stock.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    port = free_port()
    link_log, node_log, worker_log = (tmp_path / f"{name}.log" for name in ("link", "node", "worker"))
    link = process(link_log, sys.executable, HERE / "stock_superlink.py", home.path, office)
    with link, contextlib.ExitStack() as stack:
        waited(home.ready_file.exists, link_log)
        good, bad = link_log.read_text().split()[:2]
        worker = [sys.executable, "-m", "convoy_coordinator.federation.flower.server_worker", "--home", home.path]
        stack.enter_context(
            process(
                worker_log, *worker, "--app", "stock_probe:app", "--setting", f"results={results}", PYTHONPATH=str(HERE)
            )
        )
        control = stack.enter_context(LinkControl.of(home))
        control.register(PARTY, registered)
        node = stack.enter_context(
            process(
                node_log,
                Path(sys.executable).with_name("flower-supernode"),
                *("--superlink", home.read_ready().public, "--root-certificates", home.ca_file),
                *("--auth-supernode-private-key", tmp_path / "supernode.key", "--trusted-entities", trusted),
                *("--host", "127.0.0.1", "--port", str(port)),
                FLWR_HOME=str(tmp_path / "flwr"),
                PATH=os.pathsep.join(
                    [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
                ),  # flower-superexec
            )
        )
        waited(lambda: node.poll() is not None or control.nodes()[PARTY].status == "online", node_log)
        assert node.poll() is None, node_log.read_text()
        for name, app_hash in (("signed", good), ("forged", bad)):
            if name == "forged":
                (home.path / "forge").touch()
                waited((home.path / "forged").exists, link_log)
            control.start_run(app_hash, run=name)
            waited((results / f"{name}.json").exists, node_log, 150)
    signed, forged = (json.loads((results / f"{name}.json").read_text()) for name in ("signed", "forged"))
    assert signed == {"said": "the bundle one"}
    assert "could not be verified" in forged["error"]
