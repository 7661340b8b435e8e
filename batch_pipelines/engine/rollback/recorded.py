"""The row digests that a batch left in Parquet files: which rows are still as they were sent?

The files are in staging until the batch is archived, and in its bag afterwards. They hold, of each row,
the primary key where it was delivered, and the CRC32C of the columns sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import crc32c
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_pipelines.engine.ledger import proofs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings

_BESIDE_KEY = frozenset({"file_name", "record", "crc32c"})
_CRC, _NUMBER, _SENT = "found_crc32c", "row_number", "crc32c"


@dataclass(frozen=True)
class RecordedDigests:
    """The recorded digests of a batch's rows in one table.

    Attributes:
        files: The Parquet files; those of replays come after the first.
        key: Columns of the primary key that they hold; none where it was not delivered.
    """

    files: tuple[Path, ...]
    key: tuple[str, ...]

    def unchanged(self, keys: Sequence[Sequence[Any]], rows: Sequence[bytes]) -> set[int]:
        """Say which rows have a recorded digest, and by their key's where it is known.

        Args:
            keys: (n,) values of `key` of each row, as psycopg reads them.
            rows: (n,) each row's columns sent, as record_send writes them.

        Returns:
            Numbers of the rows, from 0, that are as they were sent.
        """
        crcs = pa.array([crc32c.crc32c(row) for row in rows], pa.uint32())
        numbers = pa.array(range(len(rows)), pa.int64())
        found: set[int] = set()
        for recorded in self._read():
            if not self.key:
                same = pc.is_in(crcs, value_set=recorded[_SENT].combine_chunks())
                found.update(numbers.filter(same).to_pylist())
                continue
            asked = pa.table(
                {_NUMBER: numbers, _CRC: crcs}
                | {
                    name: pa.array([_plain(key[place]) for key in keys], recorded[name].type)
                    for place, name in enumerate(self.key)
                }
            )
            joined = asked.join(recorded, keys=list(self.key), join_type="inner")
            same = pc.equal(joined[_CRC], joined[_SENT])
            found.update(joined.filter(same)[_NUMBER].to_pylist())
        return found

    def _read(self) -> Iterator[pa.Table]:
        for file in self.files:
            with pq.ParquetFile(file) as reading:
                for batch in reading.iter_batches(columns=[*self.key, _SENT]):
                    yield pa.Table.from_batches([batch])


def recorded_digests(
    connection: Connection, settings: Settings, batch_id: str, table: str
) -> RecordedDigests | None:
    """Find the digests of a batch's rows in a table.

    Args:
        connection: A connection.
        settings: Says where staging is.
        batch_id: The batch.
        table: The table's name with schema.

    Returns:
        The digests, or None where the files are gone.
    """
    archived = proofs.archive(connection, batch_id)
    folders = [settings.staging / batch_id / "row_digests"]
    if archived is not None:
        folders.insert(0, Path(archived.bag_path) / "data" / "row_digests")
    for folder in folders:
        first = folder / f"{table}.parquet"
        if first.is_file():
            replays = sorted(
                path for path in folder.iterdir() if path.name.startswith(f"{table}.replay-")
            )
            schema = pq.read_schema(first)
            key = tuple(name for name in schema.names if name not in _BESIDE_KEY)
            return RecordedDigests((first, *replays), key)
    return None


def _plain(value: Any) -> Any:
    """Write a value as the Parquet file has it; a uuid is its bytes there."""
    return getattr(value, "bytes", value)
