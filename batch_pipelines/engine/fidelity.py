"""How true a table keeps what a delivery brings: said of each column, before anything is published.

By types alone: what a value of the one may lose on its way into the other. Whether the rows are what was
sent, digests and checks say; this says what they cannot tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from batch_pipelines.engine.type_families import ALSO, TEXT
from batch_pipelines.engine.wire_types import NUMERIC

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from batch_pipelines.engine.catalog import Column, TableInfo
    from batch_pipelines.engine.wire_types import WireType
    from batch_pipelines.engine.writing.source import TableSource

Kind = Literal["exact", "normalised", "lossy", "server_changed", "filled", "computed"]
UNPROVEN: Final = frozenset({"lossy", "server_changed", "filled", "computed"})
"""Columns of which nobody can say that they hold what was sent."""

_REAL, _DOUBLE, _TIMESTAMPTZ = 700, 701, 1184
_KNOWS_DOUBLE_KEYS: Final = 160_000  # IS JSON WITH UNIQUE KEYS came with PostgreSQL 16
# Kept letter by letter, though they are no wire types.
_VERBATIM = frozenset({"json", "citext"})
_SERVER_CHANGED = "the feed says `server_changed`"
_FILLED = "some records leave it to the table"
_COMPUTED = "PostgreSQL computes it"


@dataclass(frozen=True)
class ColumnFidelity:
    """How true a column keeps what was sent.

    Attributes:
        column: Its name.
        kind: `exact`: the very value. `normalised`: the same value, written otherwise. `lossy`: values
            may be rounded. `server_changed`: the feed says that the server changes them. `filled`: some
            are the table's defaults. `computed`: all are PostgreSQL's own.
        reason: Why it is not exact; empty where it is.
    """

    column: str
    kind: Kind
    reason: str = ""


def fidelity_of_source(source: TableSource, server_version: int) -> tuple[ColumnFidelity, ...]:
    """Say how true each column of a table keeps what a delivery brings.

    Args:
        source: The delivery.
        server_version: Of PostgreSQL, as in 180000.

    Returns:
        The columns that it brings, in the table's order, and those that PostgreSQL computes.
    """
    comparison = source.comparison
    signed = () if comparison is None else comparison.signature.columns
    types = {column.target: column.type for column in signed}
    unknown = {column.name for column in source.filled} | source.late
    brought = {column.name for column in source.columns}
    return tuple(
        _fidelity(
            column, types.get(column.name, TEXT).split(ALSO), server_version,
            changed=column.name in source.server_changed, filled=column.name in unknown,
        )
        for column in source.table.columns
        if column.name in brought or column.computed
    )  # fmt: skip


def fidelity_of_text(
    table: TableInfo, server_changed: Collection[str], server_version: int
) -> tuple[ColumnFidelity, ...]:
    """Say how true each column of a table keeps what a text format brings; see `fidelity_of_source`.

    Args:
        table: The table.
        server_changed: Columns that the server changes, as the feed says.
        server_version: Of PostgreSQL, as in 180000.
    """
    return tuple(
        _fidelity(
            column, [TEXT], server_version, changed=column.name in server_changed, filled=False
        )
        for column in table.columns
    )


def told_of(table: str, found: Iterable[ColumnFidelity]) -> Iterator[str]:
    """Say in a sentence each of which columns of a table nobody can say that they hold what was sent.

    Args:
        table: Its name.
        found: Its columns.
    """
    for each in found:
        if each.kind in UNPROVEN:
            yield f"{table}: column {each.column} is {each.kind}: {each.reason}"


def not_exact(found: Iterable[ColumnFidelity]) -> Iterator[ColumnFidelity]:
    """Pass on the columns that are not exact."""
    return (each for each in found if each.kind != "exact")


def _fidelity(
    column: Column, types: Collection[str], server_version: int, *, changed: bool, filled: bool
) -> ColumnFidelity:
    if column.computed:
        return ColumnFidelity(column.name, "computed", _COMPUTED)
    if changed:
        return ColumnFidelity(column.name, "server_changed", _SERVER_CHANGED)
    if filled:
        return ColumnFidelity(column.name, "filled", _FILLED)
    if column.wire is None:
        return _by_conversion(column, server_version)
    kind, reason = _by_type(column.wire, types)
    return ColumnFidelity(column.name, kind, reason)


def _by_type(wire: WireType, types: Collection[str]) -> tuple[Kind, str]:
    """Say it of a column of the closed list, filled from values of these types."""
    if wire.oid == _REAL and TEXT in types:
        return "lossy", "decimals are rounded to the nearest of 24 bits, some 7 digits"
    if wire.oid == _DOUBLE and TEXT in types:
        reason = "decimals become the nearest of 53 bits; up to 15 digits come back as they were"
        return "normalised", reason
    if wire.oid == NUMERIC and any(_scale(kind) != wire.arrow.scale for kind in types):
        return "normalised", f"written with {wire.arrow.scale} digits behind the point"
    if wire.oid == _TIMESTAMPTZ and any("tz=UTC" not in kind for kind in types):
        return "normalised", "the moment is kept, its distance from UTC is not"
    return "exact", ""


def _scale(type_name: str) -> int | None:
    """Give the digits behind the point of a decimal type of Arrow's."""
    if not type_name.startswith("decimal"):
        return None
    return int(type_name.rstrip(")").rpartition(",")[2])


def _by_conversion(column: Column, server_version: int) -> ColumnFidelity:
    """Say it of a column that PostgreSQL converts from text."""
    if column.base_type in _VERBATIM:
        return ColumnFidelity(column.name, "exact")
    if column.base_type == "jsonb":
        if server_version < _KNOWS_DOUBLE_KEYS:
            reason = "of a key that an object has twice, PostgreSQL before 16 drops the first value"
            return ColumnFidelity(column.name, "lossy", reason)
        reason = "spaces and the order of keys are not kept"
    elif column.base_type in {"character", "bpchar"}:
        reason = "padded with spaces, and spaces at the end do not count"
    elif column.base_type == "numeric":
        reason = "zeros in front and exponents are not kept"
    else:
        reason = f"written as PostgreSQL writes {column.base_type}"
    return ColumnFidelity(column.name, "normalised", reason)
