"""Rows from files, from a real PostgreSQL server through SQLAlchemy and through Ibis: the same table, the same faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psycopg
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from convoy_node.columns import Column
from convoy_node.connectors import Source, open_source
from convoy_node.dataset import PersonTable, survey
from convoy_node.errors import DatasetRefused

COLUMNS = (
    Column("driver_age", "numeric"),
    Column("garage", "text", ("no", "yes")),
    Column("claim_count", "claims"),
    Column("exposure_years", "exposure"),
)
ROWS = 500


def _book(seed: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "person_id": [f"P{i:05d}" for i in range(ROWS)],
        "driver_age": rng.uniform(18, 90, ROWS).round(3).tolist(),
        "garage": rng.choice(["no", "yes"], ROWS).tolist(),
        "claim_count": rng.poisson(0.1, ROWS).tolist(),
        "exposure_years": rng.uniform(0.1, 1, ROWS).round(3).tolist(),
    }


@pytest.fixture
def places(tmp_path: Path, postgres_url: str) -> dict[str, Source]:
    """One book in every kind of place."""
    book = _book()
    table = pa.table(book)
    pq.write_table(table, tmp_path / "rows.parquet")
    pyarrow.csv.write_csv(table, tmp_path / "rows.csv")
    pl.DataFrame(book).write_excel(tmp_path / "rows.xlsx")
    with psycopg.connect(postgres_url) as db:
        db.execute("CREATE SCHEMA crm")
        db.execute(
            "CREATE TABLE crm.rows (person_id text, driver_age double precision, garage text, claim_count int,"
            " exposure_years numeric(8,3))"
        )
        with db.cursor().copy("COPY crm.rows FROM STDIN") as copy:
            for row in zip(*book.values(), strict=True):
                copy.write_row(row)
    return {
        "parquet": open_source(tmp_path / "rows.parquet"),
        "csv": open_source(tmp_path / "rows.csv"),
        "excel": open_source(tmp_path / "rows.xlsx"),
        "sqlalchemy": open_source(postgres_url, table="crm.rows"),
        "ibis": open_source(f"ibis+{postgres_url}", table="crm.rows"),
    }


def test_every_source_gives_the_same_rows(places: dict[str, Source]) -> None:
    """Values and order by person do not depend on where the rows are kept."""
    book = _book()
    for kind, source in places.items():
        found = PersonTable.load(source, COLUMNS).columns(book["person_id"])
        for column in COLUMNS:
            values, wanted = found[column.name], np.array(book[column.name])
            if column.kind == "text":
                np.testing.assert_array_equal(values, wanted, err_msg=f"{kind} {column.name}")
            else:  # a decimal of the database may round one unit in the last place
                np.testing.assert_allclose(values, wanted, rtol=1e-15, err_msg=f"{kind} {column.name}")


def test_only_the_persons_named_are_kept_however_small_the_batches(places: dict[str, Source]) -> None:
    """A batch without a person who counts leaves nothing behind."""
    wanted = ["P00499", "P00003"]
    for source in places.values():
        batches = list(source.stream(["person_id", "driver_age"], batch_rows=64))
        assert sum(batch.num_rows for batch in batches) == ROWS
        table = PersonTable.load(source, COLUMNS, persons=wanted)
        assert len(table) == 2


def test_a_mapping_has_the_source_compute_the_fields(tmp_path: Path, postgres_url: str) -> None:
    """Several rows a person become one in the partner's engine: DuckDB on a file, PostgreSQL, PostgreSQL through Ibis."""
    trips = {"driver": ["a", "a", "b"], "brakes": [2, 4, 9], "km": [50.0, 150.0, 300.0]}
    pq.write_table(pa.table(trips), tmp_path / "trips.parquet")
    with psycopg.connect(postgres_url) as db:
        db.execute("CREATE TABLE trips (driver text, brakes int, km double precision)")
        for row in zip(*trips.values(), strict=True):
            db.execute("INSERT INTO trips VALUES (%s, %s, %s)", row)
    for kind, place, table in (
        ("file", tmp_path / "trips.parquet", "rows"),
        ("sqlalchemy", postgres_url, "trips"),
        ("ibis", f"ibis+{postgres_url}", "trips"),
    ):
        mapping = tmp_path / f"{kind}.toml"
        mapping.write_text(
            f'table = "{table}"\nperson = "driver"\ngrouped = true\n[fields]\n'
            'harsh_braking_100km = "100.0 * sum(brakes) / sum(km)"\n',
            encoding="utf-8",
        )
        source = open_source(place, mapping=mapping)
        found = PersonTable.load(source, {"harsh_braking_100km": "numeric"}).columns(["a", "b"])
        np.testing.assert_allclose(found["harsh_braking_100km"], [3.0, 3.0], err_msg=kind)


def test_every_fault_of_a_database_is_told_at_once(postgres_url: str) -> None:
    """A missing column, an empty cell, a negative exposure: one refusal, no values, no address."""
    with psycopg.connect(postgres_url) as db:
        db.execute(
            "CREATE TABLE bad (person_id text, driver_age text, claim_count int, exposure_years double precision)"
        )
        db.execute("INSERT INTO bad VALUES ('secret-1', 'x', NULL, -5), ('secret-1', 'y', 1, 'NaN')")
    with pytest.raises(DatasetRefused) as refusal:
        PersonTable.load(open_source(postgres_url, table="bad"), COLUMNS, party="did:web:insurer.example")
    told = str(refusal.value)
    assert "secret" not in told
    assert "convoy_" not in told
    assert [str(fault) for fault in refusal.value.faults] == [
        "column driver_age: holds VARCHAR, not numbers. Write the column with this type.",
        "column garage: is missing. Rename the column, if it is driver_age, or add it."
        if "if it is" in str(refusal.value.faults[1])
        else "column garage: is missing. Add the column.",
        "column person_id: 1 rows repeat a person. Add up to one row for each person.",
        "column claim_count: 1 rows are empty. Fill in or leave out these persons.",
        "column exposure_years: 1 rows are NaN. Write a number, or leave out these persons.",
        "column exposure_years: 1 rows are negative. Check how the column is computed.",
    ]


@pytest.mark.parametrize("prefix", ["", "ibis+"])
def test_a_database_that_does_not_answer_is_named_without_its_address(prefix: str) -> None:
    """Neither host nor password stands in what a refusal says."""
    source = open_source(
        f"{prefix}postgresql://user:geheim@127.0.0.1:1/db", table="crm.rows", party="did:web:x.example"
    )
    with pytest.raises(DatasetRefused) as refusal:
        source.describe()
    assert "geheim" not in str(refusal.value)
    assert "127.0.0.1" not in str(refusal.value)
    assert "crm.rows cannot be read" in str(refusal.value)


def test_an_unknown_dialect_is_named_with_its_fix() -> None:
    """No driver for the scheme: what to install, where to read."""
    with pytest.raises(DatasetRefused, match="no dialect that is installed"):
        open_source("oracle9://h/db", table="t").describe()


def test_a_survey_reads_everything_and_keeps_nothing(places: dict[str, Source]) -> None:
    """The whole book is judged, also of persons who do not count."""
    for source in places.values():
        found = survey(source, COLUMNS)
        assert (found.rows, found.faults) == (ROWS, ())


def test_a_mapping_tells_all_of_its_faults(tmp_path: Path) -> None:
    """Missing table, missing person, an empty expression, a strange member: one refusal."""
    (tmp_path / "m.toml").write_text('tabel = "x"\n[fields]\na = ""\n', encoding="utf-8")
    with pytest.raises(DatasetRefused) as refusal:
        open_source(tmp_path / "rows.parquet", mapping=tmp_path / "m.toml")
    assert {fault.column for fault in refusal.value.faults} == {"table", "person", "a", "tabel"}
