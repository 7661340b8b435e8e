"""Exact aggregates of a column, asked of PostgreSQL and, of the source, by a second reader (DuckDB).

The source is read again from the staged files by a program that shares no code with the reader that
loads. Both sides count the values, add them up where addition is exact, and give the smallest and
the largest; those two leave this module only as hashes, because they are values of rows.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import re
import shutil
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import sql

from batch_pipelines.engine.errors import ValidationError
from batch_pipelines.engine.formats import COLUMNAR
from batch_pipelines.engine.reading.blocks import BLOCK_BYTES, LONGEST
from batch_pipelines.engine.reading.json_again import rewrite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import duckdb

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.formats import Format
    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.ledger.rejects import LeftOut
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.source import TableSource

# The second reader's own limits: one thread and this much memory keep a run's memory flat; what does
# not fit (the keys of millions of rows) goes to a folder of its own. What cannot be done with so little
# (records of megabytes) is done with more. A line may be as long as the loading reader's block.
_MEMORY, _MORE_MEMORY = "64MB", ("128MB", "256MB", "1GB")
_MEMORY_WITHOUT_CSV = "32MB"  # there are no buffers for lines then
_DUCKDB: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


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
class _Recipe:
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


_INTEGER = _Recipe("BIGINT", "sum({c})", "sum({c}::HUGEINT)", "{c}", "{c}")
_TEXT = _Recipe(
    "VARCHAR", "sum(octet_length({c}))", "sum(strlen({c}))", '{c} COLLATE "C"', "{c}"
)  # fmt: skip
# Floats: the order of addition would show in a sum. Their bounds are compared as Python reads them, so
# that no side's way of printing them matters.
_FLOAT8 = _Recipe("DOUBLE", None, None, "{c}", "{c}")
_FLOAT4 = _Recipe("FLOAT", None, None, "{c}::float8", "{c}::DOUBLE")
_EPOCH_SUM = "(sum(extract(epoch FROM {c})) * 1000000)::numeric(38)"
_EPOCH = "(extract(epoch FROM {b}) * 1000000)::bigint"
_BOOLEAN, _BLOB, _PARQUET, _JSON_LINES = "BOOLEAN", "BLOB", "parquet", "jsonl"
_FRACTIONS = ("FLOAT", "DOUBLE", "DECIMAL")
_TEXTS = frozenset({"text", "character varying", "character", "bpchar", "citext"})
_INSTANTS = frozenset({"TIMESTAMP", "TIMESTAMPTZ"})
_RECIPES: Mapping[int, _Recipe] = {
    16: _Recipe(
        _BOOLEAN, "count(*) FILTER (WHERE {c})", "count(*) FILTER (WHERE {c})", None, None
    ),
    17: _Recipe(_BLOB, "sum(octet_length({c}))", "sum(octet_length({c}))", None, None),
    20: _INTEGER,
    21: _INTEGER,
    23: _INTEGER,
    25: _TEXT,
    1043: _TEXT,
    700: _FLOAT4,
    701: _FLOAT8,
    1082: _Recipe(
        "DATE", "sum({c} - date '1970-01-01')", "sum(epoch({c})::BIGINT // 86400)",
        "{c} - date '1970-01-01'", "epoch({c})::BIGINT // 86400",
    ),
    1083: _Recipe(
        "TIME", "(sum(extract(epoch FROM {c})) * 1000000)::bigint", "sum(epoch_us({c}))", "{c}", "{c}"
    ),
    1114: _Recipe(
        "TIMESTAMP", _EPOCH_SUM, "sum(epoch_us({c}))", "{c}", "epoch_us({c})", _EPOCH
    ),
    1184: _Recipe(
        "TIMESTAMPTZ", _EPOCH_SUM, "sum(epoch_us({c}))", "{c}", "epoch_us({c})", _EPOCH
    ),
    2950: _Recipe("UUID", None, None, '{c}::text COLLATE "C"', "{c}::VARCHAR"),
}  # fmt: skip
_NUMERIC_OID = 1700
_ADDABLE_DIGITS = 28
_FEW = 5
_NEWLINE, _RETURN = 0x0A, 0x0D
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
# Stands for null words with an escape. Should a file hold it itself, the readers do not agree.
_WORD = "\x1a\x1aN"


def target_statement(
    source: TableSource, columns: Sequence[Column], where: sql.Composable
) -> sql.Composed:
    """Write the statement that aggregates columns of a batch's rows.

    Args:
        source: Says which table.
        columns: One or more columns of it.
        where: The condition that tells the batch's rows, as `catalog.stamped_by` writes it.

    Returns:
        A SELECT of one row: for each column count, sum, smallest and largest, as text.
    """
    return _select(source, _parts(columns), where)


def _parts(columns: Sequence[Column]) -> list[sql.Composable]:
    parts: list[sql.Composable] = []
    for column in columns:
        name, recipe = sql.Identifier(column.name), _recipe(column)
        parts.append(sql.SQL("count({})").format(name))
        total = "NULL" if recipe is None or recipe.pg_sum is None else f"({recipe.pg_sum})::text"
        order = None if recipe is None else recipe.pg_order
        shown = "{b}" if recipe is None else recipe.pg_bound
        low, high = (
            f"({shown.format(b=f'{bound}({order})')})::text" if order else "NULL"
            for bound in ("min", "max")
        )
        # The templates are constants of this module; the column's name is quoted by the driver.
        parts += [sql.SQL(text).format(c=name) for text in (total, low, high)]
    return parts


def _select(
    source: TableSource, parts: Sequence[sql.Composable], where: sql.Composable
) -> sql.Composed:
    return sql.SQL("SELECT {} FROM {} WHERE {}").format(
        sql.SQL(", ").join(parts), source.table.identifier, where
    )


def target_aggregates(
    connection: Connection, source: TableSource, where: sql.Composable
) -> tuple[int, dict[str, Aggregate]]:
    """Count a batch's rows and aggregate all columns that the source tells, in one scan.

    Args:
        connection: A connection.
        source: Says which table and columns.
        where: The condition that tells the batch's rows.

    Returns:
        How many rows, and an aggregate for each column name.
    """
    parts = [sql.SQL("count(*)"), *_parts(source.told)]
    rows, *totals = connection.execute(_select(source, parts, where)).fetchone() or (0,)
    return int(rows), _aggregates(source.told, totals)


class SecondReader:
    """Reads staged files once more, through DuckDB and without what was set aside; close it after use.

    Args:
        source: The files.
        left_out: What was set aside of each, by its name.
        key: Columns of the table's key, where they are delivered.
    """

    def __init__(
        self,
        source: TableSource,
        left_out: Mapping[str, LeftOut] = MappingProxyType({}),
        key: Sequence[str] = (),
    ) -> None:
        # A seventh of a second to import, which only validation needs.
        import duckdb  # noqa: PLC0415

        self._source, self._key = source, key
        self._left_out = {name: out for name, out in left_out.items() if len(out.records)}
        self._spill = source.folder.parent / "second_reader"
        self._brought: dict[str, frozenset[str]] = {}
        columnar = all(file.format in COLUMNAR for file in source.files)
        memory = _MEMORY_WITHOUT_CSV if columnar else _MEMORY
        self._duckdb: duckdb.DuckDBPyConnection = duckdb.connect(
            config=_DUCKDB | {"temp_directory": str(self._spill), "memory_limit": memory}
        )
        self._duckdb.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._duckdb.close()
        shutil.rmtree(self._spill, ignore_errors=True)

    def records(self) -> int:
        """Count the records of all files."""
        return int(self._totals[0])

    def duplicates(self) -> int:
        """Count the records whose key an earlier one has.

        A reading of its own: grouped, the keys of millions of records go to disk; counted as distinct
        ones beside the aggregates, they would have to fit into memory.
        """
        places = [column.name for column in self._source.told]
        key = ", ".join(f"v{places.index(name)}" for name in self._key)
        if not key:
            return 0
        twice = f"SELECT count(*) AS n FROM ({{rows}}) GROUP BY {key} HAVING count(*) > 1"
        return int(self._one(f"SELECT coalesce(sum(n - 1), 0) FROM ({twice})")[0])

    def aggregates(self) -> dict[str, Aggregate]:
        """Aggregate all columns."""
        return _aggregates(self._source.told, self._totals[1:])

    @cached_property
    def _totals(self) -> tuple[str, ...]:
        """Count the records and aggregate all columns in one reading."""
        parts = ["count(*)"]
        for place, column in enumerate(self._source.told):
            name, recipe = f"v{place}", _recipe(column)
            parts.append(f"count({name})")
            total = None if recipe is None else recipe.duckdb_sum
            order = None if recipe is None else recipe.duckdb_order
            parts.append(f"({total.format(c=name)})::VARCHAR" if total else "NULL")
            for bound in ("min", "max"):
                ordered = order.format(c=name) if order else None
                parts.append(f"({bound}({ordered}))::VARCHAR" if ordered else "NULL")
        return self._one(f"SELECT {', '.join(parts)} FROM ({{rows}})")

    def _rows(self) -> str:
        """Write a query over all files: `v0`, `v1` ... are the source's columns, in their types."""
        return " UNION ALL ".join(self._file(file) for file in self._source.files)

    def _file(self, file: ImportFile) -> str:
        path, form = self._source.paths[file.file_name], self._source.form
        if file.format == _JSON_LINES:
            return self._json_lines(file)
        if file.format in COLUMNAR:
            return self._columnar(file)
        left_out = self._left_out.get(file.file_name)
        header = _csv_header(path, form, file.format)
        out = [] if left_out is None else [left_out.offsets, left_out.offsets + left_out.sizes]
        if left_out is not None or header.preamble or form.escaped_words:
            path = self._without(path, header.preamble, *(each.tolist() for each in out))
        if form.escaped_words:
            path = self._with_words(path, file.format)
        if _has_lone_returns(path):
            path = self._with_line_feeds(path, file.format)
        scan = _csv(path, header, self._source, file.format)
        places = ", ".join(f"c{place}" for place in range(len(header.names)))
        # By place and not by name: to DuckDB names that differ in case only are the same.
        targets = [form.target_name(name) for name in header.names]
        columns = ", ".join(
            f"{_cast(c, f'c{targets.index(c.name)}', form, written=True, text=True)} AS v{place}"
            for place, c in enumerate(self._source.told)
        )
        return f"SELECT {columns} FROM {scan} AS t({places})"

    def _columnar(self, file: ImportFile) -> str:
        """Write the query over a columnar file, a part of which may be read for this query alone."""
        path, form = self._source.paths[file.file_name], self._source.form
        number, left_out = self._source.files.index(file), self._left_out.get(file.file_name)
        targets = [form.target_name(name) for name in _columnar_names(path, file.format)]
        at = [targets.index(column.name) for column in self._source.told]
        if file.format == _PARQUET:
            kinds = pq.read_schema(path).types
            written = {place: _is_text(kinds[place]) for place in at}
            places = [f"c{place}" for place in range(len(targets))]
            more = ""
            if left_out is not None:
                places, more = [*places, "number"], ", file_row_number=true"
            scan = f"read_parquet([{_literal(path)}], hive_partitioning=false{more})"
        else:
            from batch_pipelines.engine.reading.columnar_again import read_again  # noqa: PLC0415

            reader, scan = read_again(path, file.format, sorted(at)), f"read_again_{number}"
            written = {place: _is_text(reader.schema.field(f"c{place}").type) for place in at}
            places = reader.schema.names
            self._duckdb.register(scan, reader)
        columns = ", ".join(
            f"{_cast(c, f'c{p}', form, written=written[p], text=False)} AS v{place}"
            for place, (c, p) in enumerate(zip(self._source.told, at, strict=True))
        )
        query = f"SELECT {columns} FROM {scan} AS t({', '.join(places)})"
        if left_out is None:
            return query
        name = f"left_out_{number}"
        self._duckdb.register(name, pa.table({"record": left_out.records}))
        return f"{query} WHERE number + 1 NOT IN (SELECT record FROM {name})"

    def _json_lines(self, file: ImportFile) -> str:
        """Have a file of JSON lines rewritten, and write the query over that."""
        form, columns = self._source.form, self._source.told
        target = self._spill / f"{self._source.files.index(file)}.parquet"
        if not target.exists():
            self._spill.mkdir(exist_ok=True)
            layout, left_out = self._source.layout, self._left_out.get(file.file_name)
            self._brought[file.file_name] = rewrite(
                self._source.paths[file.file_name], target, [c.name for c in columns], form,
                None if layout is None else layout.route,
                *(() if left_out is None else (left_out.records,)),
            )  # fmt: skip
        values = [
            f"{_cast(c, f'c{place}', form, written=True, text=True)} AS v{place}"
            for place, c in enumerate(columns)
        ]
        return f"SELECT {', '.join(['record', *values])} FROM read_parquet([{_literal(target)}])"

    def columns(self, file: ImportFile) -> list[str]:
        """List the table's names of the columns that a file brings; see `source_columns`."""
        if file.format != _JSON_LINES:
            return source_columns(self._source, file)
        self._json_lines(file)
        return sorted(self._brought[file.file_name])

    def _without(
        self, path: Path, preamble: int, starts: Sequence[int] = (), ends: Sequence[int] = ()
    ) -> Path:
        """Copy a file without what stands before its header and the records that were set aside."""
        self._spill.mkdir(exist_ok=True)
        copied = self._spill / path.name
        if copied.exists():
            return copied
        with path.open("rb") as reading, copied.open("wb") as writing:
            reading.seek(preamble)
            for start, end in zip(starts, ends, strict=True):
                _copy(reading, writing, start - reading.tell())
                reading.seek(end)
            shutil.copyfileobj(reading, writing)
        return copied

    def _with_words(self, path: Path, file_format: str) -> Path:
        """Copy a file, with a word that DuckDB can tell for what is an escape and a letter."""
        copied = path.with_name(f"{path.name}.words")
        if copied.exists():
            return copied
        delimiter, _, escape = (re.escape(sign) for sign in self._source.form.signs(file_format))
        letters = "".join(word[1:] for word in self._source.form.escaped_words).encode()
        ends = delimiter + rb"\r\n"
        word = re.compile(
            rb"(?<![^" + ends + rb"])" + escape + rb"[" + letters + rb"](?![^" + ends + rb"])"
        )
        with path.open("rb") as reading, copied.open("wb") as writing:
            # Whole lines, so that none is cut.
            while piece := reading.read(BLOCK_BYTES):
                writing.write(word.sub(_WORD.encode(), piece + reading.readline(LONGEST)))
        return copied

    def _with_line_feeds(self, path: Path, file_format: str) -> Path:
        """Copy a file, with LF for each CR that ends a record.

        Where others end with CRLF, DuckDB takes whatever follows such a CR for an LF.
        """
        copied = self._spill / f"{path.name}.lines"
        if copied.exists():
            return copied
        self._spill.mkdir(exist_ok=True)
        _, quote, escape = self._source.form.signs(file_format)
        quotes = 0
        with path.open("rb") as reading, copied.open("wb") as writing:
            while piece := reading.read(BLOCK_BYTES):
                piece += reading.readline(LONGEST)
                masked = _ESCAPED.sub(b"..", piece) if escape else piece
                signs = np.frombuffer(masked + b"\0", np.uint8)
                lone = (signs[:-1] == _RETURN) & (signs[1:] != _NEWLINE)
                if quote:
                    before = quotes + np.cumsum(signs[:-1] == quote[0])
                    quotes, lone = int(before[-1]), lone & (before % 2 == 0)
                content = np.frombuffer(piece, np.uint8).copy()
                content[lone] = _NEWLINE
                writing.write(content.tobytes())
        return copied

    def _ask(self, asked: str) -> list[tuple[str, ...]]:
        import duckdb  # noqa: PLC0415

        for more in _MORE_MEMORY:
            try:
                # Made anew each time: some of the rows are read for one query alone.
                return self._duckdb.execute(asked.format(rows=self._rows())).fetchall()
            except duckdb.OutOfMemoryException:
                self._duckdb.execute(f"SET memory_limit = '{more}'")
        return self._duckdb.execute(asked.format(rows=self._rows())).fetchall()

    def _one(self, asked: str) -> tuple[str, ...]:
        """Ask for one row of what `{rows}` stands for, all rows."""
        import duckdb  # noqa: PLC0415

        try:
            rows = self._ask(asked)
        except duckdb.Error as error:
            # DuckDB's text quotes the line it stumbled over, so it is not repeated.
            names = ", ".join(file.file_name for file in self._source.files)
            message = (
                f"{names}: the second reader could not read the source ({type(error).__name__}). "
                "The rows are published but not validated."
            )
            raise ValidationError(message) from None
        (row,) = rows  # an aggregate without GROUP BY has one row
        return tuple(row)


def _has_lone_returns(path: Path) -> bool:
    """Find a CR without an LF behind it; none is where lines are read whole."""
    with path.open("rb") as reading:
        while piece := reading.read(BLOCK_BYTES):
            if b"\r" in piece:
                piece += reading.readline(LONGEST)
                if piece.count(b"\r") > piece.count(b"\r\n"):
                    return True
    return False


def _copy(reading: BinaryIO, writing: BinaryIO, size: int) -> None:
    while size > 0:
        piece = reading.read(min(size, BLOCK_BYTES))
        writing.write(piece)
        size -= len(piece)


def _cast(column: Column, name: str, form: Format, *, written: bool, text: bool) -> str:
    recipe = _recipe(column)
    if recipe is None:
        return f"{name}::VARCHAR"
    kind = recipe.duckdb_type
    pattern = form.dates if kind == "DATE" else form.timestamps if kind in _INSTANTS else None
    if text and pattern is not None:
        # Its own %z knows no Z.
        name = f"regexp_replace({name}, 'Z$', '+00')" if "%z" in pattern else name
        name = f"strptime({name}, {_quoted(pattern)})"
    elif kind in _INSTANTS and written:
        # DuckDB wants minutes, the other reader does without: 2013-01-01 05.
        whole = rf"regexp_replace({name}, '([ T]\d\d)(Z|[+-].*)?$', '\1:00\2')"
        return f"coalesce(try_cast({name} AS {kind}), {whole}::{kind})"
    elif kind == _BLOB and written:
        return f"from_hex({name}[3:])"
    elif kind == _BOOLEAN and written:
        # PostgreSQL's other two words for them, which DuckDB does not know.
        return (
            f"CASE lower({name}) WHEN 'on' THEN true WHEN 'off' THEN false ELSE {name}::BOOLEAN END"
        )
    elif text and form.decimal == "," and kind.startswith(_FRACTIONS):
        name = f"replace({name}, ',', '.')"
    return f"{name}::{kind}"


@dataclass(frozen=True)
class _Header:
    """The column names; how many bytes come before, and how many empty lines then."""

    names: list[str]
    preamble: int
    empty_lines: int


def _csv(path: Path, header: _Header, source: TableSource, file_format: str) -> str:
    """Write what scans a file."""
    form, names = source.form, header.names
    null_words = [*form.plain_words, *([_WORD] if form.escaped_words else [])]
    delimiter, quote, escape = (sign.decode() for sign in form.signs(file_format))
    columns = ", ".join(f"c{place}: 'VARCHAR'" for place in range(len(names)))
    texts = [
        place
        for place, name in enumerate(names)
        for column in source.columns
        if column.name == form.target_name(name)
        and column.base_type in _TEXTS
        and form.empty_is_text(column.name)
    ]

    def scan(*nulls: str, not_null: Sequence[int] = ()) -> str:
        # Nothing is left to be guessed: DuckDB would take lines that begin with # for comments.
        more = ", ".join(f"'c{place}'" for place in not_null)
        return (
            f"read_csv([{_literal(path)}], compression='none', auto_detect=false, "
            f"columns={{{columns}}}, header={'true' if form.header is True else 'false'}, "
            f"skip={header.empty_lines}, delim={_quoted(delimiter)}, quote={_quoted(quote)}, "
            f"escape={_quoted(escape or quote)}, nullstr=[{', '.join(map(_quoted, nulls))}], "
            f"allow_quoted_nulls=false{f', force_not_null=[{more}]' if more else ''}, "
            "strict_mode=false, parallel=false, hive_partitioning=false, "
            f"max_line_size={LONGEST}, buffer_size={LONGEST})"
        )

    if len(names) == 1:
        # An empty line, which DuckDB reads as a null, is no record to us.
        if not null_words:
            return f"(SELECT c0 FROM {scan('')} WHERE c0 IS NOT NULL)"
        both = f"{scan('')} AS a POSITIONAL JOIN {scan('', *null_words)} AS b"
        return f"(SELECT b.c0 FROM {both} WHERE a.c0 IS NOT NULL)"
    if texts and null_words:
        # It takes the same words for null in all columns. So they are read twice, side by side.
        taken = (f"{'b' if place in texts else 'a'}.c{place}" for place in range(len(names)))
        both = f"{scan('', *null_words)} AS a POSITIONAL JOIN {scan(*null_words)} AS b"
        return f"(SELECT {', '.join(taken)} FROM {both})"
    return scan("", *null_words, not_null=texts)


def _columnar_names(path: Path, file_format: str) -> list[str]:
    if file_format == _PARQUET:
        return list(pq.read_schema(path).names)
    # Two more packages to import, which only these formats need.
    from batch_pipelines.engine.reading.columnar_again import names_again  # noqa: PLC0415

    return names_again(path, file_format)


def _is_text(kind: pa.DataType) -> bool:
    """Say whether values of an Arrow type are written out as text."""
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_one(kind) for is_one in texts)


def _literal(path: Path) -> str:
    # A bracket makes a wildcard in a file's name stand for itself.
    return _quoted(re.sub(r"([*?\[])", r"[\1]", str(path)))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def source_columns(source: TableSource, file: ImportFile) -> list[str]:
    """List the columns that a file brings, without the reader that loads.

    Args:
        source: Says how it is written, and where it is.
        file: The file.

    Returns:
        The table's names of them, in the file's order.
    """
    path, form = source.paths[file.file_name], source.form
    if file.format in COLUMNAR:
        names = _columnar_names(path, file.format)
    else:
        names = _csv_header(path, form, file.format).names
    return [target for name in names if (target := form.target_name(name)) is not None]


def _csv_header(path: Path, form: Format, file_format: str) -> _Header:
    delimiter, quote, escape = (sign.decode() for sign in form.signs(file_format))
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        before = [lines.readline() for _ in range(form.preamble)]
        size = len("".join(before).encode("utf-8", "surrogateescape"))
        if size:
            with path.open("rb") as file:
                size += len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0
        if isinstance(form.header, tuple):
            return _Header([*form.header], size, 0)
        rows = csv.reader(
            lines,
            delimiter=delimiter,
            quotechar=quote or None,
            quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
            escapechar=escape or None,
            doublequote=not escape,
        )
        return next(_Header(row, size, place) for place, row in enumerate(rows) if row)


def _recipe(column: Column) -> _Recipe | None:
    if column.wire is None:
        return None
    if column.wire.oid == _NUMERIC_OID:
        kind = column.type_name.replace("numeric", "DECIMAL")
        # DuckDB adds decimals up in 38 digits, which leaves 10 for the number of rows.
        total = "sum({c})" if column.wire.arrow.precision <= _ADDABLE_DIGITS else None
        return _Recipe(kind, total, total, "{c}", "{c}")
    return _RECIPES[column.wire.oid]


def _aggregates(columns: Sequence[Column], row: Sequence[object]) -> dict[str, Aggregate]:
    found = {}
    for place, column in enumerate(columns):
        values, total, low, high = row[4 * place : 4 * place + 4]
        if low is not None and _recipe(column) in {_FLOAT4, _FLOAT8}:
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
