"""Run the services of a compose file as local processes: the same commands, settings, environment and health checks.

What is translated, and nothing else: volumes, secrets and tmpfs become folders of a scratch place; ports that containers listen
on become free loopback ports; the names of services become the loopback; ``0.0.0.0`` becomes ``127.0.0.1``. A process gets the
environment of its image (the ENV lines of its Dockerfile) and of its service, not the caller's. ``postgres`` is this machine's
own PostgreSQL, started with the user, database and password that the file names. What a container engine adds - namespaces,
read-only file systems, dropped capabilities - is not run here; ``compose_rules`` checks that the file asks for it.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from compose_file import ComposeFault

from convoy_demo.ports import free_port

HEALTH_S: Final = 180.0
ONCE_S: Final = 120.0
LOOPBACK: Final = "127.0.0.1"
_ENV: Final = re.compile(r"^ENV ([A-Z_]+)=(.*)$", re.MULTILINE)


class Topology:
    """A compose file's services on this machine.

    Args:
        compose: the file's content, variables filled in.
        root: the folder of the file.
        scratch: where volumes, secrets, tmpfs and logs go.
    """

    def __init__(self, compose: Mapping[str, Any], root: Path, scratch: Path) -> None:
        self._services: Mapping[str, Any] = compose["services"]
        self._root = root
        self._scratch = scratch
        self.ports = {port: free_port() for port in sorted(self._container_ports(), key=int)}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._postgres: _Postgres | None = None
        for name in ("secrets", "log"):
            (scratch / name).mkdir(mode=0o700, parents=True)

    def secret(self, name: str) -> Path:
        """Return the file of a secret."""
        return self._scratch / "secrets" / name

    def place(self, service: str, path: str) -> Path:
        """Return where a path inside a service's container is here."""
        return Path(self.translated(service, path))

    def once(self, service: str, *more: str, command: Sequence[str] = (), within_s: float = ONCE_S) -> str:
        """Run a command of a service to its end, as ``docker compose run --rm`` or ``exec``; return what it said.

        Raises:
            ComposeFault: it failed.
        """
        words = [self.translated(service, word) for word in command or self._services[service]["command"]]
        done = subprocess.run(
            [_program(words[0]), *words[1:], *more],
            capture_output=True,
            text=True,
            env=self._environment(service),
            cwd=self._tmp(service),
            timeout=within_s,
            check=False,
        )
        if done.returncode:
            raise ComposeFault(
                f"{service}: {' '.join(words[:3])} ended with {done.returncode}: {done.stdout}{done.stderr}"
            )
        return done.stdout

    def up(self, service: str) -> float:
        """Start a service after what it depends on, wait until its health check passes; return the seconds that took.

        Raises:
            ComposeFault: it ended, or was not healthy in time; its last words are in the text.
        """
        for other in self._services[service].get("depends_on", ()):
            if other not in self.running and other != "postgres":
                raise ComposeFault(f"{service} depends on {other}, which is not up")
        started = time.monotonic()
        if service == "postgres":
            self._start_postgres()
        else:
            words = [self.translated(service, word) for word in self._services[service]["command"]]
            with (self._scratch / "log" / f"{service}.log").open("ab") as log:
                self.running[service] = subprocess.Popen(
                    [_program(words[0]), *words[1:]],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment(service),
                    cwd=self._tmp(service),
                    start_new_session=True,
                )
        while not self.is_healthy(service):
            process = self.running.get(service)
            if process is not None and process.poll() is not None:
                raise ComposeFault(f"{service} ended with {process.returncode}: {self.words(service)}")
            if time.monotonic() - started > HEALTH_S:
                raise ComposeFault(f"{service} was not healthy within {HEALTH_S:.0f} s: {self.words(service)}")
            time.sleep(0.3)
        return time.monotonic() - started

    def is_healthy(self, service: str) -> bool:
        """Run the service's health check once."""
        check = self._services[service]["healthcheck"]
        kind, *words = check["test"]
        if kind != "CMD":
            raise ComposeFault(f"{service}: a health check of the kind {kind}")
        words = [self.translated(service, word) for word in words]
        try:
            done = subprocess.run(
                [_program(words[0], self._postgres), *words[1:]],
                capture_output=True,
                env=self._environment(service),
                cwd=self._tmp(service),
                timeout=30,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def down(self) -> dict[str, int]:
        """Stop everything, last started first, each within its grace period; return the exit codes (-9: killed)."""
        codes = {}
        for service, process in reversed(list(self.running.items())):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_seconds(self._services[service].get("stop_grace_period", "10s")))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            codes[service] = process.returncode
        self.running.clear()
        if self._postgres is not None:
            self._postgres.stop()
            self._postgres = None
        return codes

    def words(self, service: str) -> str:
        """Return the last words of a service."""
        try:
            return (self._scratch / "log" / f"{service}.log").read_text(encoding="utf-8", errors="replace")[-2000:]
        except OSError:
            return ""

    def translated(self, service: str, text: str) -> str:
        """Return a word of a command, or a value of the environment, as it is on this machine."""
        mounts = self._mounts(service)
        inside = "|".join(re.escape(path) for path in sorted(mounts, key=len, reverse=True))
        text = re.sub(rf"(?<![\w./-])({inside})(?![\w.-])", lambda found: str(mounts[found[1]]), text)
        for port, mine in self.ports.items():
            text = re.sub(rf"(?<![\w./-]){port}(?![\w.-])", str(mine), text)
        for name in self._services:
            text = re.sub(rf"(?<![\w./-]){name}(?=:\d)", LOOPBACK, text)
        return text.replace("0.0.0.0", LOOPBACK)  # noqa: S104 - it is replaced here

    # Inside ------------------------------------------------------------------------------------------------------------------

    def _container_ports(self) -> set[str]:
        found = {"5432"}
        for service in self._services.values():
            found |= {str(port).rsplit(":", 1)[-1] for port in service.get("ports", ())}
            words = list(map(str, service.get("command", ())))
            found |= {value for option, value in itertools.pairwise(words) if option.endswith("-port")}
        return found

    def _mounts(self, service: str) -> dict[str, Path]:
        mounts = {}
        for volume in self._services[service].get("volumes", ()):
            source, inside = str(volume).split(":")[:2]
            here = self._root / source if "/" in source else self._scratch / "volumes" / source
            if "/" not in source:
                here.mkdir(mode=0o700, parents=True, exist_ok=True)
            mounts[inside] = here
        for secret in self._services[service].get("secrets", ()):
            mounts[f"/run/secrets/{secret}"] = self.secret(secret)
        mounts["/tmp"] = self._tmp(service)  # noqa: S108 - a tmpfs of the file
        return mounts

    def _tmp(self, service: str) -> Path:
        folder = self._scratch / "tmp" / service
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def _environment(self, service: str) -> dict[str, str]:
        made = {name: os.environ[name] for name in ("PYTHONPATH", "LANG", "OMP_NUM_THREADS") if name in os.environ}
        build = self._services[service].get("build")
        if isinstance(build, dict):
            text = (self._root / build["dockerfile"]).read_text(encoding="utf-8")
            made |= {name: self.translated(service, value) for name, value in _ENV.findall(text)}
        made["PATH"] = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
        for name, value in self._services[service].get("environment", {}).items():
            made[name] = self.translated(service, str(value))
        if self._postgres is not None and service == "postgres":
            made |= {"PGHOST": LOOPBACK, "PGPORT": str(self.ports["5432"])}
        return made

    def _start_postgres(self) -> None:
        given = self._services["postgres"]["environment"]
        self._postgres = _Postgres(
            self._scratch / "postgres",
            user=str(given["POSTGRES_USER"]),
            database=str(given["POSTGRES_DB"]),
            password=self.place("postgres", str(given["POSTGRES_PASSWORD_FILE"])).read_text(encoding="ascii").strip(),
            port=self.ports["5432"],
        )


class _Postgres:
    """This machine's PostgreSQL, as an unprivileged user, with passwords on."""

    def __init__(self, folder: Path, *, user: str, database: str, password: str, port: int) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            raise ComposeFault("no PostgreSQL binaries on this machine: apt-get install postgresql")
        self.binaries = found[-1].parent
        folder.mkdir(mode=0o700, parents=True)
        self._folder = folder
        secret = folder / "password"
        secret.write_text(password, encoding="ascii")
        if os.getuid() == 0:
            top = Path(tempfile.gettempdir())
            for parent in folder.parents:
                if parent.is_relative_to(top) and parent != top:
                    parent.chmod(parent.stat().st_mode | 0o011)  # so that the server's user gets there
            for each in (folder, secret):
                shutil.chown(each, "postgres")
        self._run(
            *("initdb", "-D", "data", "-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "-U", user),
            *("--pwfile", "password"),
        )
        options = f"-p {port} -h {LOOPBACK} -k {folder}"
        self._run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")
        made = {**os.environ, "PGPASSWORD": password, "PGHOST": LOOPBACK, "PGPORT": str(port)}
        subprocess.run(
            [str(self.binaries / "createdb"), "-U", user, database],
            check=True,
            capture_output=True,
            env=made,
            timeout=60,
        )

    def stop(self) -> None:
        """Stop it."""
        self._run("pg_ctl", "-D", "data", "-m", "fast", "-w", "stop")

    def _run(self, tool: str, *arguments: str) -> None:
        before = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        done = subprocess.run(
            [*before, str(self.binaries / tool), *arguments],
            stdout=subprocess.PIPE if tool != "pg_ctl" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT if tool != "pg_ctl" else subprocess.DEVNULL,
            cwd=self._folder,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise ComposeFault(
                f"{tool} ended with {done.returncode}: {(done.stdout or b'').decode(errors='replace')[-500:]}"
            )


def new_password() -> str:
    """Return a password that needs no quoting in a URL."""
    return secrets.token_hex(16)


def _program(word: str, postgres: _Postgres | None = None) -> str:
    if word == "python":
        return sys.executable
    for folder in (Path(sys.executable).parent, *([postgres.binaries] if postgres else [])):
        if (folder / word).exists():
            return str(folder / word)
    return shutil.which(word) or word


def _seconds(text: str) -> float:
    amount, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()  # type: ignore[union-attr]
    return float(amount) * (60 if unit == "m" else 1)
