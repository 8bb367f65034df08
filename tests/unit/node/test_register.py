"""The consent register: who counts, what an import refuses, what a withdrawal does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convoy_contracts.decide.gates import is_a
from convoy_contracts.instants import instant, timestamp
from convoy_contracts.vocabulary import PURPOSES
from convoy_demo.party_data import CONSENT_SCHEMA, ConsentTerms, write_party_data
from convoy_demo.population import generate, histories
from convoy_node.errors import ConsentRefused, NodeError
from convoy_node.register import Cohort, Register

UID = "urn:convoy:contract:risk"
OEM = "did:web:oem.example"
NOW = datetime(2026, 11, 24, tzinfo=UTC)
GOOD: Mapping[str, Any] = {
    "local_id": "P1",
    "contract": UID,
    "link_id": None,
    "counterpart": None,
    "given": "2026-01-01T00:00:00+08:00",
    "until": "2027-01-01T00:00:00+08:00",
    "withdrawn": None,
    "notice": "notice@1",
    "purpose": "convoy:RiskModelTraining",
    "recipients": [OEM],
    "separate": True,
    "age": 40,
    "guardian": False,
}


def write(path: Path, *rows: Mapping[str, Any]) -> Path:
    """Write rows that differ from a good one as said; distinct persons unless said."""
    full = [{**GOOD, "local_id": f"P{n}", **row} for n, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(full, schema=CONSENT_SCHEMA), path)
    return path


def counted(register: Register, *, sensitive: bool = True, **change: Any) -> Cohort:
    asked: dict[str, Any] = {
        "contract_uid": UID,
        "purpose": "convoy:UBIRiskModelTraining",
        "recipients": [OEM],
        "notices": ["notice@1"],
        "now": NOW,
    } | change
    return register.cohort(**asked, sensitive=sensitive)


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register(tmp_path / "register.db")


def test_equal_records_are_grouped_and_hold_no_identifier(register: Register, tmp_path: Path) -> None:
    """The world of a decision gets numbers of persons, never who they are."""
    register.import_table(write(tmp_path / "c.parquet", {}, {}, {"age": 41}))
    records = register.subjects(UID)
    assert [(record["n"], record["age"]) for record in records] == [(2, 40), (1, 41)]
    assert not {"local_id", "link_id"} & set(records[0])
    assert register.subjects("urn:other") == []


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        ({}, True),
        ({"given": None}, False),
        ({"given": timestamp(NOW)}, True),
        ({"given": timestamp(NOW + timedelta(microseconds=1))}, False),
        ({"until": timestamp(NOW)}, False),
        ({"until": "2026-11-24T08:00:00.000001+08:00"}, True),
        ({"until": "open-ended"}, False),
        ({"withdrawn": timestamp(NOW)}, False),
        ({"withdrawn": timestamp(NOW + timedelta(seconds=1))}, True),
        ({"notice": "notice@0"}, False),
        ({"purpose": "convoy:Any"}, True),
        ({"purpose": "convoy:ClaimsFraudDetection"}, False),
        ({"recipients": ["did:web:other.example"]}, False),
        ({"recipients": ["did:web:other.example", OEM]}, True),
        ({"separate": False}, False),
        ({"age": 13}, False),
        ({"age": 13, "guardian": True}, True),
        ({"age": 14}, True),
    ],
)
def test_each_clause_of_the_counting_rule_decides(
    register: Register, tmp_path: Path, change: Mapping[str, Any], counts: bool
) -> None:
    """FORMAT.md §6, "Counting persons", in a sensitive round."""
    register.import_table(write(tmp_path / "c.parquet", change))
    assert counted(register).size == counts


def test_open_ended_and_joint_consent_count_in_an_ordinary_round(register: Register, tmp_path: Path) -> None:
    """Only sensitive rounds ask for an end and for separate consent."""
    register.import_table(write(tmp_path / "c.parquet", {"until": "open-ended"}, {"separate": False}))
    assert counted(register, sensitive=False).size == 2
    assert register.subjects(UID)[0]["until"] is None


TIMES = st.sampled_from([timestamp(NOW + timedelta(days=day)) for day in (-2, -1, 0, 1)])
ROWS = st.fixed_dictionaries(
    {
        "given": TIMES | st.none(),
        "until": TIMES | st.just("open-ended"),
        "withdrawn": TIMES | st.none(),
        "notice": st.sampled_from(["notice@0", "notice@1"]),
        "purpose": st.sampled_from(sorted(PURPOSES)),
        "recipients": st.lists(st.sampled_from([OEM, "did:web:b.example"]), min_size=1),
        "separate": st.booleans(),
        "age": st.integers(12, 16),
        "guardian": st.booleans(),
    }
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROWS, min_size=1, max_size=8), sensitive=st.booleans())
def test_the_cohort_is_as_large_as_the_decision_counts(
    tmp_path: Path, rows: list[dict[str, Any]], sensitive: bool
) -> None:
    """The rule, written a second time over ``subjects``, counts as many persons as ``cohort``."""
    path = tmp_path / "register.db"
    path.unlink(missing_ok=True)
    with Register(path) as register:
        register.import_table(write(tmp_path / "c.parquet", *rows))
        now = instant(timestamp(NOW))
        assert now is not None
        expected = 0
        for record in register.subjects(UID):
            begun, ended, gone = (instant(record[m]) for m in ("given", "until", "withdrawn"))
            if (
                (begun is not None and begun <= now)
                and not (gone is not None and gone <= now)
                and (ended > now if ended is not None else not sensitive)
                and record["notice"] == "notice@1"
                and is_a(PURPOSES, "convoy:UBIRiskModelTraining", record["purpose"])
                and OEM in record["recipients"]
                and (record["separate"] or not sensitive)
                and (record["age"] >= 14 or record["guardian"])
            ):
                expected += record["n"]
        assert counted(register, sensitive=sensitive).size == expected


def test_links_are_told_apart_by_counterpart(register: Register, tmp_path: Path) -> None:
    """Persons with a link are joint with that counterpart; the others are solo."""
    first, second = bytes(range(16)), bytes(range(1, 17))
    register.import_table(
        write(
            tmp_path / "c.parquet",
            {"link_id": second, "counterpart": OEM},
            {"link_id": first, "counterpart": OEM},
            {},
        )
    )
    cohort = counted(register)
    assert cohort.links == {OEM: (("P1", first), ("P0", second))}
    assert cohort.solo == ("P2",)
    assert cohort.persons == {"P0", "P1", "P2"}
    assert cohort.within({"P0"}) == Cohort(solo=(), links={OEM: (("P0", second),)})


def test_all_faults_of_a_table_are_told_at_once_without_a_value(register: Register, tmp_path: Path) -> None:
    """Nothing is imported, and no cell appears in the message."""
    link = b"secret-link-id-1"
    bad = write(
        tmp_path / "c.parquet",
        {"local_id": "secret-person", "link_id": link, "counterpart": OEM},
        {"local_id": "secret-person", "link_id": link, "counterpart": OEM},
        {"until": None, "notice": None},
        {"until": "secret-tomorrow", "given": "2026-01-01T00:00:00"},
        {"link_id": b"0" * 16, "counterpart": None, "age": None},
        {"recipients": [], "separate": None, "age": 200},
    )
    with pytest.raises(ConsentRefused) as refused:
        register.import_table(bad)
    text = str(refused.value)
    for fault in (
        "column local_id: twice under one contract (1 rows)",
        "column link_id: twice under one contract (1 rows)",
        "column until: missing; write open-ended for no end (1 rows)",
        "column until: no timestamp with an offset (1 rows)",
        "column given: no timestamp with an offset (1 rows)",
        "column notice: missing (1 rows)",
        "column counterpart: given without a link_id, or the reverse (1 rows)",
        "column age: not a whole 0..150 (1 rows)",
        "column recipients: empty or not a list (1 rows)",
        "column separate: neither true nor false (1 rows)",
    ):
        assert fault in refused.value.reasons, text
    assert "secret" not in text
    assert register.subjects(UID) == []


def test_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    """Recipients by semicolon, link ids in hex, truth in words."""
    csv = tmp_path / "c.csv"
    csv.write_text(
        "local_id,contract,link_id,counterpart,given,until,notice,purpose,recipients,separate,age\n"
        f"P0,risk,{bytes(16).hex()},{OEM},2026-01-01T00:00:00+08:00,open-ended,notice@1,"
        f"convoy:RiskModelTraining,b;{OEM},true,40\n"
    )
    parquet = write(
        tmp_path / "c.parquet",
        {"contract": "risk", "link_id": bytes(16), "counterpart": OEM, "until": "open-ended",
         "recipients": [OEM, "b"]},
    )  # fmt: skip
    one, other = Register(tmp_path / "1.db"), Register(tmp_path / "2.db")
    for register, table in ((one, csv), (other, parquet)):
        assert register.import_table(table, {"risk": UID}) == 1
    assert one.subjects(UID) == other.subjects(UID)
    assert counted(one, sensitive=False) == counted(other, sensitive=False)


@pytest.mark.parametrize("content", [None, b"", b"nothing of the kind", b"local_id\nP1\n"])
def test_an_unusable_table_is_refused_as_such(register: Register, tmp_path: Path, content: bytes | None) -> None:
    """Missing, empty, foreign, or without the columns."""
    path = tmp_path / "c.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConsentRefused):
        register.import_table(path)


def test_a_withdrawal_counts_from_its_instant_and_survives_an_import(register: Register, tmp_path: Path) -> None:
    """Only a consent that is given later ends it; the earliest withdrawal stands."""
    table = write(tmp_path / "c.parquet", {}, {})
    register.import_table(table)
    register.withdraw("P0", UID, NOW)
    register.withdraw("P0", UID, NOW + timedelta(days=1))
    assert counted(register).solo == ("P1",)
    assert counted(register, now=NOW - timedelta(seconds=1)).size == 2
    assert register.withdrawn_between(UID, NOW - timedelta(hours=1), NOW) == ["P0"]
    assert register.withdrawn_between(UID, NOW, NOW + timedelta(days=9)) == []
    register.import_table(table)
    assert counted(register).solo == ("P1",)
    later = timestamp(NOW + timedelta(hours=1))
    register.import_table(write(tmp_path / "again.parquet", {"given": later}))
    assert counted(register, now=NOW + timedelta(hours=1)).size == 2
    with pytest.raises(ConsentRefused):
        register.withdraw("nobody", UID, NOW)


def test_a_link_id_of_another_person_is_refused_and_nothing_changes(register: Register, tmp_path: Path) -> None:
    """One link id is one person, over all imports."""
    link = {"link_id": bytes(16), "counterpart": OEM}
    register.import_table(write(tmp_path / "c.parquet", link))
    with pytest.raises(ConsentRefused):
        register.import_table(write(tmp_path / "d.parquet", {"local_id": "P9", **link}))
    assert counted(register).links[OEM][0][0] == "P0"


def test_a_closed_or_foreign_register_raises_the_nodes_error(tmp_path: Path) -> None:
    """No sqlite3 error comes out."""
    foreign = tmp_path / "foreign.db"
    foreign.write_bytes(b"no register" * 500)
    with pytest.raises(NodeError) as refused:
        Register(foreign)
    assert refused.value.code == "REGISTER_DAMAGED"
    register = Register(tmp_path / "register.db")
    table = write(tmp_path / "c.parquet", {})
    register.close()
    with pytest.raises(NodeError):
        register.import_table(table)


def test_the_demo_population_imports_whole(tmp_path: Path) -> None:
    """20,000 drivers, the OEM's links to three insurers; ``bench/register.py`` says how long a million take."""
    population = generate(20_000, 1)
    terms = ConsentTerms("notice@1", str(GOOD["purpose"]), (OEM,), str(GOOD["given"]), str(GOOD["until"]))
    files = write_party_data(tmp_path, population, histories(population, 1), risk=terms, recommendation=terms, seed=1)
    register = Register(tmp_path / "register.db")
    register.import_table(files["oem"].consents, {"risk": UID, "recommendation": "urn:rec"})
    cohort = counted(register)
    assert cohort.size == int(population.has_oem.sum())
    assert not cohort.solo
    assert len(cohort.links) == 3


def test_counts_follow_a_withdrawal_made_by_another_process(tmp_path: Path) -> None:
    """What is kept between two questions is never older than the file."""
    source = tmp_path / "consents.csv"
    source.write_text(
        "local_id,contract,given,until,notice,purpose,recipients,separate,age\n"
        + "".join(f"P{n},u,2027-01-01T00:00:00Z,open-ended,n@1,p,did:web:a.example,true,40\n" for n in range(3))
    )
    with Register(tmp_path / "register.db") as here, Register(tmp_path / "register.db") as there:
        here.import_table(source)
        assert [record["n"] for record in here.subjects("u")] == [3]
        there.withdraw("P0", "u", datetime(2027, 3, 1, tzinfo=UTC))
        assert sorted(record["n"] for record in here.subjects("u")) == [1, 2]
        here.withdraw("P1", "u", datetime(2027, 3, 2, tzinfo=UTC))
        assert sorted(record["n"] for record in here.subjects("u")) == [1, 1, 1]
        assert sorted(record["n"] for record in there.subjects("u")) == [1, 1, 1]
