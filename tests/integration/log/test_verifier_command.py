"""The command ``convoy-audit`` as an auditor runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convoy_audit.archive import write_pack
from convoy_audit.note import split_note
from convoy_audit.rehearsal import Rehearsal

REHEARSAL = Rehearsal()


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command without the coordinator's packages being reachable by accident."""
    command = [sys.executable, "-m", "convoy_audit.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A pack as a folder; the pinned policy lies beside it."""
    (tmp_path / "policy").write_bytes(REHEARSAL.policy.text)
    return write_pack(tmp_path / "pack", REHEARSAL.parts())


def test_a_good_pack_exits_0_and_says_what_was_checked(pack: Path, tmp_path: Path) -> None:
    """Folder and zip, English and Chinese, text and data."""
    done = run("verify", pack, "--policy", tmp_path / "policy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VERIFIED: convoy.example/log, 21 entries" in done.stdout
    assert "What this cannot know" in done.stdout
    zipped = write_pack(tmp_path / "pack.zip", REHEARSAL.parts())
    assert "核验通过" in run("verify", zipped, "--lang", "zh").stdout
    verdict = json.loads(run("verify", zipped, "--json").stdout)
    assert (verdict["verified"], verdict["entries"], verdict["witnesses"]) == (True, 21, 4)


def test_a_changed_byte_exits_1_and_is_named(pack: Path) -> None:
    """In the bundle of entries."""
    bundle = pack / "tile/entries/000.p/21"
    data = bytearray(bundle.read_bytes())
    data[500] ^= 1
    bundle.write_bytes(data)
    done = run("verify", pack)
    assert done.returncode == 1
    assert "NOT VERIFIED" in done.stdout
    assert "PROOF_WRONG" in done.stdout
    assert json.loads(run("verify", pack, "--json").stdout)["verified"] is False
    fsck = run("fsck", pack)
    assert fsck.returncode == 1
    assert "WRONG" in fsck.stdout


def test_nothing_to_check_exits_2_with_cause_and_fix(tmp_path: Path) -> None:
    """No such path, an empty folder, a file that is no zip, wrong arguments."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.zip").write_bytes(b"PK not really")
    for path in ("missing", "empty", "file.zip"):
        for command in (["verify"], ["fsck"]):
            done = run(*command, tmp_path / path)
            assert done.returncode == 2, (path, command)
            assert "convoy-audit: " in done.stderr
            assert "Traceback" not in done.stderr
    assert run("verify").returncode == 2
    assert run("verify", tmp_path / "empty", "--policy", tmp_path / "none").returncode == 2


def test_one_entry_is_shown_with_its_proof(pack: Path) -> None:
    """Sentence, exact members, path to the root."""
    done = run("show", pack, 10)
    assert done.returncode == 0
    assert "Run authorised" in done.stdout
    assert "训练授权" in run("show", pack, 10, "--lang", "zh").stdout
    shown = json.loads(run("show", pack, 10, "--json").stdout)
    assert shown["entry"]["type"] == "coordinator:run:authorised"
    assert len(shown["proof"]) == 5
    assert run("show", pack, 21).returncode == 2


def test_fsck_verifies_signatures_with_the_policy(pack: Path, tmp_path: Path) -> None:
    """Every line on every checkpoint is of a key of the policy, so every one is verified; without it, none."""
    notes = [pack / "checkpoint", *sorted((pack / "checkpoints").iterdir())]
    lines = sum(len(split_note(note.read_bytes())[1]) for note in notes)
    found = json.loads(run("fsck", pack, "--policy", tmp_path / "policy", "--json").stdout)
    assert (found["verified"], found["entries"]) == (True, len(REHEARSAL.log.entries))
    assert (found["checkpoints"], found["signaturesVerified"]) == (len(notes), lines)
    assert json.loads(run("fsck", pack, "--json").stdout)["signaturesVerified"] == 0


def test_hostile_archives_are_refused(pack: Path, tmp_path: Path) -> None:
    """A link out of the folder, a name that climbs, a file twice."""
    import zipfile

    (pack / "link").symlink_to("/etc/passwd")
    assert run("verify", pack).returncode == 2
    climbing = tmp_path / "climb.zip"
    with zipfile.ZipFile(climbing, "w") as archive:
        archive.writestr("../../evil", b"x")
    assert run("verify", climbing).returncode == 2
    assert not (tmp_path.parent.parent / "evil").exists()
    twice = tmp_path / "twice.zip"
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("pack.json", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("pack.json", b"2")
    assert run("verify", twice).returncode == 2


def test_help_loads_nothing_that_is_slow() -> None:
    """So it answers in well under half a second; ``bench/audit.py`` takes the time, a test must not."""
    script = (
        "import sys\nfrom convoy_audit.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    print(end.code)\n"
        "print(sorted({'cryptography', 'rfc8785', 'asyncio', 'http.client', 'zipfile'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "Exit codes" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["0", "[]"]


def test_the_verifier_imports_nothing_of_the_other_packages() -> None:
    """It installs alone."""
    script = (
        "import sys, convoy_audit.cli, convoy_audit.evidence, convoy_audit.fsck, convoy_audit.rehearsal\n"
        "print(sorted(m for m in sys.modules if m.startswith('convoy_') and not m.startswith('convoy_audit')))\n"
        "print(sorted({'sqlalchemy', 'fastapi', 'pydantic', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]
