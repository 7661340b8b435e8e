"""The second reader (DuckDB): it reads the source again, and shares no code with the reader that loads.

What lives here: queries over the staged files of all formats, their values cast to the columns' types.
What does not: what is asked (`aggregates`), and what DuckDB does not read by itself (`csv_again`,
`json_again`, `columnar_again`).
"""

from __future__ import annotations

import shutil
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

import pyarrow as pa
import pyarrow.parquet as pq

from batch_pipelines.engine.errors import ValidationError
from batch_pipelines.engine.formats import COLUMNAR
from batch_pipelines.engine.reading.aggregates import aggregates_of, recipe
from batch_pipelines.engine.reading.csv_again import (
    csv_header,
    literal,
    quoted,
    readable_again,
    scan_csv,
)
from batch_pipelines.engine.reading.json_again import rewrite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import duckdb

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.ledger.rejects import LeftOut
    from batch_pipelines.engine.reading.aggregates import Aggregate
    from batch_pipelines.engine.writing.source import TableSource

# The second reader's own limits: one thread and this much memory keep a run's memory flat; what does
# not fit (the keys of millions of rows) goes to a folder of its own. What cannot be done with so little
# (records of megabytes) is done with more.
_MEMORY, _MORE_MEMORY = "64MB", ("128MB", "256MB", "1GB")
_MEMORY_WITHOUT_CSV = "32MB"  # there are no buffers for lines then
_DUCKDB: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_BOOLEAN, _BLOB, _PARQUET, _JSON_LINES = "BOOLEAN", "BLOB", "parquet", "jsonl"
_FRACTIONS = ("FLOAT", "DOUBLE", "DECIMAL")
_INSTANTS = frozenset({"TIMESTAMP", "TIMESTAMPTZ"})


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
        # Whether there may be times without minutes: looking at each would take a quarter longer.
        self._bare_hours = False
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
        return aggregates_of(self._source.told, self._totals[1:])

    @cached_property
    def _totals(self) -> tuple[str, ...]:
        """Count the records and aggregate all columns in one reading."""
        parts = ["count(*)"]
        for place, column in enumerate(self._source.told):
            name, own = f"v{place}", recipe(column)
            parts.append(f"count({name})")
            total = None if own is None else own.duckdb_sum
            order = None if own is None else own.duckdb_order
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
        header = csv_header(path, form, file.format)
        left_out = self._left_out.get(file.file_name)
        path = readable_again(path, header, form, file.format, left_out, self._spill)
        scan = scan_csv(path, header, self._source, file.format)
        places = ", ".join(f"c{place}" for place in range(len(header.names)))
        # By place and not by name: to DuckDB names that differ in case only are the same.
        targets = [form.target_name(name) for name in header.names]
        columns = ", ".join(
            f"{self._cast(c, f'c{targets.index(c.name)}', written=True, text=True)} AS v{place}"
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
            scan = f"read_parquet([{literal(path)}], hive_partitioning=false{more})"
        else:
            from batch_pipelines.engine.reading.columnar_again import read_again  # noqa: PLC0415

            reader, scan = read_again(path, file.format, sorted(at)), f"read_again_{number}"
            written = {place: _is_text(reader.schema.field(f"c{place}").type) for place in at}
            places = reader.schema.names
            self._duckdb.register(scan, reader)
        columns = ", ".join(
            f"{self._cast(c, f'c{p}', written=written[p], text=False)} AS v{place}"
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
            f"{self._cast(c, f'c{place}', written=True, text=True)} AS v{place}"
            for place, c in enumerate(columns)
        ]
        return f"SELECT {', '.join(['record', *values])} FROM read_parquet([{literal(target)}])"

    def columns(self, file: ImportFile) -> list[str]:
        """List the table's names of the columns that a file brings; see `source_columns`."""
        if file.format != _JSON_LINES:
            return source_columns(self._source, file)
        self._json_lines(file)
        return sorted(self._brought[file.file_name])

    def _ask(self, asked: str) -> list[tuple[str, ...]]:
        import duckdb  # noqa: PLC0415

        more = iter(_MORE_MEMORY)
        while True:
            try:
                # Made anew each time: some of the rows are read for one query alone.
                return self._duckdb.execute(asked.format(rows=self._rows())).fetchall()
            except duckdb.OutOfMemoryException:
                if (size := next(more, None)) is None:
                    raise
                self._duckdb.execute(f"SET memory_limit = '{size}'")
            except duckdb.ConversionException:
                if self._bare_hours:
                    raise
                self._bare_hours = True

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

    def _cast(self, column: Column, name: str, *, written: bool, text: bool) -> str:
        form = self._source.form
        own = recipe(column)
        if own is None:
            return f"{name}::VARCHAR"
        kind = own.duckdb_type
        pattern = form.dates if kind == "DATE" else form.timestamps if kind in _INSTANTS else None
        if text and pattern is not None:
            # Its own %z knows no Z.
            name = f"regexp_replace({name}, 'Z$', '+00')" if "%z" in pattern else name
            name = f"strptime({name}, {quoted(pattern)})"
        elif kind in _INSTANTS and written and self._bare_hours:
            # DuckDB wants minutes, the other reader does without: 2013-01-01 05.
            whole = rf"regexp_replace({name}, '([ T]\d\d)(Z|[+-].*)?$', '\1:00\2')"
            return f"coalesce(try_cast({name} AS {kind}), {whole}::{kind})"
        elif kind == _BLOB and written:
            return f"from_hex({name}[3:])"
        elif kind == _BOOLEAN and written:
            # PostgreSQL's other two words for them, which DuckDB does not know.
            words = "WHEN 'on' THEN true WHEN 'off' THEN false"
            return f"CASE lower({name}) {words} ELSE {name}::BOOLEAN END"
        elif text and form.decimal == "," and kind.startswith(_FRACTIONS):
            name = f"replace({name}, ',', '.')"
        return f"{name}::{kind}"


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
        names = csv_header(path, form, file.format).names
    return [target for name in names if (target := form.target_name(name)) is not None]
