"""Exact aggregates of a column: what is asked of both sides, and how their answers are compared.

Both sides count the values, add them up where addition is exact, and give the smallest and the
largest; those two leave this module only as hashes, because they are values of rows. Not here: asking
PostgreSQL (`target_aggregates`) and the source (`second_reader`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batch_pipelines.engine.catalog import Column


@dataclass(frozen=True)
class Aggregate:
    """What is known of a column's values.

    Attributes:
        values: How many are not null.
        total: Their exact sum as text (numbers: themselves; text and bytes: octets; times:
            microseconds; dates: days; booleans: how many are true), or None where adding is not exact.
        bounds: A hash of the smallest and the largest, or None where they are not compared.
    """

    values: int
    total: str | None
    bounds: str | None

    def __str__(self) -> str:
        parts = [f"values={self.values}"]
        if self.total is not None and self.values < _FEW:
            # The sum of one value is the value.
            parts.append(f"sum#{hashlib.sha256(self.total.encode()).hexdigest()[:12]}")
        elif self.total is not None:
            parts.append(f"sum={self.total}")
        parts += [] if self.bounds is None else [f"bounds#{self.bounds}"]
        return " ".join(parts)


@dataclass(frozen=True)
class Recipe:
    """How to add up and order a column's values on both sides.

    Each is SQL over `{c}`, on PostgreSQL's side the column, on DuckDB's the value cast to its type; but
    `pg_bound` is over `{b}`, the smallest or the largest: it would be dear for every row.
    """

    duckdb_type: str
    pg_sum: str | None
    duckdb_sum: str | None
    pg_order: str | None
    duckdb_order: str | None
    pg_bound: str = "{b}"


_INTEGER = Recipe("BIGINT", "sum({c})", "sum({c})", "{c}", "{c}")
_TEXT = Recipe(
    "VARCHAR", "sum(octet_length({c}))", "sum(strlen({c}))", '{c} COLLATE "C"', "{c}"
)  # fmt: skip
# Floats: the order of addition would show in a sum. Their bounds are compared as Python reads them, so
# that no side's way of printing them matters.
_FLOAT8 = Recipe("DOUBLE", None, None, "{c}", "{c}")
_FLOAT4 = Recipe("FLOAT", None, None, "{c}::float8", "{c}::DOUBLE")
_EPOCH_SUM = "(sum(extract(epoch FROM {c})) * 1000000)::numeric(38)"
_EPOCH = "(extract(epoch FROM {b}) * 1000000)::bigint"
_RECIPES: Mapping[int, Recipe] = {
    16: Recipe(
        "BOOLEAN", "count(*) FILTER (WHERE {c})", "count(*) FILTER (WHERE {c})", None, None
    ),
    17: Recipe("BLOB", "sum(octet_length({c}))", "sum(octet_length({c}))", None, None),
    20: _INTEGER,
    21: _INTEGER,
    23: _INTEGER,
    25: _TEXT,
    1043: _TEXT,
    700: _FLOAT4,
    701: _FLOAT8,
    1082: Recipe(
        "DATE", "sum({c} - date '1970-01-01')", "sum(epoch({c})::BIGINT // 86400)",
        "{c} - date '1970-01-01'", "epoch({c})::BIGINT // 86400",
    ),
    1083: Recipe(
        "TIME", "(sum(extract(epoch FROM {c})) * 1000000)::bigint", "sum(epoch_us({c}))", "{c}", "{c}"
    ),
    1114: Recipe(
        "TIMESTAMP", _EPOCH_SUM, "sum(epoch_us({c}))", "{c}", "epoch_us({c})", _EPOCH
    ),
    1184: Recipe(
        "TIMESTAMPTZ", _EPOCH_SUM, "sum(epoch_us({c}))", "{c}", "epoch_us({c})", _EPOCH
    ),
    2950: Recipe("UUID", None, None, '{c}::text COLLATE "C"', "{c}::VARCHAR"),
}  # fmt: skip
_NUMERIC_OID = 1700
_ADDABLE_DIGITS = 28
_FEW = 5


def recipe(column: Column) -> Recipe | None:
    """Give the recipe of a column; None of one that arrives as text, whose values are only counted.

    Args:
        column: A target column.
    """
    if column.wire is None:
        return None
    if column.wire.oid == _NUMERIC_OID:
        kind = column.type_name.replace("numeric", "DECIMAL")
        # DuckDB adds decimals up in 38 digits, which leaves 10 for the number of rows.
        total = "sum({c})" if column.wire.arrow.precision <= _ADDABLE_DIGITS else None
        return Recipe(kind, total, total, "{c}", "{c}")
    return _RECIPES[column.wire.oid]


def aggregates_of(columns: Sequence[Column], row: Sequence[object]) -> dict[str, Aggregate]:
    """Read what one side answers.

    Args:
        columns: The columns asked for.
        row: For each of them count, sum, smallest and largest.

    Returns:
        An aggregate for each column name.
    """
    found = {}
    for place, column in enumerate(columns):
        values, total, low, high = row[4 * place : 4 * place + 4]
        if low is not None and recipe(column) in {_FLOAT4, _FLOAT8}:
            # Equal floats print differently in the two; repr is the same for both, and adding zero
            # makes one zero of the two.
            low, high = repr(float(str(low)) + 0.0), repr(float(str(high)) + 0.0)
        elif low is not None and column.wire is not None and column.wire.oid == _NUMERIC_OID:
            # DuckDB leaves the zero before the point out where the type has no place for one.
            low, high = f"{Decimal(str(low)):f}", f"{Decimal(str(high)):f}"
        bounds = None
        if low is not None:
            bounds = hashlib.sha256(f"{low}\0{high}".encode()).hexdigest()[:12]
        text = None if total is None else str(total)
        found[column.name] = Aggregate(int(str(values)), text, bounds)
    return found
