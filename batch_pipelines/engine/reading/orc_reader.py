"""Reading ORC: some rows of a stripe at a time, because a stripe may be large.

Through Arrow's dataset reader: the plain one of ORC files has a whole stripe in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa
from pyarrow import orc

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.reading.pieces import rows_of_width

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# The footer tells the compressed size of the rows alone; so many times as large they are taken to be.
_RATIO: Final = 4


def orc_schema(path: Path) -> pa.Schema:
    """Read names and types of an ORC file's columns; see `columnar.SCHEMAS`."""
    return _open(path)[1]


def orc_batches(path: Path, wanted: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """Read an ORC file; see `columnar.BATCHES`."""
    # Longer to import than most files take to read, and for this format alone.
    import pyarrow.dataset as ds  # noqa: PLC0415
    from pyarrow.fs import LocalFileSystem  # noqa: PLC0415

    file, schema = _open(path)
    names = schema.names
    if len({*names}) < len(names):
        message = f"{path.name}: two columns have the same name. Rename one, and deliver it again."
        raise DeliveryError(message)
    rows = rows_of_width(_RATIO * file.content_length / max(file.nrows, 1))
    fragment = ds.OrcFileFormat().make_fragment(str(path), LocalFileSystem())
    scanner = fragment.scanner(
        columns={f"c{place}": ds.field(names[place]) for place in wanted},
        batch_size=rows,
        batch_readahead=0,
        fragment_readahead=0,
        use_threads=False,
    )
    try:
        yield from scanner.to_batches()
    except (pa.ArrowException, OSError) as error:
        if "out of range for nanosecond" in str(error):
            # Arrow reads all times of ORC in nanoseconds since 1970, in 64 bits.
            message = (
                f"{path.name}: holds a timestamp before 1677-09-22 or after 2262-04-11, which cannot be "
                "read from ORC. Deliver the column as a date or a text, or the file as Parquet."
            )
            raise DeliveryError(message) from None
        message = f"{path.name}: a stripe cannot be decoded: damaged. Deliver it again."
        raise DeliveryError(message) from None


def _open(path: Path) -> tuple[orc.ORCFile, pa.Schema]:
    """Open a file, and give the names and types of its columns."""
    try:
        file = orc.ORCFile(path)
        schema = file.schema
    except (pa.ArrowException, OSError, ValueError):
        message = f"{path.name}: not a whole ORC file. Deliver it again."
        raise DeliveryError(message) from None
    return file, schema
