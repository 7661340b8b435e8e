"""Columns of every wire type, for tests that need no server."""

from __future__ import annotations

from batch_pipelines.engine.catalog import Column, TableInfo
from batch_pipelines.engine.wire_types import NUMERIC, wire_type

OIDS = {
    "boolean": 16,
    "bytea": 17,
    "bigint": 20,
    "smallint": 21,
    "integer": 23,
    "text": 25,
    "real": 700,
    "double precision": 701,
    "varchar": 1043,
    "date": 1082,
    "time": 1083,
    "timestamp": 1114,
    "timestamptz": 1184,
    "uuid": 2950,
    "jsonb": 3802,
}


def column_of(
    kind: str,
    name: str = "c",
    *,
    not_null: bool = False,
    max_length: int | None = None,
    second_digits: int | None = None,
) -> Column:
    """Make a column of a type: one of `OIDS`, or like `numeric(10,2)`."""
    if kind.startswith("numeric("):
        precision, scale = kind.removeprefix("numeric(").removesuffix(")").split(",")
        wire = wire_type(NUMERIC, (int(precision) << 16 | int(scale)) + 4)
    else:
        wire = wire_type(OIDS[kind], -1)
    return Column(
        name=name,
        type_name=kind,
        base_type=kind.partition("(")[0],
        wire=wire,
        not_null=not_null,
        has_default=False,
        computed=False,
        max_length=max_length,
        second_digits=second_digits,
    )


def table_of(*columns: Column) -> TableInfo:
    """Make a table that no server has."""
    return TableInfo(1, "public", "t", columns, (), (), (), (), ())
