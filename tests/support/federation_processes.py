"""A deployed federation as an administrator starts it: coordinator, SuperLink and ServerApp worker, each a process of its own.

Everything is started by command lines, in folders of its own, on loopback ports, and talked to by command lines and HTTP only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convoy_demo.ports import free_ports

BIN = Path(sys.executable).parent
LINK = "convoy_coordinator.federation.flower.superlink"
WORKER = "convoy_coordinator.federation.flower.server_worker"
SERVER_APP = "convoy_coordinator.federation.server_app:app"
PATIENCE_S = 240.0


def waited(true: Callable[[], Any], what: Callable[[], str], seconds: float = PATIENCE_S) -> Any:
    """Wait until something is true and return it; ``what`` tells how it stands when it is not."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what()}")
        time.sleep(0.05)
    return found


def command(name: str, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one of our commands to its end, as a person does."""
    return subprocess.run(
        [str(BIN / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        **options,
    )


def told(name: str, *arguments: str | Path) -> Any:
    """Run one of our commands with ``--json`` and return what it says; it must succeed."""
    done = command(name, *arguments, "--json")
    assert done.returncode == 0, f"{name} {' '.join(map(str, arguments))}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout)


@dataclass
class Running:
    """A process and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def words(self) -> str:
        """Return what it has said."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """End it as a power cut does, with everything that it started."""
        os.killpg(self.process.pid, 9)
        self.process.wait()


@contextmanager
def running(words: list[str | Path], log: Path, environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Run a process until the block ends."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(map(str, words)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", **(environment or {})},
        )
    made = Running(process, log)
    try:
        yield made
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(25)
            except subprocess.TimeoutExpired:
                made.kill()


@dataclass
class Federation:
    """A running federation; ``url`` is the coordinator's page."""

    folder: Path
    url: str
    parts: dict[str, Running] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The coordinator's folder."""
        return self.folder / "coordinator"

    @property
    def link(self) -> Path:
        """The SuperLink's folder."""
        return self.folder / "link"

    def administrator(self, *arguments: str) -> Any:
        """Run a command of the coordinator and return what it says."""
        return told("convoy-coordinator", *arguments, "--home", self.home)

    def words(self) -> str:
        """Return what every process has said, for a test that failed."""
        return "\n".join(f"--- {name}\n{part.words()[-3000:]}" for name, part in self.parts.items())


@contextmanager
def federation_in(folder: Path) -> Iterator[Federation]:
    """Found a federation in a folder and run its three processes."""
    web, channel, enrolment, inner, outer = free_ports(5)
    made = Federation(folder, f"http://127.0.0.1:{web}")
    told(
        "convoy-coordinator", "init", "--home", made.home, "--name", "Joining", "--origin", "joining.example/log",
        "--port", str(web), "--channel-port", str(channel),
    )  # fmt: skip
    settings = {
        "CONVOY_COORDINATOR_LINK_HOME": str(made.link),
        "CONVOY_COORDINATOR_ENROLMENT_PORT": str(enrolment),
        "CONVOY_COORDINATOR_HOME": str(made.home),
    }
    os.environ.update(settings)
    try:
        with ExitStack() as stack:

            def start(name: str, *words: str | Path) -> None:
                made.parts[name] = stack.enter_context(running(list(words), folder / "log" / f"{name}.log", settings))

            start(
                "superlink", sys.executable, "-m", LINK, "--home", made.link, "--name", "localhost",
                "--internal-port", str(inner), "--public-port", str(outer),
            )  # fmt: skip
            start("coordinator", BIN / "convoy-coordinator", "serve", "--home", made.home)
            waited(lambda: (made.link / "ready.json").exists(), made.words)
            waited(lambda: (made.home / "serving.json").exists(), made.words)
            start(
                "server-app", sys.executable, "-m", WORKER, "--home", made.link, "--app", SERVER_APP,
                "--setting", f"coordinator-url={made.url}",
                "--setting", f"token-file={made.home / 'keys' / 'internal.token'}",
            )  # fmt: skip
            waited(lambda: "ready" in made.parts["server-app"].words(), made.words)
            yield made
    finally:
        for name in settings:
            os.environ.pop(name, None)
