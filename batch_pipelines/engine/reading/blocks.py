"""Cutting a CSV file into blocks of whole records, so that a parser never sees a part of one.

RFC 4180 says what a record is: fields between delimiters; one that begins with a quote ends at the next
quote that is not doubled. A quote anywhere else is malformed, and so is one that is not closed within
`LONGEST` bytes; there two readings are possible, and none is taken. Such a record ends with the physical
line on which the malformed field begins, and it is set aside; reading goes on with the next line, so
that a missing quote costs one record and not the rest of the file.

Where a dialect has an escape, it and the byte behind it are nothing but two bytes of a field: they are
masked before anything is looked for, and a quote is not doubled. Where it has no quote, nothing is
malformed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from batch_pipelines.engine.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

# Bytes of CSV parsed at once: some 40,000 rows of 20 columns. Smaller blocks cost (row digests have a
# millisecond each of fixed cost), larger ones only take memory.
BLOCK_BYTES: Final = 4_000_000
# A quoted field, with its quotes, has at most this many bytes; a record that is longer may be refused.
LONGEST: Final = 8_000_000
_LF, _CR = 0x0A, 0x0D


@dataclass(frozen=True)
class Dialect:
    """How a CSV file writes its fields: single bytes of ASCII.

    Attributes:
        delimiter: Between two fields.
        quote: Around a field; doubled within where there is no escape. Empty where there is none.
        escape: Makes the byte behind it stand for itself. Empty where there is none.
    """

    delimiter: bytes = b","
    quote: bytes = b'"'
    escape: bytes = b""

    @cached_property
    def field(self) -> re.Pattern[bytes]:
        """A regular field."""
        d, q = re.escape(self.delimiter), re.escape(self.quote)
        bare = rb"[^" + q + d + rb"\r\n]*+"
        if not q:
            return re.compile(bare)
        doubled = b"" if self.escape else rb"|" + q + q
        quoted = q + rb"(?:[^" + q + rb"]++" + doubled + rb")*+" + q
        return re.compile(rb"(?:" + quoted + rb"|" + bare + rb")")

    @cached_property
    def record(self) -> re.Pattern[bytes]:
        """A regular record without its line end."""
        d, field = re.escape(self.delimiter), self.field.pattern
        return re.compile(field + rb"(?:" + d + field + rb")*+")

    def masked(self, content: bytes) -> bytes:
        """Replace what is escaped, and its escape, by as many bytes that mean nothing.

        Args:
            content: Some of a file, from outside an escape.
        """
        if not self.escape or self.escape not in content:
            return content
        # Without the pairs of escapes, each that is left belongs to the byte behind it.
        content = content.replace(2 * self.escape, b"..")
        for sign in (self.delimiter, self.quote, b"\r", b"\n"):
            content = content.replace(self.escape + sign, b"..") if sign else content
        return content


@dataclass(frozen=True)
class Block:
    """Some consecutive records of a CSV file, whole ones.

    Attributes:
        content: Their bytes, each record with its line end; empty lines between them are no records.
        offset: Where it begins in the file, in bytes.
        first_line: Number of its first physical line, from 1.
        dialect: How fields are written.
        malformed: Start and end in the content, in bytes, of the records that are set aside.
    """

    content: bytes
    offset: int
    first_line: int
    dialect: Dialect
    malformed: tuple[tuple[int, int], ...] = ()

    @property
    def regular(self) -> bytes:
        """The content without what is set aside."""
        if not self.malformed:
            return self.content
        ends = [0, *(end for _, end in self.malformed)]
        starts = [*(start for start, _ in self.malformed), len(self.content)]
        return b"".join(self.content[e:s] for e, s in zip(ends, starts, strict=True))

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where each record begins in the content, in bytes, those set aside among them."""
        content, quote = self.dialect.masked(self.content), self.dialect.quote
        data = np.frombuffer(content, np.uint8)
        breaks = (data == _LF) | (data == _CR)
        if quote and quote in content:
            quotes = data == quote[0]
            for start, end in self.malformed:
                quotes[start:end] = False
            breaks &= ~np.logical_xor.accumulate(quotes)
            for start, end in self.malformed:
                breaks[start : end - 1] = False
        begins = ~breaks
        begins[1:] &= breaks[:-1]
        return np.flatnonzero(begins)

    @cached_property
    def set_aside(self) -> npt.NDArray[np.int64]:
        """Which records are malformed, by their index among all."""
        return np.searchsorted(self.starts, [start for start, _ in self.malformed])

    @cached_property
    def lines(self) -> npt.NDArray[np.int64]:
        """Number of the physical line on which each record begins, from 1."""
        data = np.frombuffer(self.content, np.uint8)
        ends = data == _LF
        lone = data == _CR
        lone[:-1] &= ~ends[1:]
        return self.first_line + np.searchsorted(np.flatnonzero(ends | lone), self.starts)

    def raw(self, index: int) -> bytes:
        """Give a record as it stands in the file, with its line end.

        Args:
            index: Its place among the block's records, from 0.
        """
        starts = self.starts
        end = int(starts[index + 1]) if index + 1 < len(starts) else len(self.content)
        return self._without_empty_lines(self.content[int(starts[index]) : end])

    def _without_empty_lines(self, record: bytes) -> bytes:
        """Drop empty lines that follow a record."""
        bare = len(self.dialect.masked(record).rstrip(b"\r\n"))
        ending = record[bare:]
        return record[:bare] + (ending[:2] if ending.startswith(b"\r\n") else ending[:1])


def read_blocks(path: Path, start: int, first_line: int, dialect: Dialect) -> Iterator[Block]:
    """Read a file in blocks of about `BLOCK_BYTES` bytes.

    Args:
        path: The file.
        start: Where its first record begins, in bytes.
        first_line: Number of the physical line there, from 1.
        dialect: How fields are written.

    Yields:
        The blocks in order; together they are the file from `start` on, byte by byte.

    Raises:
        DeliveryError: A record is longer than `LONGEST`.
    """
    offset, line, rest, last = start, first_line, b"", False
    with path.open("rb") as file:
        file.seek(start)
        while not last:
            read = file.read(BLOCK_BYTES)
            last = len(read) < BLOCK_BYTES
            content = rest + read
            end, malformed = _cut(content, dialect, last=last)
            if not end and len(content) >= 2 * LONGEST:
                message = (
                    f"{path.name}, line {line}: a record is longer than {LONGEST / 1e6:g} MB. "
                    "Correct the file and deliver it again."
                )
                raise DeliveryError(message)
            whole, rest = content[:end], content[end:]
            if whole:
                yield Block(whole, offset, line, dialect, malformed)
            offset += end
            line += whole.count(b"\n") + _lone_returns(whole)


def _lone_returns(content: bytes) -> int:
    return content.count(b"\r") - content.count(b"\r\n") if b"\r" in content else 0


def _cut(
    content: bytes, dialect: Dialect, *, last: bool
) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Find where the last whole record ends, 0 for nowhere, and what in it is malformed."""
    content = dialect.masked(content)
    end = len(content) if last else _last_line_end(content)
    if not dialect.quote or dialect.quote not in content:
        return end, ()
    data = np.frombuffer(content, np.uint8)
    quotes = np.flatnonzero(data == dialect.quote[0])
    if not _is_regular(data, quotes, dialect, last=last):
        return _walk(content, dialect, last=last)
    before = int(np.searchsorted(quotes, end))
    if before % 2 == 0:
        return end, ()
    # The line ends inside quotes; back to one that does not.
    breaks = np.flatnonzero((data[:end] == _LF) | (data[:end] == _CR))
    outside = breaks[np.searchsorted(quotes, breaks) % 2 == 0]
    return int(outside[-1]) + 1 if len(outside) else 0, ()


def _last_line_end(content: bytes) -> int:
    """Find the end of the last line that ends; a CR at the very end may want its LF."""
    return max(content.rfind(b"\n"), content.rfind(b"\r", 0, max(len(content) - 1, 0))) + 1


def _is_regular(
    data: npt.NDArray[np.uint8], quotes: npt.NDArray[np.int64], dialect: Dialect, *, last: bool
) -> bool:
    """Look at every quote's neighbours, taking odd ones for opening and even ones for closing."""
    if last and len(quotes) % 2:
        return False
    opening, closing = quotes[::2], quotes[1::2]
    # A quote that opens right after one that closed is a doubled one inside a field.
    doubled = (opening[1:] == closing[: len(opening) - 1] + 1) & (not dialect.escape)
    first, final = np.ones(len(opening), dtype=bool), np.ones(len(closing), dtype=bool)
    first[1:] = ~doubled
    final[: len(doubled)] = ~doubled
    begins, ends = opening[first], closing[final]
    before = data[np.maximum(begins - 1, 0)]
    after = data[np.minimum(ends + 1, len(data) - 1)]
    fine_before = _ends_field(before, dialect) | (begins == 0)
    fine_after = _ends_field(after, dialect) | (ends == len(data) - 1)
    # A field that is open here ends behind the content at the earliest.
    lengths = np.append(ends, len(data))[: len(begins)] - begins + 1
    return bool(fine_before.all() and fine_after.all() and lengths.max() <= LONGEST)


def _ends_field(data: npt.NDArray[np.uint8], dialect: Dialect) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[Any] = (data == dialect.delimiter[0]) | (data == _LF) | (data == _CR)
    return found


def _walk(
    content: bytes, dialect: Dialect, *, last: bool
) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Go from record to record where quotes are not regular; slower, and right."""
    malformed, start, size = [], 0, len(content)
    while start < size:
        found = dialect.record.match(content, start)
        end = start if found is None else found.end()
        after = _after_line_end(content, end)
        if (after == end and end < size) or end - start > LONGEST:
            field, is_open = _malformed_field(content, start, dialect)
            if is_open and not last and size - field < LONGEST:
                break  # its closing quote may be still to come
            if field < size:
                after = _next_line(content, field) or (size if last else 0)
                if not after:
                    break
                malformed.append((start, after))
        if after == size and not last and not content.endswith(b"\n"):
            break  # a record without its end, or a CR that may want its LF
        start = after
    return start, tuple((s, e) for s, e in malformed if e <= start)


def _malformed_field(content: bytes, start: int, dialect: Dialect) -> tuple[int, bool]:
    """Find a record's first field that is not regular, or the content's end; also if it is open."""
    while True:
        found = dialect.field.match(content, start)
        end = start if found is None else found.end()
        quoted = content.startswith(dialect.quote, start)
        if quoted and end - start > LONGEST:
            return start, False
        if content[end : end + 1] != dialect.delimiter:
            if end == len(content) or _after_line_end(content, end) > end:
                return len(content), False
            return start, quoted and end == start
        start = end + 1


def _after_line_end(content: bytes, place: int) -> int:
    if content.startswith(b"\r\n", place):
        return place + 2
    return place + 1 if content[place : place + 1] in {b"\r", b"\n"} else place


_LINE_END = re.compile(rb"\r\n|\r|\n")


def _next_line(content: bytes, place: int) -> int:
    found = _LINE_END.search(content, place)
    return found.end() if found else 0
