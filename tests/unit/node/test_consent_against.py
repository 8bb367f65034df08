"""Consents held against the contracts: what can never count is refused, what counts nowhere is told."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from convoy_audit.testing import MemoryLog
from convoy_contracts.build import Asset, Member, risk_contract
from convoy_contracts.canonical import canonical_bytes
from convoy_demo.specifications import risk_specification
from convoy_node.consent.against import lines
from convoy_node.consent.office import ConsentOffice
from convoy_node.errors import ConsentRefused
from convoy_node.setup import create_home, sign_contract

OEM, INSURER = "did:web:oem.example", "did:web:insurer-a.example"
ASSET, UID, LATER = "urn:convoy:asset:oem:1", "urn:convoy:contract:risk", "urn:convoy:contract:later"
NOW = datetime(2027, 3, 1, tzinfo=UTC)
ROW = {
    "local_id": "P1", "contract": "risk", "given": "2027-02-01T00:00:00Z", "until": "2027-12-01T00:00:00Z", "notice": "n@1",
    "purpose": "convoy:RiskModelTraining", "recipients": OEM, "separate": "true", "age": "40", "withdrawn": "",
}  # fmt: skip


@pytest.fixture
def office(tmp_path: Path) -> Iterator[ConsentOffice]:
    """The office of a carmaker that signed one contract on sensitive data and names another that it has not signed."""
    key = MemoryLog("office.example/log").vkeys[0]
    cards = [
        create_home(
            tmp_path / name, party=f"did:web:{name}.example", role=role, region="CN-SH", log_keys=[key], data_source="d.csv",
            asset=ASSET, asset_fields={"km_1000": "L3"}, asset_year_cap_micro=9_000_000,
            contract_names={"risk": UID, "later": LATER}, now=NOW,
        )
        for name, role in (("oem", "oem"), ("insurer-a", "insurer"))
    ]  # fmt: skip
    contract = risk_contract(
        uid=UID, version=1, nonce="n", title="risk", offer_until="2027-04-01T00:00:00Z", not_before="2027-01-01T00:00:00Z",
        not_after="2028-01-01T00:00:00Z",
        parties=[Member(c.id, c.role, c.region, c.mask_key, c.witness_key) for c in cards],
        assets=[Asset(ASSET, OEM, [("km_1000", "L3", True, "0.1")])], specification=risk_specification(), assignees=[OEM],
        recipients=[OEM], notices=["n@1"], total_micro=6_000_000, min_subjects=1, min_providers=1,
    )  # fmt: skip
    sign_contract(tmp_path / "oem", canonical_bytes(contract).decode(), NOW)
    with ConsentOffice.open(tmp_path / "oem", lambda: NOW) as opened:
        yield opened


def table(folder: Path, *changes: dict[str, str]) -> Path:
    """Write a table with one row for each change, each of another person."""
    path = folder / "consents.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(ROW))
        writer.writeheader()
        writer.writerows({**ROW, "local_id": f"P{n}", **change} for n, change in enumerate(changes))
    return path


FAULTS = {
    "a contract of nobody": ({"contract": "nope"}, "column contract: neither signed"),
    "another notice": ({"notice": "typo@1"}, "column notice: not one that the contract accepts"),
    "a purpose outside the vocabulary": ({"purpose": "convoy:Foo"}, "column purpose: not in the vocabulary"),
    "a purpose of other contracts": (
        {"purpose": "convoy:Marketing"},
        "column purpose: not one that the contract permits",
    ),
    "recipients of other contracts": ({"recipients": "did:web:x"}, "column recipients: none of them is a party"),
    "an open end with sensitive data": ({"until": "open-ended"}, "column until: open-ended, but the contract"),
    "an end before the beginning": ({"until": "2027-01-31T00:00:00Z"}, "column until: not later than given"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_table_with_a_consent_that_can_never_count_is_refused(
    case: str, office: ConsentOffice, tmp_path: Path
) -> None:
    """The column and the number of rows are told, and nothing of the table is kept."""
    change, fault = FAULTS[case]
    with pytest.raises(ConsentRefused) as refused:
        office.import_table(table(tmp_path, {}, change))
    (reason,) = refused.value.reasons
    assert reason.startswith(fault)
    assert reason.endswith("(1 rows)")
    assert office.register.row("P0", UID) is None


def test_every_fault_against_the_contracts_is_told_at_once(office: ConsentOffice, tmp_path: Path) -> None:
    """Over all rows, each with its number."""
    with pytest.raises(ConsentRefused) as refused:
        office.import_table(table(tmp_path, *(change for change, _ in FAULTS.values())))
    for _, fault in FAULTS.values():
        assert any(reason.startswith(fault) for reason in refused.value.reasons), fault


def test_what_is_kept_and_counts_nowhere_is_told_for_this_import(office: ConsentOffice, tmp_path: Path) -> None:
    """A term that has run out, an unknown age, a minor, a contract still to be signed, one foreign recipient of two."""
    changes: list[dict[str, str]] = [
        {"until": "2027-02-15T00:00:00Z"}, {"age": ""}, {"age": "12"}, {"contract": "later", "notice": "other@1"},
        {"recipients": f"{OEM};did:web:typo"}, {},
    ]  # fmt: skip
    made = office.import_table(table(tmp_path, *changes))
    assert made.rows == len(changes)
    assert made.counts == {
        "unknownAge": 1, "minorsWithoutGuardian": 1, "ended": 1, "contractNotSigned": 1, "foreignRecipients": 1,
    }  # fmt: skip
    nowhere, foreign = lines(made.counts)
    assert nowhere == (
        "Count nowhere: 1 of unknown age, 1 under 14 without a guardian, 1 whose term has ended,"
        " 1 under a contract that this node has not signed."
    )
    assert foreign == "Name a recipient who is no party of the contract: 1."
    assert office.import_table(table(tmp_path, {"local_id": "P9"})).counts == {}


def test_nothing_but_an_unknown_contract_stands_in_the_way_of_a_withdrawal(
    office: ConsentOffice, tmp_path: Path
) -> None:
    """Who withdraws is not asked which notice they were shown."""
    said = {"withdrawn": "2027-02-20T00:00:00Z", "notice": "typo@1", "purpose": "convoy:Foo", "until": "open-ended"}
    assert office.import_table(table(tmp_path, said)).counts == {}
    with pytest.raises(ConsentRefused, match="column contract"):
        office.import_table(table(tmp_path, said | {"contract": "nope"}))


@pytest.mark.parametrize(
    "change",
    [
        {"until": "2027-02-15T00:00:00Z", "given": "2027-02-01T00:00:00Z"},
        {"purpose": "convoy:Foo"},
        {"until": "open-ended"},
    ],
)
def test_a_desk_records_no_consent_that_counts_nowhere(change: dict[str, Any], office: ConsentOffice) -> None:
    """What a person says now has an end to come, and a purpose of the contract."""
    cells = {name: value for name, value in ROW.items() if name not in ("local_id", "contract", "given", "withdrawn")}
    with pytest.raises(ConsentRefused):
        office.record("P1", "risk", cells | change, channel="desk")
    assert office.record("P1", "risk", cells, channel="desk")["record"]["event"]["state"] == "given"
