"""The rejects of a batch as a file, streamed: Parquet, CSV for spreadsheets, or JSON lines."""

from __future__ import annotations

import base64
import csv
import json
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from batch_pipelines.engine.ledger import rejects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from batch_pipelines.engine.postgres.database import Connection

# A spreadsheet runs a cell that begins so as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# Ours, in front of those; text that begins with one itself is written in base64, so that the first one
# never belongs to the record.
_HARMLESS = "'"
# Columns that do not change any more; rows compared at a time.
_KEPT = [name for name in rejects.STORED.names if not name.startswith("replayed")]
_COMPARED = 1_000


def write_parquet(connection: Connection, batch_id: str, path: Path) -> int:
    """Write the rejects of a batch as Parquet, with the columns of `opened_reject`.

    Args:
        connection: A connection that has `values.opened` the batch.
        batch_id: The batch.
        path: The file; one that is there is overwritten.

    Returns:
        How many rejects.
    """
    written = 0
    with pq.ParquetWriter(path, rejects.STORED, compression="zstd") as writer:
        for rows in rejects.stream(connection, batch_id):
            writer.write_batch(rows)
            written += rows.num_rows
    return written


def same_rejects(connection: Connection, batch_id: str, path: Path | None) -> bool:
    """Compare a Parquet file of rejects with the ledger.

    What a replay has noted since does not count.

    Args:
        connection: A connection that has `values.opened` the batch.
        batch_id: The batch.
        path: The file; None where there is none.

    Returns:
        Whether they are the same, in the same order, with the same bytes.
    """
    stored = (rows.select(_KEPT) for rows in rejects.stream(connection, batch_id))
    if path is None:
        return next(stored, None) is None
    try:
        with pq.ParquetFile(path) as file:
            kept = file.iter_batches(_COMPARED, columns=_KEPT)
            return all(one == other for one, other in _side_by_side(stored, kept))
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return False


def _side_by_side(
    left: Iterator[pa.RecordBatch], right: Iterator[pa.RecordBatch]
) -> Iterator[tuple[pa.RecordBatch | None, pa.RecordBatch | None]]:
    """Cut two streams into parts of the same length; the end of one alone is None."""
    one = other = None
    while True:
        one, other = one or next(left, None), other or next(right, None)
        if one is None or other is None:
            yield one, other
            return
        rows = min(one.num_rows, other.num_rows)
        yield one.slice(0, rows), other.slice(0, rows)
        one, other = one.slice(rows), other.slice(rows)


def write_csv(connection: Connection, batch_id: str, path: Path) -> int:
    """Write the rejects of a batch as CSV that is safe to open in a spreadsheet.

    Raw bytes stand as text where they are UTF-8 and base64 otherwise; `raw_encoding` says which. A cell
    that a spreadsheet would run as a formula begins with an apostrophe.

    Args:
        connection: A connection that has `values.opened` the batch.
        batch_id: The batch.
        path: The file; one that is there is overwritten.

    Returns:
        How many rejects.
    """
    written = 0
    names = [*rejects.STORED.names]
    names.insert(names.index("raw"), "raw_encoding")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for rows in rejects.stream(connection, batch_id):
            for row in rows.to_pylist():
                row["raw_encoding"], row["raw"] = _text(row["raw"])
                writer.writerow([_cell(row[name]) for name in names])
            written += rows.num_rows
    return written


def write_jsonl(connection: Connection, batch_id: str, path: Path) -> int:
    """Write the rejects of a batch as JSON lines: one object each, raw bytes in base64.

    Args:
        connection: A connection that has `values.opened` the batch.
        batch_id: The batch.
        path: The file; one that is there is overwritten.

    Returns:
        How many rejects.
    """
    written = 0
    with path.open("w", encoding="ascii", newline="\n") as file:
        for rows in rejects.stream(connection, batch_id):
            for row in rows.to_pylist():
                row["breaches"] = json.loads(row["breaches"])
                row["raw_base64"] = base64.b64encode(row.pop("raw")).decode()
                file.write(json.dumps(row, default=_iso) + "\n")
            written += rows.num_rows
    return written


WRITERS: Final[dict[str, Callable[[Connection, str, Path], int]]] = {
    ".csv": write_csv,
    ".jsonl": write_jsonl,
    ".parquet": write_parquet,
}
"""What writes a file, by the end of its name."""


def _text(raw: bytes) -> tuple[str, str]:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = "\0"
    # Few readers of CSV take a NUL.
    if "\0" in text or text.startswith(_HARMLESS):
        return "base64", base64.b64encode(raw).decode()
    return "utf-8", text


def _cell(value: Any) -> object:
    if isinstance(value, str):
        return _HARMLESS + value if value.startswith(_FORMULA) else value
    return value.isoformat() if hasattr(value, "isoformat") else value


def _iso(value: Any) -> str:
    return str(value.isoformat())
