"""Cutting records out of a delivered file: all others stay as they were, text byte for byte."""

from __future__ import annotations

import bz2
import gzip
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from batch_pipelines.engine.formats import COLUMNAR
from batch_pipelines.engine.reading.plain import encoding_of, readable
from batch_pipelines.engine.reading.readers import read_raw

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from batch_pipelines.engine.formats import Format
    from batch_pipelines.engine.ledger.files import ImportFile

_PACKED_AGAIN: Final = frozenset({None, "gzip", "zstd", "bz2"})
_PIECE_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Cut:
    """A record that was cut out of a file.

    Attributes:
        record: Its number, from 1.
        offset: Where it began, in bytes of the text that readers read; None in a columnar file.
        size: Its bytes there.
        lines: Physical lines that it had.
    """

    record: int
    offset: int | None = None
    size: int = 0
    lines: int = 0


def why_whole(path: Path, file: ImportFile, form: Format) -> str | None:
    """Say why single records cannot be cut out of a file; None where they can.

    Args:
        path: The file as it was delivered.
        file: What the ledger says of it.
        form: How it is written.
    """
    if file.format in COLUMNAR:
        return None if file.format == "parquet" else f"{COLUMNAR[file.format]} is not written here"
    if file.compression not in _PACKED_AGAIN:
        return f"{file.compression} is not written here"
    encoding = encoding_of(path, file, form)
    return None if encoding == "utf-8" else f"it is written in {encoding}"


def cut(
    path: Path, target: Path, file: ImportFile, form: Format, numbers: Sequence[int]
) -> list[Cut]:
    """Write a file without some of its records.

    Args:
        path: The file as it was delivered, in a folder of which readers may make plain copies beside.
        target: What it becomes.
        file: What the ledger says of it; one of those for which `why_whole` is None.
        form: How it is written.
        numbers: Numbers of the records, rising.

    Returns:
        What was cut out.

    Raises:
        DeliveryError: The file cannot be read.
    """
    if file.format in COLUMNAR:
        _cut_parquet(path, target, numbers)
        return [Cut(number) for number in numbers]
    plain = readable(path.parent, file, form)
    found = [
        Cut(number, offset, len(raw), _line_ends(raw))
        for number, (_, offset, raw) in zip(
            numbers, read_raw(plain, file.format, numbers, form), strict=True
        )
    ]
    with ExitStack() as stack:
        reading = stack.enter_context(plain.open("rb"))
        writing = stack.enter_context(target.open("wb"))
        packed: Any = writing
        if file.compression == "gzip":
            packed = stack.enter_context(gzip.GzipFile("", "wb", fileobj=writing, mtime=0))
        elif file.compression == "bz2":
            packed = stack.enter_context(bz2.BZ2File(writing, "wb"))
        elif file.compression == "zstd":
            packed = stack.enter_context(
                zstandard.ZstdCompressor().stream_writer(writing, closefd=False)
            )
        for each in found:
            _copy(reading, packed, int(each.offset or 0) - reading.tell())
            reading.seek(each.size, 1)
        shutil.copyfileobj(reading, packed, _PIECE_BYTES)
    return found


def _copy(reading: Any, writing: Any, size: int) -> None:
    while size > 0:
        piece = reading.read(min(size, _PIECE_BYTES))
        writing.write(piece)
        size -= len(piece)


def _line_ends(raw: bytes) -> int:
    return raw.count(b"\n") + raw.count(b"\r") - raw.count(b"\r\n")


def _cut_parquet(path: Path, target: Path, numbers: Sequence[int]) -> None:
    gone, first = np.asarray(numbers, np.int64), 1
    with pq.ParquetFile(path) as file:
        codec = file.metadata.row_group(0).column(0).compression if file.num_row_groups else "NONE"
        with pq.ParquetWriter(target, file.schema_arrow, compression=codec.lower()) as writer:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group)
                stays = ~np.isin(np.arange(first, first + rows.num_rows), gone)
                writer.write_table(rows.filter(pa.array(stays)))
                first += rows.num_rows
