"""Reading JSON lines: one object a line, its values as they are written, grouped by the keys it has.

An absent key and a null are two things: the table's default stands for the one and not for the other,
and a row that is updated keeps what it has where nothing is brought. So a file is surveyed before it is
read: which columns its records bring, and which of those that count some of them lack: those with a
default and, where rows are updated, all but their key. The records that lack the same ones are a group,
the column signature.

Python's own parser is used because it says where each value begins and ends, so that numbers keep every
digit; the counter and the second reader parse with another one (msgspec).
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pyarrow as pa

from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.reading.blocks import BLOCK_BYTES, LONGEST
from batch_pipelines.engine.reading.chunks import Chunk, convert_columns
from batch_pipelines.engine.reading.notation import canonical, is_special
from batch_pipelines.engine.rejects import (
    BAD_ENCODING,
    BAD_FORMAT,
    BAD_JSON,
    BAD_VALUE,
    NOT_NULL,
    Breach,
    Reject,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from batch_pipelines.engine.catalog import Column, TableInfo
    from batch_pipelines.engine.formats import Format
    from batch_pipelines.engine.reading.chunks import Raw
    from batch_pipelines.engine.routes import Route

BLANK: Final = b" \t\r\n"
"""A line of nothing else is no record."""
_CHUNK_ROWS = 65_536
_SPACE = re.compile(r"[ \t\r\n]*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_RAW_TYPES = frozenset({"json", "jsonb"})
_LITERALS = {"true": True, "false": False, "null": False}


def _no_constant(_: str) -> object:
    raise ValueError  # NaN and Infinity are Python's own


# Numbers are not made: they are taken as they are written.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_no_constant)


@dataclass(frozen=True)
class Survey:
    """What the records of a table bring, before any value is looked at.

    Attributes:
        brought: Names of the table's columns that some record brings.
        kinds: For each kind of record, which of the columns that count it brings.
        keys: All keys that some record has, but for those that say how it is to be written.
    """

    brought: frozenset[str]
    kinds: frozenset[frozenset[str]]
    keys: frozenset[str] = frozenset()

    def __or__(self, other: Survey) -> Survey:
        return Survey(
            self.brought | other.brought, self.kinds | other.kinds, self.keys | other.keys
        )


@dataclass(frozen=True)
class JsonLayout:
    """How the records of a table are to be read.

    Attributes:
        table: The target table.
        columns: The columns that are loaded.
        counted: Names of the columns whose absence is not a null.
        signatures: For each group of records, which of those they lack.
        form: How the file is written.
        route: Which lines are the table's, where they say it.
    """

    table: TableInfo
    columns: tuple[Column, ...]
    counted: frozenset[str]
    signatures: tuple[frozenset[str], ...]
    form: Format
    route: Route | None

    @cached_property
    def known(self) -> dict[str, Column]:
        """The table's columns by their names."""
        return {column.name: column for column in self.table.columns}


class _Line(NamedTuple):
    record: int
    number: int
    offset: int
    raw: bytes


class _Value(NamedTuple):
    """A value: as text, null or not, and as it is written."""

    text: str | None
    literal: str


_NULL = _Value(None, "null")


class _BrokenError(Exception):
    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.breach = Breach(sqlstate, message)


def survey(
    path: Path, table: TableInfo, form: Format, route: Route | None, key: Sequence[str] = ()
) -> Survey:
    """Find out which columns the records of a table bring.

    Args:
        path: The file.
        table: The target table.
        form: How the file is written.
        route: Which lines are the table's, where they say it.
        key: Columns of the key by which rows are updated; none where they are inserted.

    Returns:
        The columns.

    Raises:
        DeliveryError: A line is longer than `blocks.LONGEST`.
    """
    known = {column.name for column in table.columns if not column.computed}
    counted = _counted(table, key)
    seen: set[frozenset[str]] = set()
    keys: set[str] = set()
    for line in _lines(path):
        members, breach = _members(line.raw)
        if breach is None and _is_own(members, route):
            seen.add(frozenset(members))
            # One that has strayed here is no word of the table's columns.
            if route is None or _said(members, route) == route.match:
                keys.update(members)
    kinds = [
        {name for key in kind if (name := form.target_name(key)) is not None} & known
        for kind in seen
    ]
    brought = frozenset[str]().union(*kinds)
    return Survey(
        brought,
        frozenset(frozenset(kind & counted) for kind in kinds),
        frozenset(k for k in keys if k not in {form.table_field, form.individual_field}),
    )


def _counted(table: TableInfo, key: Sequence[str]) -> frozenset[str]:
    """Name the columns whose absence is not a null."""
    return frozenset(c.name for c in table.columns if c.has_default or (key and c.name not in key))


def layout_of(
    table: TableInfo, found: Survey, form: Format, route: Route | None, key: Sequence[str] = ()
) -> JsonLayout:
    """Say how surveyed files are to be read.

    Args:
        table: The target table.
        found: What all its files together bring.
        form: How they are written.
        route: Which lines are the table's, where they say it.
        key: Columns of the key by which rows are updated; none where they are inserted.

    Returns:
        The layout: of all columns that any record brings, and of those that none may lack; where no
        record brings any, of all columns.
    """
    columns = tuple(
        c for c in table.columns
        if not c.computed
        and (c.name in found.brought or not found.brought or (c.not_null and not c.has_default))
    )  # fmt: skip
    counted = _counted(table, key) & {column.name for column in columns}
    absent = {counted - present for present in found.kinds}
    signatures = tuple(sorted(absent, key=lambda names: (len(names), sorted(names))))
    return JsonLayout(table, columns, counted, signatures or (frozenset(),), form, route)


def read_json_lines(path: Path, layout: JsonLayout) -> Iterator[Chunk]:
    """Read a table's records of a file, from its beginning to its end.

    Args:
        path: The file.
        layout: How they are to be read.

    Yields:
        Its records in order.

    Raises:
        DeliveryError: A line is longer than `blocks.LONGEST`.
    """
    index, size = 0, 0
    waiting: list[tuple[_Line, dict[str, _Value], Breach | None]] = []
    for line in _lines(path):
        members, breach = _members(line.raw)
        if not _is_own(members, layout.route):
            continue
        waiting.append((line, members, breach))
        size += len(line.raw)
        if size >= BLOCK_BYTES or len(waiting) == _CHUNK_ROWS:
            yield _chunk(path.name, index, layout, waiting)
            index, size, waiting = index + 1, 0, []
    if waiting:
        yield _chunk(path.name, index, layout, waiting)


def read_raw_json_lines(path: Path, records: Iterable[int]) -> Iterator[Raw]:
    """Read some records of a file as they were delivered; see `readers.read_raw`."""
    waiting = iter(records)
    record = next(waiting, None)
    if record is None:
        return
    for line in _lines(path):
        if line.record == record:
            yield line.number, line.offset, line.raw
            record = next(waiting, None)
            if record is None:
                return


def _lines(path: Path) -> Iterator[_Line]:
    """Give the lines that are records; each with its line end."""
    with path.open("rb") as file:
        mark = file.read(len(codecs.BOM_UTF8))
        offset = len(mark) if mark == codecs.BOM_UTF8 else 0
        file.seek(offset)
        record = number = 0
        while raw := file.readline(LONGEST + 1):
            number += 1
            if len(raw) > LONGEST:
                message = (
                    f"{path.name}, line {number}: a record is longer than {LONGEST / 1e6:g} MB. "
                    "Deliver smaller ones."
                )
                raise DeliveryError(message)
            if raw.strip(BLANK):
                record += 1
                yield _Line(record, number, offset, raw)
            offset += len(raw)


def _is_own(members: Mapping[str, _Value], route: Route | None) -> bool:
    return route is None or route.is_own(_said(members, route))


def _said(members: Mapping[str, _Value], route: Route) -> str | None:
    value = members.get(route.field, _NULL)
    return value.text if value.literal.startswith('"') else None


def _members(raw: bytes) -> tuple[dict[str, _Value], Breach | None]:
    """Take a line apart; also say what is wrong with it as a whole."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return {}, Breach(BAD_ENCODING, "is not UTF-8")
    found: dict[str, _Value] = {}
    twice = None
    try:
        for key, value in _pairs(text):
            if key in found:
                twice = Breach(BAD_FORMAT, "has a key twice")
            found[key] = value
    except _BrokenError as error:
        return {}, error.breach
    except (ValueError, RecursionError):
        return {}, Breach(BAD_JSON, "is not valid JSON")
    return found, twice


def _pairs(text: str) -> Iterator[tuple[str, _Value]]:
    """Go through an object; raise ValueError where it is not one."""
    at = _skip(text, 0)
    if text[at] != "{":
        _DECODER.raw_decode(text, at)
        raise _BrokenError(BAD_FORMAT, "is no JSON object")
    at = _skip(text, at + 1)
    sign = ","
    if text[at : at + 1] == "}":
        sign, at = "}", at + 1
    while sign == ",":
        if text[at : at + 1] != '"':
            raise ValueError
        key, at = _decoded(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise ValueError
        at = _skip(text, at + 1)
        value, end = _decoded(text, at)
        literal = text[at:end]
        yield str(key), _value(value, literal)
        at = _skip(text, end)
        sign, at = text[at : at + 1], _skip(text, at + 1)
    if sign != "}" or _skip(text, at) < len(text):
        raise ValueError


def _decoded(text: str, at: int) -> tuple[object, int]:
    value, end = _DECODER.raw_decode(text, at)
    if "\\" in text and _SURROGATE.search(text, at, end):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _BrokenError(BAD_ENCODING, "holds half of a surrogate pair") from None
    return value, end


def _value(value: object, literal: str) -> _Value:
    if value is None:
        return _NULL
    # A number has been made a text too.
    is_text = isinstance(value, str) and literal.startswith('"')
    return _Value(str(value) if is_text else literal, literal)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _chunk(
    file_name: str,
    index: int,
    layout: JsonLayout,
    waiting: Sequence[tuple[_Line, dict[str, _Value], Breach | None]],
) -> Chunk:
    """Make a chunk of some lines."""
    wrong: dict[int, list[Breach]] = {}
    kept, groups = [], []
    rows: list[dict[str, _Value]] = []
    numbers = {absent: number for number, absent in enumerate(layout.signatures)}
    for place, (_, members, breach) in enumerate(waiting):
        row, forced, breaches = _row(members, layout) if breach is None else ({}, False, [breach])
        if breaches:
            wrong[place] = breaches
            continue
        absent = layout.counted.difference(row)
        kept.append(place)
        rows.append(row)
        groups.append(2 * numbers[absent] + forced)
    arrays, good, refused = _converted(rows, layout)
    wrong |= {kept[place]: breaches for place, breaches in refused.items()}
    rejects = tuple(
        Reject(file_name, line.record, line.number, line.offset, line.raw, (*wrong[place],))
        for place in sorted(wrong)
        for line in [waiting[place][0]]
    )
    records = np.array([waiting[place][0].record for place in kept], np.int64)[good]
    return Chunk(
        file_name, index, layout.columns, records, arrays, rejects, np.array(groups, np.int32)[good]
    )


def _row(
    members: Mapping[str, _Value], layout: JsonLayout
) -> tuple[dict[str, _Value], bool, list[Breach]]:
    """Match a record's keys with the columns; also say whether it is to be written by itself."""
    form = layout.form
    row: dict[str, _Value] = {}
    forced, breaches = False, []
    if layout.route is not None and _said(members, layout.route) != layout.route.match:
        return {}, False, [Breach(BAD_FORMAT, "is for no table of the feed")]
    for key, value in members.items():
        if key == form.individual_field:
            forced = _LITERALS.get(value.literal, False)
            if value.literal not in _LITERALS:
                breaches.append(Breach(BAD_VALUE, "says neither true nor false of how to write it"))
        if key in {form.table_field, form.individual_field}:
            continue
        name = form.target_name(key)
        if name is None:
            continue
        if name in row:
            breaches.append(Breach(BAD_FORMAT, "has two keys for one column", name))
        elif (breach := _misplaced(name, value, layout)) is not None:
            breaches.append(breach)
        row[name] = value
    return row, forced, breaches


def _misplaced(name: str, value: _Value, layout: JsonLayout) -> Breach | None:
    """Say why a value cannot be the column's, whatever its type."""
    column = layout.known.get(name)
    if column is None or name == STAMP:
        return Breach(BAD_FORMAT, "has a key that the table has no column for")
    if column.computed:
        return Breach(BAD_FORMAT, "has a value that PostgreSQL computes", name)
    if value.text is None and column.not_null and name in layout.counted:
        # Only an absent one may get a value elsewhere; so `convert` is not asked.
        return Breach(NOT_NULL, "has no value, and the table needs one there", name)
    return None


def _converted(
    rows: Sequence[Mapping[str, _Value]], layout: JsonLayout
) -> tuple[tuple[pa.Array, ...], npt.NDArray[np.bool_], dict[int, list[Breach]]]:
    arrays = []
    for column in layout.columns:
        array = _array(rows, column)
        special = is_special(column, layout.form)
        arrays.append(canonical(array, column, layout.form) if special else array)
    # An absent value is no missing one where its absence counts.
    columns = [
        replace(c, not_null=c.not_null and c.name not in layout.counted) for c in layout.columns
    ]
    return convert_columns(arrays, columns, written=True)


def _array(rows: Sequence[Mapping[str, _Value]], column: Column) -> pa.Array:
    values = [row.get(column.name, _NULL) for row in rows]
    if column.base_type in _RAW_TYPES:
        # There a text is JSON too, and 12 and "12" are two things.
        texts = [None if value is _NULL else value.literal for value in values]
    else:
        texts = [value.text for value in values]
    return pa.array([None if t is None else t.encode() for t in texts], pa.binary())
