"""The row digests that a batch left in Parquet files: which rows are still as they were sent?

The files are in staging until the batch is archived, and in its bag afterwards. They hold, of each row,
the primary key where it was delivered, and the CRC32C of the columns sent.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import crc32c
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_pipelines.engine.archiving.bag import DIGESTS, open_bag
from batch_pipelines.engine.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

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


@contextmanager
def recorded_digests(
    connection: Connection, settings: Settings, batch_id: str, table: str
) -> Iterator[RecordedDigests | None]:
    """Find the digests of a batch's rows in a table.

    Args:
        connection: A connection.
        settings: Says where staging is.
        batch_id: The batch.
        table: The table's name with schema.

    Yields:
        The digests, or None where the files are gone, damaged or cannot be read.
    """
    with ExitStack() as stack:
        files: list[Path] = []
        with suppress(ArchiveError):
            bag = stack.enter_context(open_bag(connection, settings, batch_id))
            files = [bag.path(name) for name in bag.under(DIGESTS) if _is_of(name, table)]
        if not files:
            staged = settings.staging / batch_id / DIGESTS
            present = sorted(staged.iterdir()) if staged.is_dir() else []
            files = [path for path in present if _is_of(path.name, table)]
        if not files:
            yield None
            return
        schema = pq.read_schema(files[0])
        key = tuple(name for name in schema.names if name not in _BESIDE_KEY)
        yield RecordedDigests(tuple(files), key)


def _is_of(name: str, table: str) -> bool:
    """Say whether a file is of a table: of the load, or of a replay."""
    rest = name.rpartition("/")[2].removeprefix(f"{table}.")
    return rest == "parquet" or (rest.startswith("replay-") and rest.endswith(".parquet"))


def _plain(value: Any) -> Any:
    """Write a value as the Parquet file has it; a uuid is its bytes there."""
    return getattr(value, "bytes", value)
