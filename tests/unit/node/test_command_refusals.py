"""Ordinary bad input on the command line: one refusal with code, cause and fix in both languages, and nothing half-done."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from convoy_audit.testing import MemoryLog
from convoy_contracts.problems import PROBLEMS
from convoy_node import cli
from convoy_node.consent.office import ConsentOffice
from convoy_node.errors import SettingsRefused, of_file
from convoy_node.setup import create_home, micro

PARTY, UID = "did:web:insurer-a.example", "urn:convoy:contract:risk"
SAID = {
    "until": "2099-01-01T00:00:00Z", "notice": "n@1", "purpose": "convoy:RiskModelTraining", "recipients": [PARTY],
    "separate": True, "age": 40,
}  # fmt: skip
Told = Callable[..., str]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A node's folder that knows one contract, with one consent."""
    folder = tmp_path / "home"
    create_home(
        folder, party=PARTY, role="insurer", region="CN-SH", log_keys=[MemoryLog("office.example/log").vkeys[0]],
        data_source="rows.csv", asset="urn:convoy:asset:book:0", asset_year_cap_micro=6_000_000, contract_names={"risk": UID},
    )  # fmt: skip
    with ConsentOffice.open(folder) as office:
        office.record("P1", UID, SAID, channel="desk")
    return folder


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """Run a command that must be refused; return what it told, after the code was checked."""

    def run(code: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["convoy-node", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        assert ended.value.code == 1, told
        lines = told.err.splitlines()
        assert lines[0].startswith(f"{code}: "), told.err
        assert lines[-1] == f"More: convoy-contracts problem {code}"
        assert any(line.startswith(PROBLEMS[code].title_zh) for line in lines)
        return told.err

    return run


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    """A file with a passphrase."""
    path = tmp_path / "passphrase"
    path.write_text("correct horse battery staple in a long row")
    path.chmod(0o600)
    return path


def keys_file(folder: Path) -> Path:
    """Write the keys of a log."""
    path = folder / "log.keys"
    path.write_text("\n".join(MemoryLog("office.example/log").vkeys))
    return path


def test_a_folder_that_cannot_be_made_is_named(refused: Told, tmp_path: Path) -> None:
    """With what the system said, and where to go instead."""
    told = refused(
        "HOME_REFUSED",
        "init",
        "--home",
        "/proc/ni4",
        "--party",
        PARTY,
        "--role",
        "insurer",
        "--log-keys",
        keys_file(tmp_path),
    )
    assert "'ni4' cannot be made" in told


def test_settings_that_do_not_fit_leave_nothing_and_the_corrected_command_works(refused: Told, tmp_path: Path) -> None:
    """Role, region, asset and cap are checked before the folder is made, all at once."""
    folder = tmp_path / "new"
    words = ("--home", folder, "--party", PARTY, "--log-keys", keys_file(tmp_path))
    told = refused("SETTINGS_REFUSED", "init", *words, "--role", "foo", "--region", "MARS", "--asset", "bad asset")
    assert all(word in told for word in ("party.role", "--region", "--asset"))
    assert not folder.exists()
    for cap in ("nan", "inf", "-1"):
        refused("SETTINGS_REFUSED", "init", *words, "--role", "insurer", "--cap", cap)
    assert not folder.exists()
    create_home(
        folder, party=PARTY, role="insurer", region="CN-SH", log_keys=[MemoryLog("office.example/log").vkeys[0]],
        data_source="rows.csv", asset="urn:a", asset_year_cap_micro=micro(6.0),
    )  # fmt: skip


def test_a_backup_and_a_restore_name_the_place_that_cannot_be(
    refused: Told, home: Path, passphrase: Path, tmp_path: Path
) -> None:
    """A missing folder, and one in which nothing can be made."""
    from convoy_node.backup.folder import make_backup

    words = ("--passphrase-file", passphrase)
    assert "x.convoy" in refused("FILE_UNWRITABLE", "backup", tmp_path / "none" / "x.convoy", "--home", home, *words)
    made = make_backup(home, tmp_path / "copy.convoy", passphrase.read_bytes(), datetime.now(UTC))
    assert "'r'" in refused("FILE_UNWRITABLE", "restore", made.place, "--home", "/proc/r", *words)


def test_a_port_or_address_that_this_machine_does_not_have_is_told_as_such(refused: Told, home: Path) -> None:
    """Taken is only what somebody listens on."""
    assert "no port 99999" in refused("INPUT_INVALID", "metrics", "--home", home, "--port", 99999)
    assert "no address" in refused("INPUT_INVALID", "metrics", "--home", home, "--host", "192.0.2.1", "--port", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for command in (("metrics",), ("api",), ("witness", "serve")):
            assert str(port) in refused("PORT_TAKEN", *command, "--home", home, "--port", port)


def test_a_withdrawal_whose_receipt_has_no_place_is_not_made(refused: Told, home: Path, tmp_path: Path) -> None:
    """The file is looked at first, so that nobody is told of a failure after the act."""
    words = ("consent", "withdraw", "P1", "--contract", "risk", "--home", home, "--out")
    assert "nothing was done" in refused("FILE_UNWRITABLE", *words, tmp_path / "none" / "r.json")
    (tmp_path / "there.json").write_text("mine")
    refused("FILE_EXISTS", *words, tmp_path / "there.json")
    assert (tmp_path / "there.json").read_text() == "mine"
    with ConsentOffice.open(home) as office:
        row = office.register.row("P1", UID)
    assert row is not None
    assert row.withdrawn is None


def test_a_withdrawal_whose_receipt_cannot_be_written_after_all_says_that_it_stands(
    refused: Told, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may fill between the look and the writing: the command for the receipt is named."""

    def full(path: Path, _: str) -> None:
        raise of_file(OSError(28, "No space left on device", str(path)), is_written=True)

    monkeypatch.setattr("convoy_node.consent.cli.write_new", full)
    told = refused(
        "FILE_UNWRITABLE",
        "consent",
        "withdraw",
        "P1",
        "--contract",
        "risk",
        "--home",
        home,
        "--out",
        tmp_path / "r.json",
    )
    assert "the withdrawal is recorded" in told
    assert "convoy-node consent receipt" in told
    with ConsentOffice.open(home) as office:
        assert office.show("P1", UID)["state"] == "withdrawn"


def test_a_receipt_replaces_no_file(refused: Told, home: Path, tmp_path: Path) -> None:
    """What is there may be the person's own copy."""
    there = tmp_path / "there.json"
    there.write_text("mine")
    for command in ("receipt", "prove"):
        refused("FILE_EXISTS", "consent", command, "P1", "--contract", "risk", "--home", home, "--out", there)
    assert there.read_text() == "mine"


def test_a_contract_is_not_fetched_for_a_place_that_cannot_be(refused: Told, home: Path, tmp_path: Path) -> None:
    """The place is looked at before the coordinator is asked."""
    words = ("contract", "get", "sha256:00", "--home", home, "--to")
    assert "'x.json'" in refused("FILE_UNWRITABLE", *words, tmp_path / "none" / "x.json")
    refused("FILE_EXISTS", *words, home / "card.json")


def test_a_veto_of_an_unknown_contract_is_neither_set_nor_cleared(refused: Told, home: Path) -> None:
    """And the command that lists the digests is named."""
    for words in (("set", "nope", "--reason", "no"), ("clear", "nope")):
        assert "convoy-node status" in refused("CONTRACT_UNKNOWN", "veto", *words, "--home", home)
    assert not (home / "veto.json").exists()


def test_a_duty_that_cannot_be_is_refused_with_every_fault(refused: Told, home: Path) -> None:
    """An unknown contract, nobody, and a day to come; nothing is written."""
    words = ("duties", "raise", "explain", "--contract", "nope", "--since", "2099-01-01T00:00:00Z", "--home", home)
    told = refused("INPUT_INVALID", *words)
    assert all(option in told for option in ("--contract", "--person", "--since"))
    assert "--person" in refused("INPUT_INVALID", "duties", "raise", "delete", "--contract", "risk", "--home", home)
    assert "'fr'" in refused("LANGUAGE_UNKNOWN", "duties", "--lang", "fr", "--home", home)


def test_a_file_that_a_command_meets_and_cannot_use_is_a_refusal(
    refused: Told, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is met: with its name and what the system said; a folder stands where a file is expected."""
    (home / "signature").mkdir()

    def meets(_: Path) -> None:
        (home / "signature").read_text()

    monkeypatch.setattr("convoy_node.settings.Settings.load", meets)
    assert "'signature' cannot be read" in refused("FILE_UNREADABLE", "status", "--home", home)
    assert of_file(FileNotFoundError(2, "No such file or directory", str(home / "none"))).code == "FILE_UNREADABLE"
    assert of_file(OSError(28, "No space left on device", str(home / "none"))).code == "FILE_UNWRITABLE"
    assert of_file(PermissionError(13, "Permission denied", str(home / "card.json"))).code == "FILE_UNWRITABLE"


def test_with_json_a_refusal_of_a_file_is_json(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same members as every other refusal."""
    monkeypatch.setattr(sys, "argv", ["convoy-node", "init", "--json", "--home", "/proc/x", "--party", PARTY, "--role",
                                      "insurer", "--log-keys", str(keys_file(home))])  # fmt: skip
    with pytest.raises(SystemExit):
        cli.main()
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "HOME_REFUSED"


def test_a_cap_is_an_amount() -> None:
    """In millionths; what is no number of 0 or more is refused."""
    assert micro(4.0) == 4_000_000
    with pytest.raises(SettingsRefused):
        micro(-0.1)
