"""How many records a columnar file says it holds, by readers that are not those that load.

Parquet and ORC say it in their footers. Arrow IPC says it batch by batch, in front of the values: from
message to message the file is gone through, and no value is looked at. So a file or stream is also
known to be whole: it has its end mark, and nothing behind it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from batch_pipelines.engine.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_MAGIC: Final = b"ARROW1"
_MAGIC_PADDED: Final = 8
_CONTINUATION: Final = b"\xff\xff\xff\xff"
# More than the description of any record batch of a table that PostgreSQL could have.
_LONGEST_MESSAGE: Final = 100_000_000
# Of the flatbuffers schema `Message.fbs`: the places of fields in their tables, and the kind sought.
_HEADER_TYPE, _HEADER, _BODY_LENGTH, _LENGTH = 1, 2, 3, 0
_RECORD_BATCH: Final = 3
# The ledger has 64 bits for it; no file has so many, but a damaged one may say so.
_TOO_MANY: Final = 2**48


def parquet_records(path: Path) -> int:
    """Read the number of rows from a Parquet file's footer; see `columnar_records`."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        message = (
            f"{path.name}: not a whole Parquet file: its footer cannot be read. Deliver it again."
        )
        raise DeliveryError(message) from None


def orc_records(path: Path) -> int:
    """Read the number of rows from an ORC file's footer; see `columnar_records`."""
    import pyorc  # noqa: PLC0415  # a tenth of a second to import, for this format alone

    try:
        with path.open("rb") as file:
            return len(pyorc.Reader(file))
    except (pyorc.ORCError, RuntimeError, ValueError):
        message = f"{path.name}: not a whole ORC file: its footer cannot be read. Deliver it again."
        raise DeliveryError(message) from None


def arrow_records(path: Path) -> int:
    """Add up the rows of an Arrow file's or stream's record batches; see `columnar_records`."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) == _MAGIC:
                return _walk(file, _MAGIC_PADDED, _footer(file, size), is_file=True)
            return _walk(file, 0, size, is_file=False)
    except (struct.error, ValueError, IndexError, OSError):
        message = (
            f"{path.name}: not a whole Arrow file or stream: it is cut off, damaged, or goes on behind "
            "its end mark. Deliver it again."
        )
        raise DeliveryError(message) from None


_RECORDS: Final[Mapping[str, Callable[[Path], int]]] = {
    "arrow": arrow_records, "orc": orc_records, "parquet": parquet_records,
}  # fmt: skip


def columnar_records(path: Path, file_format: str) -> int:
    """Count the rows of a columnar file without decoding them.

    Args:
        path: The file.
        file_format: One of `formats.COLUMNAR`.

    Returns:
        Its rows.

    Raises:
        DeliveryError: It is not a whole file of that format.
    """
    return _RECORDS[file_format](path)


def _footer(file: BinaryIO, size: int) -> int:
    """Find where an Arrow file's footer begins; raise where the file does not end with one."""
    file.seek(-len(_MAGIC) - 4, 2)
    (length,) = struct.unpack("<i", file.read(4))
    start = size - len(_MAGIC) - 4 - length
    if file.read() != _MAGIC or length <= 0 or start < _MAGIC_PADDED:
        raise ValueError
    return int(start)


def _walk(file: BinaryIO, start: int, end: int, *, is_file: bool) -> int:
    """Go from message to message up to the end mark, which is the last there is."""
    at, records = start, 0
    while True:
        if is_file and at == end:
            return records  # before 2019 files had no end mark in front of the footer
        file.seek(at)
        head = file.read(8)
        # Before 2019 the length stood first, with nothing in front.
        prefix = 4 if head[:4] == _CONTINUATION else 0
        (length,) = struct.unpack_from("<i", head, prefix)
        at += prefix + 4
        if length == 0:
            if at != end:
                raise ValueError
            return records
        if not 0 < length <= min(_LONGEST_MESSAGE, end - at):
            raise ValueError
        file.seek(at)
        rows, body = _message(file.read(length))
        at += length + body
        if rows < 0 or body < 0 or at > end:
            raise ValueError
        records += rows
        if records >= _TOO_MANY:
            raise ValueError


def _message(data: bytes) -> tuple[int, int]:
    """Give the rows that a message brings, and how many bytes of values follow it."""
    table = _offset(data, 0)
    kind, body = _field(data, table, _HEADER_TYPE), _field(data, table, _BODY_LENGTH)
    size = struct.unpack_from("<q", data, body)[0] if body else 0
    if not kind or data[kind] != _RECORD_BATCH:
        return 0, size
    length = _field(data, _offset(data, _field(data, table, _HEADER)), _LENGTH)
    return struct.unpack_from("<q", data, length)[0] if length else 0, size


def _offset(data: bytes, at: int) -> int:
    return int(at + struct.unpack_from("<I", data, at)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """Find where a field of a flatbuffers table stands; 0 where it has its default."""
    offsets = table - struct.unpack_from("<i", data, table)[0]
    place = 4 + 2 * number
    if offsets < 0 or place >= struct.unpack_from("<H", data, offsets)[0]:
        return 0
    (found,) = struct.unpack_from("<H", data, offsets + place)
    return table + found if found else 0
