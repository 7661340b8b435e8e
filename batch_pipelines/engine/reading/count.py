"""How many records a file holds, by a reader that is simpler than the one that loads.

A CSV's records are counted by a scan over its bytes that knows quotes, delimiters, escapes and line ends
and nothing else, JSON lines as the lines that are not blank; what columnar files say themselves,
`footers` finds. The publish transaction balances its books against this number. What a record is,
`blocks` and `json_lines` say; nothing of them is used here, so that an error in one of the two shows as
a difference.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.formats import COLUMNAR, DEFAULT
from batch_pipelines.engine.reading.footers import columnar_records

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from batch_pipelines.engine.formats import Format
    from batch_pipelines.engine.routes import Route

# A quote that is not closed within this many bytes, itself among them, is malformed.
LONGEST_QUOTED: Final = 8_000_000
_PIECE_BYTES = 1_000_000
# What stands before the header is looked for in so much of the file.
_PREAMBLE_BYTES = 1_000_000
_NEWLINE, _RETURN = 0x0A, 0x0D
_BLANK = b" \t\r\n"
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LINE_END = re.compile(rb"[\r\n]")
_ESCAPED = re.compile(rb"\\.", re.DOTALL)


class CsvScan:
    """Counts the records of a CSV file fed to it in pieces.

    A record begins with the first byte after a line end outside quotes; empty lines are no records.
    Where every quote is regular, inside quotes means after an odd number of them. Where one is not, the
    record ends with the line on which the malformed field begins, and quotes are gone through one by
    one. Between two pieces at most a quoted field is kept, as far as it goes.

    Args:
        form: How the file is written.
        file_format: `csv` or `tsv`.
    """

    def __init__(self, form: Format = DEFAULT, file_format: str = "csv") -> None:
        delimiter, self._quote, self._escape = form.signs(file_format)
        self._ends_field = delimiter + b"\r\n"
        # On the outer side of a regular quote: the field's end, or the other of a doubled one.
        self._neighbours = self._ends_field + (b"" if self._escape else self._quote)
        # Outside quotes: line ends, or what stands on a line up to a quote or its end.
        self._stretch = re.compile(rb"[\r\n]+|[^" + re.escape(self._quote) + rb"\r\n]+")
        self._preamble = re.compile(rb"(?:[^\r\n]*+(?:\r\n|\r|\n)){%d}" % form.preamble)
        self._in_preamble, self._head = form.preamble > 0, b""
        self._header = 1 if form.header is True else 0
        self._held = b""
        self._fed = False
        self._begun = 0
        # What is not counted yet, behind the byte before it: nothing, or from an opening quote on.
        self._rest = b"\n"
        self._skipping = False

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the file.

        Args:
            piece: Any number of bytes, the first piece at least three.
        """
        if not self._fed:
            # A byte order mark is no record, not even before an empty line.
            self._fed, piece = True, piece.removeprefix(codecs.BOM_UTF8)
        if self._in_preamble:
            if len(self._head) < _PREAMBLE_BYTES:
                self._head += piece
            found = self._preamble.match(self._head)
            if found is None or found.end() == len(self._head):
                return  # the line end at the end may want its LF
            self._in_preamble, piece = False, self._head[found.end() :]
        if self._escape:
            # What is escaped, and its escape, are like any other sign, in as many bytes.
            piece = _ESCAPED.sub(b"..", self._held + piece)
            self._held = self._escape if piece.endswith(self._escape) else b""
            piece = piece.removesuffix(self._escape)
        data = self._rest + piece
        if self._skipping or not self._count_at_once(data):
            self._walk(data, last=False)

    def records(self, where: str) -> int:
        """End the count.

        Args:
            where: The file, for messages.

        Returns:
            Records, the header line not among them.

        Raises:
            DeliveryError: The file is empty, and should have a header.
        """
        self._walk(self._rest + self._held, last=True)
        if self._begun < self._header:
            message = f"{where}: the file is empty; expected a header line. Deliver it again."
            raise DeliveryError(message)
        return self._begun - self._header

    def _count_at_once(self, data: bytes) -> bool:
        """Count by the parity of quotes; False, and nothing is counted, where one is not regular."""
        array = np.frombuffer(data, np.uint8)
        settled, quotes = len(data), None
        if self._quote and self._quote in data:
            sign = self._quote[0]
            quotes = np.flatnonzero(array == sign)
            left = array[quotes[::2] - 1]
            if len(quotes) % 2 or quotes[-1] == settled - 1:
                # The last field is open, or is not if no other quote follows: it has to wait.
                place = len(left) - 1 - int(np.argmax(left[::-1] != sign))
                left, quotes, settled = left[:place], quotes[: 2 * place], int(quotes[2 * place])
            right, near = array[quotes[1::2] + 1], self._neighbours
            if left.tobytes().strip(near) or right.tobytes().strip(near):
                return False
            if len(data) > LONGEST_QUOTED:
                begins, ends = quotes[::2][left != sign], quotes[1::2][right != sign]
                lengths = np.append(ends - begins + 1, len(data) - settled + 1)
                if lengths.max() > LONGEST_QUOTED:
                    return False
        breaks = (array[:settled] == _NEWLINE) | (array[:settled] == _RETURN)
        before = np.flatnonzero(breaks[:-1] & ~breaks[1:])
        if quotes is not None:
            before = before[np.searchsorted(quotes, before) % 2 == 0]
        self._begun += len(before)
        self._rest = data[settled - 1 :]
        return True

    def _walk(self, data: bytes, *, last: bool) -> None:
        """Count from quote to quote."""
        at, size = 1, len(data)
        while at < size:
            if self._skipping:
                found = _LINE_END.search(data, at)
                self._skipping, at = found is None, found.start() if found else size
                continue
            begins = data[at - 1] in b"\r\n" and data[at] not in b"\r\n"
            stretch = self._stretch.match(data, at)
            if stretch:
                at = stretch.end()
            elif data[at - 1] not in self._ends_field:
                self._skipping = True
            else:
                end = self._closing(data, at)
                # What follows the last byte may double it.
                if not last and (end == size - 1 or (end < 0 and size - at < LONGEST_QUOTED)):
                    break
                self._skipping = end < 0 or data[end + 1 : end + 2] not in self._ends_field
                at = at if self._skipping else end + 1
            self._begun += begins
        self._rest = data[at - 1 :]

    def _closing(self, data: bytes, opening: int) -> int:
        """Find the quote that closes a field; -1 where there is none within reach."""
        limit = opening + LONGEST_QUOTED
        found = data.find(self._quote, opening + 1, limit)
        while found >= 0 and not self._escape and data[found + 1 : found + 2] == self._quote:
            found = data.find(self._quote, found + 2, limit)
        return found


class LineScan:
    """Counts the lines that are not blank, of a file fed to it in pieces."""

    def __init__(self) -> None:
        self._fed = self._begun = False
        self._records = 0

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the file; the first piece at least three."""
        if not self._fed:
            self._fed, piece = True, piece.removeprefix(codecs.BOM_UTF8)
        first, *others = piece.split(b"\n")
        self._begun |= bool(first.strip(_BLANK))
        for line in others:
            self._records += self._begun
            self._begun = bool(line.strip(_BLANK))

    def records(self, where: str) -> int:
        """End the count.

        Args:
            where: The file, for messages.

        Returns:
            Lines.

        Raises:
            DeliveryError: There is none, which is no delivery but a mishap.
        """
        if self._records + self._begun == 0:
            message = f"{where}: the file is empty; expected a line of JSON. Deliver it again."
            raise DeliveryError(message)
        return self._records + self._begun


def scan_of(form: Format, file_format: str) -> CsvScan | LineScan:
    """Begin to count the records of a text file.

    Args:
        form: How it is written.
        file_format: `csv`, `tsv` or `jsonl`.

    Returns:
        A scan, to be fed with its bytes.
    """
    return LineScan() if file_format == "jsonl" else CsvScan(form, file_format)


def records_by_table(path: Path, routes: Mapping[str, Route]) -> dict[str, int]:
    """Count the lines of each table, by a parser that is not the one that loads.

    Args:
        path: The file.
        routes: Which lines are a table's, by its name.

    Returns:
        Lines by the table's name.
    """
    said = Counter[str | None]()
    known = {route.match: route.field for route in routes.values()}
    field = next(iter(known.values()))
    with path.open("rb") as file:
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        for line in file:
            if line.strip(_BLANK):
                value = _said(line, field)
                said[value if value in known else None] += 1
    return {
        name: sum(number for value, number in said.items() if route.is_own(value))
        for name, route in routes.items()
    }


def _said(line: bytes, field: str) -> str | None:
    try:
        value = bytes(_OBJECT.decode(line.decode()).get(field, b""))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return msgspec.json.decode(value, type=str) if value.startswith(b'"') else None


def records_of(path: Path, file_format: str, form: Format = DEFAULT) -> int:
    """Count the records of a file.

    Args:
        path: The file.
        file_format: `csv`, `tsv`, `jsonl` or one of `COLUMNAR`.
        form: How it is written.

    Returns:
        Its records, the header line not among them.

    Raises:
        DeliveryError: It is empty, or not a whole file of its format.
    """
    if file_format in COLUMNAR:
        return columnar_records(path, file_format)
    scan = scan_of(form, file_format)
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            scan.feed(piece)
    return scan.records(path.name)
