"""What the contract expects of each column, as a pandera schema: the one place where values are judged.

    schema_of(columns) -> pandera.polars.DataFrameSchema      a partner's data team can run it in its own pipeline
    findings(schema, batch) -> Counter[(column, what)]        rows by column and finding; no value is kept

Empty, NaN and infinite cells, fractions, signs, levels and items are findings of the values; names and types are judged before
(``dataset``), since a column that is missing or of another type cannot be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Final

import pandera.polars as pandera
import polars as pl
import pyarrow as pa
from pandera.errors import SchemaErrors

from convoy_node.columns import MAX_EXPOSURE_YEARS, Column

FIXES: Final = MappingProxyType(
    {
        "are empty": "Fill in or leave out these persons.",
        "are NaN": "Write a number, or leave out these persons.",
        "are infinite": "Write a finite number.",
        "are fractions": "Write whole numbers.",
        "are negative": "Check how the column is computed.",
        "are zero": "Leave out persons without exposure.",
        "are above 10 years": "The unit is years.",
        "have a value that is none of the contract's levels": "Map these values at the source.",
        "name an item that the contract does not list": "Map items at the source; leave others out.",
    }
)
"""What can be found, and what to do about it."""

_Test = Callable[[pl.Expr], pl.Expr]


def schema_of(columns: Sequence[Column]) -> pandera.DataFrameSchema:
    """Return the schema of these columns; other columns may be there."""
    return pandera.DataFrameSchema(
        {column.name: pandera.Column(checks=_checks(column), nullable=True, required=True) for column in columns},
        strict=False,
    )


def findings(schema: pandera.DataFrameSchema, batch: pa.RecordBatch | pa.Table) -> Counter[tuple[str, str]]:
    """Count the rows of a batch that break a check, by column and finding.

    Args:
        schema: of ``schema_of``.
        batch: its columns may be of any type that the column's kind allows; decimals are read as numbers.
    """
    frame = pl.DataFrame(pl.from_arrow(batch.cast(_readable(batch.schema))))
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as errors:
        counted = errors.failure_cases.group_by("column", "check").len()
        return Counter({(str(column), str(check)): int(count) for column, check, count in counted.iter_rows()})
    return Counter()


def _checks(column: Column) -> list[pandera.Check]:
    checks = [_check("are empty", lambda cell: cell.is_not_null(), ignores_empty=False)]
    if column.kind == "text":
        if column.levels:
            levels = list(column.levels)
            checks.append(
                _check(
                    "have a value that is none of the contract's levels",
                    lambda cell: cell.cast(pl.String).is_in(levels),
                )
            )
        return checks
    if column.kind == "list":
        items = list(column.levels)
        known = _check(
            "name an item that the contract does not list",
            lambda cell: cell.list.eval(pl.element().is_in(items)).list.all(),
        )
        return [known] if items else []
    number: _Test = lambda cell: cell.cast(pl.Float64)  # noqa: E731 - one shape with the tests below
    tests: list[tuple[str, _Test]] = [
        ("are NaN", lambda cell: ~number(cell).is_nan()),
        ("are infinite", lambda cell: ~number(cell).is_infinite()),
    ]
    if column.kind in ("integer", "claims"):
        tests.append(
            ("are fractions", lambda cell: ~number(cell).is_finite() | (number(cell) == number(cell).round(0)))
        )
    if column.kind in ("claims", "exposure"):
        tests.append(("are negative", lambda cell: ~number(cell).is_finite() | (number(cell) >= 0)))
    if column.kind == "exposure":
        tests.append(("are zero", lambda cell: number(cell) != 0))
        tests.append(
            ("are above 10 years", lambda cell: ~number(cell).is_finite() | (number(cell) <= MAX_EXPOSURE_YEARS))
        )
    return [*checks, *(_check(what, test) for what, test in tests)]


def _check(what: str, test: _Test, *, ignores_empty: bool = True) -> pandera.Check:
    def judge(data: pandera.PolarsData) -> pl.LazyFrame:
        return data.lazyframe.select(test(pl.col(data.key)))

    return pandera.Check(judge, name=what, error=what, ignore_na=ignores_empty)


def _readable(schema: pa.Schema) -> pa.Schema:
    """Return the schema with dictionaries and decimals as plain text and numbers."""

    def plain(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_dictionary(kind):
            return kind.value_type
        return pa.float64() if pa.types.is_decimal(kind) else kind

    return pa.schema([pa.field(field.name, plain(field.type)) for field in schema])
