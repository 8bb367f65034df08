"""The warehouse connector's queries, parsed by the dialect of each engine that docs/data.md names."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from sqlglot import exp, parse_one

from convoy_node.connectors.ibis import query_for
from convoy_node.connectors.source import Mapping

ENGINES = ("postgres", "spark", "trino", "clickhouse", "duckdb", "snowflake")
TRIPS = Mapping(
    "telemetry.trips",
    "driver_id",
    MappingProxyType({"harsh_braking_100km": "100.0 * sum(brake_events) / sum(km)", "select": "max(km)"}),
    grouped=True,
)


@pytest.mark.parametrize("engine", ENGINES)
def test_names_are_names_in_every_dialect(engine: str) -> None:
    """Also one that is a keyword: nowhere a text, as "x" is in Spark."""
    query = parse_one(query_for(engine, "", TRIPS, "person_id", None), read=engine)
    assert [column.alias for column in query.expressions] == ["person_id", "harsh_braking_100km", "select"]
    assert [column.name for column in query.args["group"].expressions] == ["driver_id"]
    assert query.find(exp.Table).sql() == "telemetry.trips"
    assert not [literal for literal in query.find_all(exp.Literal) if literal.is_string]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_plain_table_is_read_by_its_columns(engine: str) -> None:
    """In the order asked for; what is asked for is a column, not a text."""
    query = parse_one(query_for(engine, "crm.rows", None, "person_id", ["person_id", "order"]), read=engine)
    assert [type(column) for column in query.expressions] == [exp.Column, exp.Column]
    assert [column.name for column in query.expressions] == ["person_id", "order"]
    assert query_for(engine, "crm.rows", None, "person_id", None) == "SELECT * FROM crm.rows"
