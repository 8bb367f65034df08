"""The command convoy-coordinator, as a person runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
from typed import typed

from convoy_coordinator.cli import main
from convoy_coordinator.testing import Federation

COMMAND = [str(Path(sys.executable).parent / "convoy-coordinator")]


def run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


def test_init_makes_keys_that_only_the_owner_reads(tmp_path: Path) -> None:
    """Every key file is 0600 in a 0700 folder, and none of them is printed."""
    home = tmp_path / "home"
    facts = json.loads(run("init", "--home", str(home), "--json").stdout)
    files = sorted((home / "keys").iterdir())
    assert len(files) == 5
    assert {f.stat().st_mode & 0o777 for f in files} == {0o600}
    assert (home / "keys").stat().st_mode & 0o777 == 0o700
    assert len(facts["logKeys"]) == 2
    for file in files:
        assert file.read_text().strip() not in json.dumps(facts)


def test_init_never_overwrites(tmp_path: Path) -> None:
    """A second init leaves every byte as it is, says why, and says what to do."""
    home = tmp_path / "home"
    typed(main, "init", "--home", home)
    before = {f.name: f.read_bytes() for f in (home / "keys").iterdir()}
    done = run("init", "--home", str(home), check=False)
    assert done.returncode == 1
    assert "HOME_EXISTS" in done.stderr
    assert "Fix:" in done.stderr
    assert {f.name: f.read_bytes() for f in (home / "keys").iterdir()} == before


def test_a_key_that_others_can_read_stops_the_start(tmp_path: Path) -> None:
    """An open key file is a finding, not a detail."""
    home = tmp_path / "home"
    typed(main, "init", "--home", home)
    (home / "keys" / "log.ed25519").chmod(0o644)
    done = run("status", "--home", str(home), "--json", check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "KEY_OPEN"


def test_every_list_is_there_for_people_and_programs(federation: Federation, home: Path) -> None:
    """Text ends with the next command; --json is JSON."""
    federation.ask(federation.agree())
    for command in ("status", "parties", "runs", "log", "migrate"):
        assert "Next: convoy-" in typed(main, command, "--home", home).stdout
        json.loads(typed(main, command, "--home", home, "--json").stdout)
    assert json.loads(run("status", "--home", str(home), "--json").stdout)["parties"] == 3
    assert federation.oem.id in typed(main, "parties", "--home", home).stdout


def test_help_answers_fast() -> None:
    """--help needs no web stack, no database and no federation; a clock would tell how busy the machine is."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *COMMAND, "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in loaded
    assert not loaded & {"fastapi", "sqlalchemy", "uvicorn", "grpc", "flwr", "numpy", "torch", "pydantic"}


def test_serve_answers_and_stops_on_a_signal(tmp_path: Path) -> None:
    """A real process with a real port: healthy, then gone, with exit code 0."""
    home = tmp_path / "home"
    typed(main, "init", "--home", home)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
    process = subprocess.Popen(
        [*COMMAND, "serve", "--home", str(home), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:[1-9]\d*", line)
        assert found, line
        assert httpx.get(f"{found[0]}/readyz", timeout=10).json()["checks"] == {
            "database": "ok",
            "log": "ok",
        }
        assert httpx.get(f"{found[0]}/", timeout=10).status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0


def test_what_the_machine_refuses_is_one_sentence_with_a_fix(tmp_path: Path) -> None:
    """A taken port, a place below a file, a home that is none: code, cause and fix, nothing left behind, no traceback."""
    home, below = tmp_path / "home", tmp_path / "file" / "below"
    typed(main, "init", "--home", home)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        typed(main, "init", "--home", tmp_path / "channel", "--port", "0", "--channel-port", port)
        cases = {
            ("serve", "--home", str(home), "--port", port): "ADDRESS_UNUSABLE",
            ("serve", "--home", str(tmp_path / "channel")): "CHANNEL_CANNOT_LISTEN",
            ("init", "--home", str(below)): "PLACE_UNUSABLE",
            ("backup", str(below), "--home", str(home)): "PLACE_UNUSABLE",
            ("backup", str(tmp_path / "copy"), "--home", str(tmp_path / "nobody")): "BACKUP_FAILED",
        }
        for words, code in cases.items():
            done = run(*words, check=False) if words[0] == "serve" else typed(main, *words)
            assert done.returncode == 1, words
            assert code in done.stderr, (words, done.stderr)
            assert "Traceback" not in done.stderr
    assert not (tmp_path / "copy").exists()


def test_a_database_without_roles_is_not_said_to_have_been_checked(tmp_path: Path) -> None:
    """SQLite has none; only PostgreSQL can keep the service from changing the log."""
    typed(main, "init", "--home", tmp_path / "home")
    assert "nothing was checked" in typed(main, "grants", "--home", tmp_path / "home").stdout
    assert json.loads(typed(main, "grants", "--home", tmp_path / "home", "--json").stdout) == {
        "excess": [],
        "checked": False,
    }
