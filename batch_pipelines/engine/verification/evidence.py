"""Evidence: what was kept of a batch's rows when it was loaded, believed only once it is proven itself.

The row digests of a batch stand in its bag, or in staging until it is archived. In a bag they are
covered by SHA-256 up to the one in the ledger; in both places they must add up to the ledger's digests.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch_pipelines.engine.archiving.bag import DIGESTS, open_bag
from batch_pipelines.engine.digests import RowDigest
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.ledger import archives, proofs, rejects

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from batch_pipelines.engine.archiving.bag import Bag
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings


@dataclass(frozen=True)
class Evidence:
    """Where the evidence of a batch stands.

    Attributes:
        staged: The folder of staging with `source` and `row_digests`.
        bag: Its bag, open; None where the evidence stands in staging.
    """

    staged: Path
    bag: Bag | None

    def digests(self, name: str) -> Path | None:
        """Give a file of row digests; None where there is none of the name.

        Raises:
            ArchiveError: It is not as it was sealed.
        """
        if self.bag is not None:
            own = f"{DIGESTS}/{name}"
            return self.bag.path(own) if self.bag.has(own) else None
        path = self.staged / DIGESTS / name
        return path if path.exists() else None


@contextmanager
def evidence_of(connection: Connection, settings: Settings, batch_id: str) -> Iterator[Evidence]:
    """Find the evidence of a batch.

    Args:
        connection: A connection.
        settings: Say where staging is.
        batch_id: The batch.

    Yields:
        The evidence, not looked at yet.

    Raises:
        ArchiveError: It is neither in staging nor in a bag that can be read.
    """
    staged = settings.staging / batch_id
    # A replay that is not archived yet has the newest of it in staging.
    if (staged / DIGESTS).is_dir():
        yield Evidence(staged, None)
        return
    if archives.bag(connection, batch_id) is None:
        message = f"Batch {batch_id} has no bag, and staging has nothing of it."
        raise ArchiveError(message)
    with open_bag(connection, settings, batch_id) as bag:
        yield Evidence(staged, bag)


def row_digests(
    connection: Connection, evidence: Evidence, batch_id: str, full_name: str
) -> tuple[Path, ...]:
    """Find the files of a table's row digests, and prove that they are what was written.

    Args:
        connection: A connection.
        evidence: Of the batch.
        batch_id: The batch.
        full_name: The table, as in `public.flights`.

    Returns:
        The Parquet files: of the load, and of each replay that loaded more.

    Raises:
        ArchiveError: They are gone, or not what the ledger says.
    """
    # One that was not committed may have left a file, too.
    runs = rejects.replays(connection, batch_id)
    names = [full_name, *(f"{full_name}.replay-{run}" for run in runs)]
    found = [evidence.digests(f"{name}.parquet") for name in names]
    paths = [path for path in found if path is not None]
    try:
        same = _of_files(paths) == _of_ledger(connection, batch_id, full_name)
    except (OSError, pa.ArrowException, ValueError, KeyError):
        same = False
    if not same:
        where = evidence.staged if evidence.bag is None else evidence.bag.place
        message = (
            f"{where}: the row digests of {full_name} are gone or are not those of the ledger. Restore "
            "them from a backup."
        )
        raise ArchiveError(message)
    return tuple(paths)


def _of_ledger(connection: Connection, batch_id: str, full_name: str) -> Mapping[str, RowDigest]:
    """Add up the ledger's digests by file."""
    found = defaultdict[str, RowDigest](RowDigest.zero)
    for chunk in proofs.chunks(connection, batch_id, full_name):
        found[chunk.file_name] += RowDigest(chunk.records, chunk.digest_sum, chunk.digest_moment)
    return dict(found)


def _of_files(paths: list[Path]) -> Mapping[str, RowDigest]:
    """Add up the digests in the files by the source file they are of."""
    found = defaultdict[str, RowDigest](RowDigest.zero)
    for path in paths:
        with pq.ParquetFile(path) as file:
            for rows in file.iter_batches():
                names, crcs = rows.column(0), rows.column(rows.num_columns - 1)
                for name in pc.unique(names).to_pylist():
                    own = crcs.filter(pc.equal(names, name))
                    found[name] += RowDigest.of(own.to_numpy())
    return dict(found)
