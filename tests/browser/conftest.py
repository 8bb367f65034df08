"""A coordinator on a real port with something to show, and a real Chromium to look at it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import uvicorn

from convoy_audit.events import LedgerStated
from convoy_audit.statement import sign_statement
from convoy_coordinator.app import create_app
from convoy_coordinator.settings import read_settings
from convoy_coordinator.setup import create_home
from convoy_coordinator.testing import DRIVE, Federation, SetClock, bundle_files

INSTALL = "apt-get install -y chromium fonts-wqy-microhei"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
Browse = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Browse:
    """Run Chromium once with extra flags on an address; fails, and says what to install, if there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.fail(f"no Chromium here: {INSTALL}")

    def run(address: str, *flags: str) -> subprocess.CompletedProcess[str]:
        profile = tmp_path_factory.mktemp("profile")
        command = [program, *FLAGS, f"--user-data-dir={profile}", *flags, address]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    return run


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a federation with a contract, a finished run with figures, and one in progress."""
    home = tmp_path_factory.mktemp("site") / "coordinator"
    create_home(home, name="Browser federation", origin="test.example/browser")
    clock = SetClock(datetime(2027, 3, 1, 2, 0, tzinfo=UTC))
    server = uvicorn.Server(
        uvicorn.Config(create_app(read_settings(home), clock=clock), log_level="warning", ws="none")
    )
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with httpx.Client(base_url=address, timeout=30) as client:
            _fill(Federation(client, home, clock))
        yield address
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()


@pytest.fixture
def picture(browse: Browse, tmp_path: Path) -> Callable[..., bytes]:
    """Return the screenshot of an address."""

    def take(address: str, *flags: str) -> bytes:
        file = tmp_path / "page.png"
        browse(address, "--window-size=1200,2600", f"--screenshot={file}", *flags)
        return file.read_bytes()

    return take


def _fill(federation: Federation) -> None:
    digest = federation.agree()
    for is_last in (False, True):
        uid = federation.ask(digest).json()["uid"]
        run = federation.claim() or {}
        federation.authorise(uid)
        federation.move(uid, "running").raise_for_status()
        path = f"/internal/runs/{uid}/progress"
        facts = {"done": 41 if is_last else 97, "total": 97}
        federation.client.post(path, json=facts, headers=federation.internal).raise_for_status()
        if is_last:
            break
        summary = {"joint": {"d2": 0.0507}, "alone": {federation.insurer.id: {"d2": 0.0181}}}
        body = {"run": uid, "files": bundle_files(run, card_md=b"# card"), "summary": summary}
        federation.client.post("/internal/releases", json=body, headers=federation.internal).raise_for_status()
        stated = LedgerStated(
            at=federation.clock(),
            party=federation.oem.id,
            run=uid,
            contract=digest,
            step="spent",
            epsilon_micro={DRIVE: 4_000_001},
            total_micro={DRIVE: 4_000_001},
        )
        seed = federation.oem.identity.private_bytes_raw()
        federation.append(sign_statement(stated, number=1, previous=None, seed=seed)).raise_for_status()
        federation.move(uid, "finished").raise_for_status()
        federation.witness(*federation.members)
