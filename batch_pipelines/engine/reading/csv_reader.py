"""Reading CSV: block after block, values converted while they are parsed, or strictly where not.

Converting while parsing takes a third of the time of converting afterwards, but cannot say which
record is wrong, and reads 0x10 as 16. So a block in which anything is refused or doubtful is read a
second time, in the strict way that names the place.
"""

from __future__ import annotations

import codecs
import csv
import datetime as dt
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.formats import DEFAULT
from batch_pipelines.engine.reading.blocks import Block, Dialect, read_blocks
from batch_pipelines.engine.reading.chunks import Chunk, convert_columns, loaded
from batch_pipelines.engine.reading.escapes import doubtful, put_words
from batch_pipelines.engine.reading.notation import canonical, is_special, is_textual
from batch_pipelines.engine.rejects import BAD_FORMAT, Breach, Reject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from batch_pipelines.engine.catalog import Column
    from batch_pipelines.engine.formats import Format
    from batch_pipelines.engine.reading.chunks import Raw

# OIDs of the wire types that Arrow's CSV parser reads as exactly as `convert` does: integers, floats,
# text, varchar, date, timestamp, timestamptz. (Hexadecimal, infinity and the year 0 are looked for.)
# Not numeric, of which it takes 1e8 for numeric(10,2), and 205.39 for 1.22 in numeric(38,37).
_WHILE_PARSING = frozenset({20, 21, 23, 25, 700, 701, 1043, 1082, 1114, 1184})
_YEAR_1 = dt.date(1, 1, 1)
# More than all the names that a table of PostgreSQL can have.
_HEADER_BYTES = 1_000_000
_LINE_END = re.compile(rb"\r\n|\r|\n|\Z")
_TO_ASCII = bytes(range(0x80)) + b"?" * 0x80


@dataclass(frozen=True)
class Layout:
    """How a file's records are to be read.

    Attributes:
        columns: The target column of each field, in the file's order; None where it is not loaded.
        form: How the file is written.
        dialect: How its fields are.
        nulls: What means null to the parser, besides an empty field.
    """

    columns: tuple[Column | None, ...]
    form: Format
    dialect: Dialect
    nulls: tuple[str, ...]

    @cached_property
    def kept(self) -> tuple[Column, ...]:
        """The columns that are looked at."""
        return tuple(column for column in self.columns if column is not None)

    @cached_property
    def groups(self) -> dict[bool, dict[str, Column]]:
        """The columns by the names they are parsed under: those whose empty fields are texts, others."""
        found: dict[bool, dict[str, Column]] = {}
        for place, column in enumerate(self.columns):
            if column is not None:
                is_text = is_textual(column) and self.form.empty_is_text(column.name)
                found.setdefault(is_text, {})[str(place)] = column
        return found

    @cached_property
    def hexadecimal(self) -> re.Pattern[bytes]:
        """A field that begins like a hexadecimal number; the parser passes over blanks around one."""
        signs = re.escape(self.dialect.delimiter + self.dialect.quote)
        return re.compile(rb"(?<![^" + signs + rb"\r\n \t])0[xX]")

    def is_parsed(self, column: Column) -> bool:
        """Say whether Arrow's parser reads a column's values as exactly as `convert` does."""
        oid = None if column.wire is None else column.wire.oid
        return oid in _WHILE_PARSING and not is_special(column, self.form)


def csv_names(path: Path, form: Format, file_format: str) -> list[str]:
    """Read the column names of a CSV file.

    Args:
        path: The file.
        form: How it is written.
        file_format: `csv` or `tsv`.

    Returns:
        The names in the file's order.

    Raises:
        DeliveryError: The header cannot be read.
    """
    return _header(path, form, Dialect(*form.signs(file_format)))[0]


def read_csv(
    path: Path, columns: tuple[Column | None, ...], form: Format, file_format: str
) -> Iterator[Chunk]:
    """Read a CSV file from its beginning to its end.

    Args:
        path: The file.
        columns: The target column of each of its columns, in the file's order; None for none.
        form: How it is written.
        file_format: `csv` or `tsv`.

    Yields:
        Its records in order.

    Raises:
        DeliveryError: The header cannot be read, or a record is longer than `blocks.LONGEST`.
    """
    layout = Layout(columns, form, Dialect(*form.signs(file_format)), form.plain_words)
    _, start, lines = _header(path, form, layout.dialect)
    first, index = 1, 0
    for block in read_blocks(path, start, 1 + lines, layout.dialect):
        chunk, total = _read(path.name, block, layout, first, index)
        if total:
            yield chunk
            first, index = first + total, index + 1


def read_raw_csv(
    path: Path, records: Iterable[int], form: Format, file_format: str
) -> Iterator[Raw]:
    """Read some records of a CSV file as they were delivered; see `readers.read_raw`."""
    dialect = Dialect(*form.signs(file_format))
    _, start, lines = _header(path, form, dialect)
    waiting = iter(records)
    record, first = next(waiting, None), 1
    for block in read_blocks(path, start, 1 + lines, dialect):
        total = len(block.starts)
        while record is not None and record < first + total:
            place = record - first
            yield int(block.lines[place]), block.offset + int(block.starts[place]), block.raw(place)
            record = next(waiting, None)
        if record is None:
            return
        first += total


def _header(path: Path, form: Format, dialect: Dialect) -> tuple[list[str], int, int]:
    """Give the column names; also where the first record begins, in bytes and in lines."""
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    start = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
    for _ in range(form.preamble):
        start = _end_of_line(head, start)
    if isinstance(form.header, tuple) and start < _HEADER_BYTES:
        return [*form.header], start, len(head[:start].splitlines())
    while head[start : start + 1] in {b"\r", b"\n"}:
        start += 1
    if start == len(head):
        message = f"{path.name}: the file is empty; expected a header line. Deliver it again."
        raise DeliveryError(message)
    masked, names = dialect.masked(head), None
    header = dialect.record.match(masked, start)
    ending = _LINE_END.match(masked, start if header is None else header.end())
    with suppress(UnicodeDecodeError, csv.Error):
        if header and ending and ending.start() < _HEADER_BYTES:
            names = next(_fields(head[start : header.end()].decode(), dialect))
    if names is None or ending is None:
        encoding = "UTF-8" if form.encoding == DEFAULT.encoding else form.encoding
        message = (
            f"{path.name}:{1 + form.preamble}: the header is not {encoding} CSV. Deliver the file as "
            "the feed's `format:` says; without one, as UTF-8 with commas."
        )
        raise DeliveryError(message)
    return names, ending.end(), len(head[: ending.end()].splitlines())


def _end_of_line(content: bytes, start: int) -> int:
    found = _LINE_END.search(content, start)
    return found.end() if found else len(content)


def _fields(line: str, dialect: Dialect) -> Iterator[list[str]]:
    return csv.reader(
        [line],
        delimiter=dialect.delimiter.decode(),
        quotechar=dialect.quote.decode() or None,
        quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
        escapechar=dialect.escape.decode() or None,
        doublequote=not dialect.escape,
        strict=True,
    )


def _read(
    file_name: str, block: Block, layout: Layout, first: int, index: int
) -> tuple[Chunk, int]:
    """Read a block; also count its records, those that cannot be loaded among them."""
    strange = doubtful(block, layout.form.escaped_words)
    if strange:
        ends = [*block.starts.tolist(), len(block.content)]
        more = [(ends[place], ends[place + 1]) for place in strange]
        block = replace(block, malformed=tuple(sorted([*block.malformed, *more])))
    values, skipped = _parse_exactly(block, layout)
    total = len(values[0]) + len(skipped) + len(block.malformed)
    # Among the regular records first those with a wrong number of fields go, then by their values.
    places = np.delete(np.arange(total), block.set_aside if block.malformed else [])
    wrong = {int(place): [_MALFORMED] for place in block.set_aside} if block.malformed else {}
    wrong |= {place: [_DOUBTFUL] for place in strange}
    for place, fields in skipped:
        wrong[int(places[place])] = [_misfit(fields, len(layout.columns))]
    places = np.delete(places, [place for place, _ in skipped])
    arrays, good, refused = convert_columns(values, layout.kept, written=True)
    wrong |= {int(places[place]): breaches for place, breaches in refused.items()}
    rejects = tuple(
        Reject(
            file_name, first + place, int(block.lines[place]),
            block.offset + int(block.starts[place]), block.raw(place), (*wrong[place],),
        )
        for place in sorted(wrong)
    )  # fmt: skip
    columns = loaded(layout.columns)
    return Chunk(file_name, index, columns, first + places[good], arrays, rejects), total


_MALFORMED = Breach(
    BAD_FORMAT, "a quote is out of place or not closed; a quoted field has to end with a quote"
)

_DOUBTFUL = Breach(
    BAD_FORMAT, "an escape has two readings: before a letter, a digit, a CRLF, or nothing at all"
)


def _misfit(fields: int, expected: int) -> Breach:
    return Breach(BAD_FORMAT, f"{fields} fields where the header has {expected}")


def _parse_exactly(block: Block, layout: Layout) -> tuple[list[pa.Array], list[tuple[int, int]]]:
    """Parse a block, values converted on the way where that is exact, and as bytes where not."""
    content, escape = block.regular, layout.dialect.escape
    if not content.strip(b"\r\n"):
        return [pa.nulls(0) for _ in layout.kept], []
    if layout.form.escaped_words:
        content, word = put_words(content, layout.dialect, layout.form.escaped_words)
        layout = replace(layout, nulls=(*layout.nulls, word))
    masked = layout.dialect.masked(content)
    if not masked.endswith((b"\n", b"\r")):
        # Where the last line does not end, Arrow takes no value at its end for ''.
        content += b"\n"
    if not _is_utf8(content):
        return _parse_undecodable(content, layout)
    # An escape could hide what is hexadecimal.
    if not escape and not _has_hexadecimal(content, layout):
        try:
            values, skipped = _parse(content, layout, typed=True)
        except pa.ArrowInvalid:
            pass
        else:
            if not any(_is_doubtful(each) for each in values):
                return values, skipped
    return _parse(content, layout, typed=False)


def _has_hexadecimal(content: bytes, layout: Layout) -> bool:
    # Searched for, the pattern would look at every 0; such pairs are found in a fraction of the time.
    for pair in (b"0x", b"0X"):
        place = content.find(pair)
        while place >= 0:
            if layout.hexadecimal.match(content, place):
                return True
            place = content.find(pair, place + 2)
    return False


def _is_utf8(content: bytes) -> bool:
    if content.isascii():
        return True
    offsets = pa.py_buffer(np.array([0, len(content)], np.int32))
    try:
        pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(content)]).validate(
            full=True
        )
    except pa.ArrowInvalid:
        return False
    return True


def _parse_undecodable(
    content: bytes, layout: Layout
) -> tuple[list[pa.Array], list[tuple[int, int]]]:
    """Parse whole records that are not all UTF-8, values as bytes.

    Arrow decodes a record with a wrong number of fields to hand it over, and cannot where it is not
    UTF-8. So these are looked for in ASCII, and taken out.
    """
    _, skipped = _parse(content.translate(_TO_ASCII), layout, typed=False)
    if skipped:
        starts = [*Block(content, 0, 1, layout.dialect).starts.tolist(), len(content)]
        misfits = tuple((starts[place], starts[place + 1]) for place, _ in skipped)
        content = Block(content, 0, 1, layout.dialect, misfits).regular or b"\n"
    return _parse(content, layout, typed=False)[0], skipped


def _parse(
    content: bytes, layout: Layout, *, typed: bool
) -> tuple[list[pa.Array], list[tuple[int, int]]]:
    """Parse whole records; also give index and number of fields of those that were passed over."""
    if content.startswith(codecs.BOM_UTF8):
        # Behind an empty line it is a value's; where it comes first, Arrow drops it.
        content = b"\n" + content
    found: dict[str, pa.Array] = {}
    for empty_is_text, columns in layout.groups.items():
        # Each time the same are passed over.
        skipped: list[tuple[int, int]] = []
        batch = _parse_some(content, layout, columns, skipped, empty_is_text, typed=typed)
        found |= zip(columns, batch.columns, strict=True)
    values = [found[name] for name in sorted(found, key=int)]
    special = [
        canonical(array, column, layout.form) if is_special(column, layout.form) else array
        for array, column in zip(values, layout.kept, strict=True)
    ]
    return special, skipped


def _parse_some(
    content: bytes, layout: Layout, columns: Mapping[str, Column], skipped: list[tuple[int, int]],
    empty_is_text: bool, *, typed: bool,
) -> pa.RecordBatch:  # fmt: skip
    """Parse some columns, in which an empty field means the same."""
    dialect, words = layout.dialect, [*layout.nulls]

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        skipped.append((row.number - 1, row.actual_columns))
        return "skip"

    table = pyarrow.csv.read_csv(
        pa.BufferReader(content),
        read_options=pyarrow.csv.ReadOptions(
            column_names=[str(place) for place in range(len(layout.columns))],
            block_size=len(content) + 1,
            use_threads=False,
        ),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=dialect.delimiter.decode(),
            quote_char=dialect.quote.decode() or False,
            escape_char=dialect.escape.decode() or False,
            double_quote=not dialect.escape,
            newlines_in_values=True,
            invalid_row_handler=skip,
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=[*columns],
            column_types={
                name: _arrow_type(column, layout, typed=typed) for name, column in columns.items()
            },
            check_utf8=typed,
            null_values=words if empty_is_text else ["", *words],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], table.schema)


def _arrow_type(column: Column, layout: Layout, *, typed: bool) -> pa.DataType:
    if typed and column.wire is None and not is_special(column, layout.form):
        return pa.string()
    if typed and column.wire is not None and layout.is_parsed(column):
        return column.wire.arrow
    return pa.binary()


def _is_doubtful(values: pa.Array) -> bool:
    """Find what the strict way has to tell: infinity or a number too large; the year 0, or not."""
    if pa.types.is_floating(values.type):
        return bool(pc.any(pc.is_inf(values)).as_py())
    if pa.types.is_date(values.type) or pa.types.is_timestamp(values.type):
        year_1 = pa.scalar(_YEAR_1).cast(values.type)
        return bool(pc.any(pc.less(values, year_1)).as_py())
    return False
