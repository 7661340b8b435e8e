"""Reading Arrow IPC, files and streams: where they lie, and of what is compressed a column at a time.

A record batch may be as large as the file. What is not compressed is used in place, from the mapped
file. Of a large batch that is, each column is unpacked by itself and put down beside the staged file,
so that one column of it is in memory at a time and not all.
"""

from __future__ import annotations

import mmap
import struct
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.reading.pieces import cut

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MAGIC: Final = b"ARROW1"
_MAGIC_PADDED: Final = 8
# The footer's length and the magic.
_FOOTER_END: Final = 4 + len(_MAGIC)
_FEATHER_1: Final = b"FEA1"
# A body, as it stands in the file, that is larger is read column by column.
LARGE_BYTES: Final = 16_000_000
# Of these all is looked at by `validate` that could lead astray; values are for `convert` to judge.
_FLAT = (
    pa.types.is_primitive, pa.types.is_decimal, pa.types.is_fixed_size_binary, pa.types.is_null,
)  # fmt: skip
# What is not UTF-8 is for `convert` to find, under its record's number; here bytes are bytes.
_BYTES = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


def arrow_schema(path: Path) -> pa.Schema:
    """Read names and types of the columns of an Arrow file or stream; see `columnar.SCHEMAS`."""
    with _mapped(path) as content:
        try:
            return _open(pa.py_buffer(content)).schema
        except (pa.ArrowException, OSError, ValueError):
            raise _broken(path) from None


def arrow_batches(path: Path, wanted: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """Read an Arrow file or stream; see `columnar.BATCHES`."""
    with _mapped(path) as content:
        buffer, maps = pa.py_buffer(content), [content]
        try:
            if _largest(buffer) > LARGE_BYTES:
                batches = _by_column(path, buffer, wanted, maps)
            else:
                batches = iter(_open(buffer, wanted))
            for batch in batches:
                batch.validate()
                for piece in cut(batch):
                    for values in piece.columns:
                        _require_sound(values)
                    yield piece
                    # Pages that were read count as memory until they are given back.
                    for each in maps:
                        each.madvise(mmap.MADV_DONTNEED)
        except (pa.ArrowException, OSError, ValueError):
            message = f"{path.name}: a record batch cannot be decoded: damaged. Deliver it again."
            raise DeliveryError(message) from None


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file:
        head = file.read(len(_MAGIC))
        if head.startswith(_FEATHER_1):
            message = (
                f"{path.name}: is Feather of version 1, which is not Arrow IPC. Deliver version 2."
            )
            raise DeliveryError(message)
        if not head:
            raise _broken(path)
        # Not closed: arrays that are still in use may look into it.
        yield mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _broken(path: Path) -> DeliveryError:
    return DeliveryError(f"{path.name}: not a whole Arrow file or stream. Deliver it again.")


def _open(buffer: pa.Buffer, wanted: Sequence[int] | None = None) -> pa.ipc.RecordBatchStreamReader:
    """Open a stream, or a file as the stream in it: Arrow's reader of files copies what it projects."""
    options = pa.ipc.IpcReadOptions(
        included_fields=None if wanted is None else [*wanted], use_threads=False
    )
    return pa.ipc.open_stream(_stream(buffer), options=options)


def _stream(buffer: pa.Buffer) -> pa.Buffer:
    head, size = buffer.slice(0, min(len(_MAGIC), buffer.size)).to_pybytes(), buffer.size
    if head != _MAGIC:
        return buffer
    if size < _MAGIC_PADDED + _FOOTER_END:
        raise ValueError
    # That its end is one, and what the footer says, has been looked at when the records were counted.
    (footer,) = struct.unpack_from("<i", buffer.slice(size - _FOOTER_END).to_pybytes())
    end = size - _FOOTER_END - footer
    if not _MAGIC_PADDED <= end < size:
        raise ValueError
    return buffer.slice(_MAGIC_PADDED, end - _MAGIC_PADDED)


def _largest(buffer: pa.Buffer) -> int:
    """Find the size of the largest body, in bytes."""
    messages = pa.ipc.MessageReader.open_stream(_stream(buffer))
    return max((m.body.size for m in messages if m.body is not None), default=0)


def _by_column(
    path: Path, buffer: pa.Buffer, wanted: Sequence[int], maps: list[mmap.mmap]
) -> Iterator[pa.RecordBatch]:
    """Read record batches of which no more than a column is unpacked at a time."""
    columns = [iter(_open(buffer, [place])) for place in wanted]
    names = [f"c{place}" for place in wanted]
    while True:
        with tempfile.TemporaryDirectory(prefix="arrow", dir=path.parent.parent) as folder:
            arrays: list[pa.Array] = []
            for column in columns:
                batch = next(column, None)
                if batch is None:
                    return
                arrays.append(_put_down(batch, Path(folder, str(len(arrays))), buffer, maps))
                del batch
            yield pa.RecordBatch.from_arrays(arrays, names)
        del maps[1:]


def _put_down(
    batch: pa.RecordBatch, target: Path, buffer: pa.Buffer, maps: list[mmap.mmap]
) -> pa.Array:
    """Have an array of some other memory in a mapped file."""
    (values,) = batch.columns
    end = buffer.address + buffer.size
    if all(buffer.address <= each.address < end for each in values.buffers() if each is not None):
        return values
    with pa.ipc.new_stream(str(target), batch.schema) as writing:
        writing.write_batch(batch)
    maps[0].madvise(mmap.MADV_DONTNEED)
    with target.open("rb") as file:
        maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return pa.ipc.open_stream(pa.py_buffer(maps[-1])).read_next_batch().column(0)


def _require_sound(values: pa.Array) -> None:
    """Refuse what points outside of itself, which would be read all the same."""
    if any(is_one(values.type) for is_one in _FLAT):
        return
    if isinstance(values, pa.DictionaryArray):
        kind = values.dictionary.type
        dictionary = values.dictionary.view(_BYTES.get(kind, kind))
        values = pa.DictionaryArray.from_arrays(values.indices, dictionary, safe=False)
    elif values.type in _BYTES:
        values = values.view(_BYTES[values.type])
    values.validate(full=True)
