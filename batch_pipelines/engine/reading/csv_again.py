"""CSV for the second reader: its header, the statement that scans it, and what DuckDB reads otherwise.

What lives here: copies of files in which records that were set aside, escaped words for null and lone
carriage returns are mended. What does not: types (`second_reader`).
"""

from __future__ import annotations

import codecs
import csv
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from batch_pipelines.engine.reading.blocks import BLOCK_BYTES, LONGEST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from batch_pipelines.engine.formats import Format
    from batch_pipelines.engine.ledger.rejects import LeftOut
    from batch_pipelines.engine.writing.source import TableSource

_TEXTS = frozenset({"text", "character varying", "character", "bpchar", "citext"})
_NEWLINE, _RETURN = 0x0A, 0x0D
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
# Stands for null words with an escape. Should a file hold it itself, the readers do not agree.
_WORD = "\x1a\x1aN"


@dataclass(frozen=True)
class Header:
    """The column names; how many bytes come before, and how many empty lines then."""

    names: list[str]
    preamble: int
    empty_lines: int


def csv_header(path: Path, form: Format, file_format: str) -> Header:
    """Read a file's header, without the reader that loads.

    Args:
        path: The file.
        form: How it is written.
        file_format: Its format.
    """
    delimiter, quote, escape = (sign.decode() for sign in form.signs(file_format))
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        before = [lines.readline() for _ in range(form.preamble)]
        size = len("".join(before).encode("utf-8", "surrogateescape"))
        if size:
            with path.open("rb") as file:
                size += len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0
        if isinstance(form.header, tuple):
            return Header([*form.header], size, 0)
        rows = csv.reader(
            lines,
            delimiter=delimiter,
            quotechar=quote or None,
            quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
            escapechar=escape or None,
            doublequote=not escape,
        )
        return next(Header(row, size, place) for place, row in enumerate(rows) if row)


def scan_csv(path: Path, header: Header, source: TableSource, file_format: str) -> str:
    """Write what scans a file.

    Args:
        path: The file, as `readable_again` gives it.
        header: Its header.
        source: Says how it is written, and which columns hold text.
        file_format: Its format.

    Returns:
        What stands after FROM; the columns come in the file's order, as text.
    """
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
            f"read_csv([{literal(path)}], compression='none', auto_detect=false, "
            f"columns={{{columns}}}, header={'true' if form.header is True else 'false'}, "
            f"skip={header.empty_lines}, delim={quoted(delimiter)}, quote={quoted(quote)}, "
            f"escape={quoted(escape or quote)}, nullstr=[{', '.join(map(quoted, nulls))}], "
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


def literal(path: Path) -> str:
    """Write a path as DuckDB's readers take it."""
    # A bracket makes a wildcard in a file's name stand for itself.
    return quoted(re.sub(r"([*?\[])", r"[\1]", str(path)))


def quoted(text: str) -> str:
    """Write a text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def readable_again(
    path: Path,
    header: Header,
    form: Format,
    file_format: str,
    left_out: LeftOut | None,
    spill: Path,
) -> Path:
    """Make what DuckDB cannot read right readable, in copies.

    Args:
        path: The file.
        header: Its header.
        form: How it is written.
        file_format: Its format.
        left_out: What was set aside of it; None where nothing was.
        spill: The folder for copies.

    Returns:
        The file, or a copy of it.
    """
    if left_out is not None or header.preamble or form.escaped_words:
        path = _without(path, header.preamble, left_out, spill)
    if form.escaped_words:
        path = _with_words(path, form, file_format)
    if _has_lone_returns(path):
        path = _with_line_feeds(path, form, file_format, spill)
    return path


def _without(path: Path, preamble: int, left_out: LeftOut | None, spill: Path) -> Path:
    """Copy a file without what stands before its header and the records that were set aside."""
    spill.mkdir(exist_ok=True)
    copied = spill / path.name
    if copied.exists():
        return copied
    starts, ends = [], []
    if left_out is not None:
        starts = left_out.offsets.tolist()
        ends = (left_out.offsets + left_out.sizes).tolist()
    with path.open("rb") as reading, copied.open("wb") as writing:
        reading.seek(preamble)
        for start, end in zip(starts, ends, strict=True):
            _copy(reading, writing, start - reading.tell())
            reading.seek(end)
        shutil.copyfileobj(reading, writing)
    return copied


def _with_words(path: Path, form: Format, file_format: str) -> Path:
    """Copy a file, with a word that DuckDB can tell for what is an escape and a letter."""
    copied = path.with_name(f"{path.name}.words")
    if copied.exists():
        return copied
    delimiter, _, escape = (re.escape(sign) for sign in form.signs(file_format))
    letters = "".join(word[1:] for word in form.escaped_words).encode()
    ends = delimiter + rb"\r\n"
    word = re.compile(
        rb"(?<![^" + ends + rb"])" + escape + rb"[" + letters + rb"](?![^" + ends + rb"])"
    )
    with path.open("rb") as reading, copied.open("wb") as writing:
        # Whole lines, so that none is cut.
        while piece := reading.read(BLOCK_BYTES):
            writing.write(word.sub(_WORD.encode(), piece + reading.readline(LONGEST)))
    return copied


def _with_line_feeds(path: Path, form: Format, file_format: str, spill: Path) -> Path:
    """Copy a file, with LF for each CR that ends a record.

    Where others end with CRLF, DuckDB takes whatever follows such a CR for an LF.
    """
    copied = spill / f"{path.name}.lines"
    if copied.exists():
        return copied
    spill.mkdir(exist_ok=True)
    _, quote, escape = form.signs(file_format)
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
