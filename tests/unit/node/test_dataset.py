"""A party's data: every fault at once, no value in a message, only the rows of those who count."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from convoy_demo.party_data import ConsentTerms, write_party_data
from convoy_demo.population import generate, histories
from convoy_demo.specifications import recommend_specification, risk_specification
from convoy_node import dataset
from convoy_node.dataset import HISTORY, Column, PersonTable, expected_columns
from convoy_node.errors import DatasetRefused

PARTY = "did:web:insurer-a.example"
RISK = (
    Column("age", "numeric"),
    Column("garage", "text", ("no", "yes")),
    Column("claim_count", "claims"),
    Column("exposure_years", "exposure"),
)
GOOD: dict[str, list[Any]] = {
    "person_id": ["P1", "P2", "P3"],
    "age": [30, 40, 50],
    "garage": ["yes", "no", "yes"],
    "claim_count": [0, 1, 0],
    "exposure_years": [1.0, 0.5, 0.25],
}


def write(path: Path, **change: Any) -> Path:
    pq.write_table(pa.table({k: v for k, v in {**GOOD, **change}.items() if v is not None}), path)
    return path


def faults(path: Path, columns: tuple[Column, ...] = RISK, **named: Any) -> list[str]:
    with pytest.raises(DatasetRefused) as refused:
        PersonTable.load(path, columns, PARTY, **named)
    assert refused.value.refusal()["party"] == PARTY
    assert all(fault.fix for fault in refused.value.faults)
    return [f"{fault.column}: {fault.cause}" for fault in refused.value.faults]


def test_rows_come_in_the_order_asked_for(tmp_path: Path) -> None:
    """By local id, whatever the order of the file."""
    table = PersonTable.load(write(tmp_path / "d.parquet"), RISK)
    columns = table.columns(["P3", "P1"])
    assert columns["age"].tolist() == [50, 30]
    assert columns["garage"].tolist() == ["yes", "yes"]
    assert columns["claim_count"].dtype == np.int64
    assert "P2" in table
    assert "P9" not in table
    with pytest.raises(DatasetRefused, match="1 of 2 persons"):
        table.columns(["P1", "P9"])


def test_all_faults_of_all_columns_are_told_at_once(tmp_path: Path) -> None:
    """Column, cause and fix for each; no person's id and no value."""
    path = write(
        tmp_path / "d.parquet",
        person_id=["secret", "secret", None],
        age=None,
        Age_years=[1, 2, 3],
        garage=["yes", "secret", None],
        claim_count=[-1.0, 0.5, math.nan],
        exposure_years=[0.0, -7654321.0, math.inf],
    )
    assert faults(path) == [
        "age: is missing.",
        "person_id: 1 rows have no id.",
        "person_id: 1 rows repeat a person.",
        "garage: 1 rows are empty.",
        "garage: 1 rows have a value that is none of the contract's levels.",
        "claim_count: 1 rows are NaN.",
        "claim_count: 1 rows are fractions.",
        "claim_count: 1 rows are negative.",
        "exposure_years: 1 rows are infinite.",
        "exposure_years: 1 rows are negative.",
        "exposure_years: 1 rows are zero.",
    ]
    with pytest.raises(DatasetRefused) as refused:
        PersonTable.load(path, RISK)
    assert "secret" not in str(refused.value)
    assert "7654321" not in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


def test_a_missing_column_names_the_ones_that_look_like_it(tmp_path: Path) -> None:
    """Near names are a hint for whoever maps the columns."""
    path = write(tmp_path / "d.parquet", claim_count=None, ClaimCount=[0, 0, 0])
    with pytest.raises(DatasetRefused, match="if it is ClaimCount"):
        PersonTable.load(path, RISK)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"age": ["a", "b", "c"]}, "age: holds VARCHAR, not numbers."),
        ({"garage": [1.5, 2.5, 3.5]}, "garage: holds DOUBLE, not text."),
        ({"person_id": None, "personid": ["a", "b", "c"]}, "person_id: is missing."),
        ({"exposure_years": [1.0, 365.0, 2.0]}, "exposure_years: 1 rows are above 10 years."),
        ({"age": [1.0, None, 2.0]}, "age: 1 rows are empty."),
    ],
)
def test_one_fault_is_one_sentence(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    """Wrong types, wrong units, gaps."""
    assert faults(write(tmp_path / "d.parquet", **change)) == [expected]


def test_rows_of_others_are_neither_judged_nor_kept(tmp_path: Path) -> None:
    """A fault in the row of a person who does not count stops nobody's run."""
    path = write(tmp_path / "d.parquet", age=[30.0, math.nan, 50.0])
    table = PersonTable.load(path, RISK, persons={"P1", "P3"})
    assert len(table) == 2
    assert "P2" not in table
    assert faults(path, persons={"P9"}) == [": there are no rows of persons who count."]


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    """No rows, no run."""
    empty = {name: pa.array(values).slice(0, 0) for name, values in GOOD.items()}
    assert faults(write(tmp_path / "d.parquet", **empty)) == [": there are no rows at all."]


@pytest.mark.parametrize(
    ("name", "content"),
    [("d.parquet", None), ("d.parquet", b"PAR1 not"), ("d.xlsx", b"x"), ("d.csv", b"\x00\xff\x00")],
)
def test_an_unreadable_file_is_refused_without_its_path(tmp_path: Path, name: str, content: bytes | None) -> None:
    """Missing, foreign or broken; the folder is nobody's business."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetRefused) as refused:
        PersonTable.load(path, RISK, PARTY)
    assert str(tmp_path) not in str(refused.value)


def test_csv_reads_like_parquet(tmp_path: Path) -> None:
    """Numeric person ids and item lists included."""
    csv = tmp_path / "d.csv"
    csv.write_text("person_id,age,items\n7,30,a;b\n8,40.5,\n")
    table = PersonTable.load(csv, (Column("age", "numeric"), Column("items", "list", ("a", "b"))))
    columns = table.columns(["8", "7"])
    assert columns["age"].tolist() == [40.5, 30]
    assert columns["items"].tolist() == [[], ["a", "b"]]
    assert faults(csv, (Column("items", "list", ("a",)),)) == [
        "items: 1 rows name an item that the contract does not list."
    ]


def test_the_demo_files_are_what_the_demo_contracts_expect(tmp_path: Path) -> None:
    """Every party's file passes, in every specification in which it has a part."""
    population = generate(3_000, 2)
    terms = ConsentTerms("n", "p", ("r",), "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z")
    files = write_party_data(tmp_path, population, histories(population, 2), risk=terms, recommendation=terms, seed=2)
    for short, role, specification in (
        ("insurer-a", "insurer", risk_specification()),
        ("oem", "oem", risk_specification()),
        ("oem", "oem", recommend_specification()),
        ("charging", "charging", recommend_specification()),
    ):
        expected = expected_columns(specification, role)
        table = PersonTable.load(files[short].data, expected, short)
        assert len(table) == pq.read_metadata(files[short].data).num_rows
    assert expected_columns(risk_specification(), "trustee") == ()
    assert expected_columns(recommend_specification(), "charging")[0].name == HISTORY


def test_a_large_book_is_kept_in_half_the_space_and_given_out_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a number of persons on: seven digits, the same types; the persons are found, and nobody else."""
    size = 200_000
    numbers = np.random.default_rng(4).random(size)
    book = pa.table(
        {
            "person_id": [f"P{i}" for i in range(size)],
            "x": numbers,
            "claim_count": np.arange(size) % 3,
            "garage": ["yes", "no"] * (size // 2),
        }
    )
    pq.write_table(book, tmp_path / "d.parquet")
    columns = {"x": "numeric", "claim_count": "claims", "garage": "text"}
    exact = PersonTable.load(tmp_path / "d.parquet", columns).columns(["P199999", "P0", "P70001"])
    monkeypatch.setattr(dataset, "NARROW_FROM", 100_000)
    table = PersonTable.load(tmp_path / "d.parquet", columns)
    narrow = table.columns(["P199999", "P0", "P70001"])
    assert {name: values.dtype for name, values in narrow.items()} == {n: v.dtype for n, v in exact.items()}
    assert narrow["x"] == pytest.approx(exact["x"], rel=1e-7)
    assert narrow["x"].tolist() == numbers[[199_999, 0, 70_001]].astype(np.float32).tolist()
    assert narrow["claim_count"].tolist() == exact["claim_count"].tolist() == [199_999 % 3, 0, 70_001 % 3]
    assert narrow["garage"].tolist() == exact["garage"].tolist() == ["no", "yes", "no"]
    assert table.present({"P5", "P200000", "", "p5"}) == {"P5"}
    assert len(table) == size
    kept = sum(values.itemsize for values in table._data.values())
    assert kept == 4 + 4 + 8, "two numbers of four bytes and a reference to one of two texts"
