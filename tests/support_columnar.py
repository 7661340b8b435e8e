"""Columnar files for tests, each format as its programs write it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import orc

if TYPE_CHECKING:
    from pathlib import Path

COLUMNAR = ("parquet", "arrow", "arrows", "feather", "orc")
"""Suffixes: `.feather` is an Arrow file compressed with LZ4, `.arrows` a stream compressed with zstd."""


def write_columnar(content: pa.Table, path: Path, *, rows: int | None = None) -> None:
    """Write a table.

    Args:
        content: The table.
        path: Its suffix says the format.
        rows: Most rows of a record batch; ORC's stripes are as they come.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind == "parquet":
        pq.write_table(content, path, row_group_size=rows)
    elif kind == "orc":
        orc.write_table(content, path, compression="zlib")
    else:
        writer = pa.ipc.new_stream if kind == "arrows" else pa.ipc.new_file
        compression = {"arrow": None, "arrows": "zstd", "feather": "lz4"}[kind]
        options = pa.ipc.IpcWriteOptions(compression=compression)
        with writer(path, content.schema, options=options) as writing:
            writing.write_table(content, max_chunksize=rows)
