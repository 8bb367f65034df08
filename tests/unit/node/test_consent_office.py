"""The consent office alone: what is one commit, and what is seen of files that others put in place."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from convoy_audit.testing import MemoryLog
from convoy_contracts.errors import ArgumentRefused
from convoy_node.consent.kept_open import Kept
from convoy_node.consent.office import ConsentOffice
from convoy_node.errors import ConsentRefused
from convoy_node.setup import REGISTER, create_home

PARTY, UID = "did:web:insurer-a.example", "urn:convoy:contract:risk"
NOW = datetime(2027, 3, 1, 2, 0, tzinfo=UTC)
SAID = {
    "until": "2028-01-01T00:00:00Z", "notice": "n@1", "purpose": "convoy:RiskModelTraining", "recipients": [PARTY],
    "separate": True, "age": 40,
}  # fmt: skip


class Hours:
    """A clock that goes on by an hour at each look."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        self.now += timedelta(hours=1)
        return self.now


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A node's folder without contracts."""
    folder = tmp_path / "home"
    create_home(
        folder, party=PARTY, role="insurer", region="CN-SH", log_keys=[MemoryLog("office.example/log").vkeys[0]],
        data_source="rows.csv", asset="urn:convoy:asset:book:0", asset_fields={}, asset_year_cap_micro=6_000_000,
        contract_names={"risk": UID}, now=NOW,
    )  # fmt: skip
    return folder


@pytest.fixture
def office(home: Path) -> Iterator[ConsentOffice]:
    """Its office, with one person who has consented."""
    with ConsentOffice.open(home, Hours()) as opened:
        opened.record("P1", UID, SAID, channel="desk")
        yield opened


def test_a_withdrawal_without_its_receipt_does_not_exist(
    office: ConsentOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are one commit: whoever is told of a failure is not withdrawn, and may try again."""

    def broken(*_: object) -> None:
        raise ArgumentRefused("no signature today", fix="Wait.")

    with monkeypatch.context() as patched:
        patched.setattr("convoy_node.consent.office.sign_receipt", broken)
        with pytest.raises(ArgumentRefused):
            office.withdraw("P1", UID)
        with pytest.raises(ArgumentRefused):
            office.record("P2", UID, SAID, channel="desk")
    row = office.register.row("P1", UID)
    assert row is not None
    assert row.withdrawn is None
    assert office.register.row("P2", UID) is None
    receipt = office.withdraw("P1", UID)
    assert receipt["kind"] == "withdrawal"
    assert office.withdraw("P1", UID) == office.receipt("P1", UID) == receipt


def test_an_unknown_person_has_a_code_of_its_own(office: ConsentOffice) -> None:
    """Not that of a table with faults."""
    for act in (office.withdraw, office.show, office.receipt):
        with pytest.raises(ConsentRefused) as refused:
            act("nobody", UID)
        assert refused.value.code == "PERSON_UNKNOWN"


def test_what_is_kept_open_is_opened_anew_when_another_file_stands_in_its_place(home: Path, tmp_path: Path) -> None:
    """A restored register is the one that is read, and it shows as older than what the node has done."""
    kept = Kept(home, Hours())
    with kept.opened() as (office, _):
        office.record("P1", UID, SAID, channel="desk")
        first = office
    with kept.opened() as (office, _):
        assert office is first
    copy = tmp_path / "copy.db"
    with sqlite3.connect(home / REGISTER) as db, sqlite3.connect(copy) as other:
        db.backup(other)
    with kept.opened() as (office, _):
        office.withdraw("P1", UID)
    for name in (f"{REGISTER}-wal", f"{REGISTER}-shm", REGISTER):
        (home / name).unlink(missing_ok=True)
    shutil.copy(copy, home / REGISTER)
    with kept.opened() as (office, _):
        assert office is not first
        assert office.show("P1", UID)["state"] == "given"
        assert office.is_stale()
        standing = office
    with pytest.raises(ConsentRefused), kept.opened() as (office, _):
        office.withdraw("nobody", UID)
    with kept.opened() as (office, _):
        assert office is not standing
    kept.close()
