"""A bag of rows, opened: its account, and its rows, which are proven as they are read."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.archiving.bag import opened
from batch_pipelines.engine.archiving.choosing import place_of
from batch_pipelines.engine.archiving.rows.account import ACCOUNT, Account
from batch_pipelines.engine.archiving.rows.parquet import digest_of, read_rows
from batch_pipelines.engine.digests.row_digest import RowDigest
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.ledger import archives

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from batch_pipelines.engine.archiving.archives import Archive
    from batch_pipelines.engine.archiving.bag import Bag
    from batch_pipelines.engine.archiving.packing import Packing
    from batch_pipelines.engine.archiving.rows.account import TableRows
    from batch_pipelines.engine.ledger.archives import ArchiveRecord
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings

_RESTORE = "Restore it from a backup; `batch-pipelines archive verify` tells what else is damaged."


@dataclass(frozen=True)
class RowsBag:
    """What the ledger and the bag say of the rows that were put away of a batch.

    Attributes:
        record: Where the bag stands, and what seals it.
        account: Its tables with their digests, parents before children.
    """

    record: ArchiveRecord
    account: Account


@dataclass(frozen=True)
class OpenRows:
    """An open bag of rows.

    Attributes:
        account: Its tables.
    """

    account: Account
    _bag: Bag

    @property
    def packing(self) -> Packing:
        """How its files are packed."""
        return self._bag.packing

    def batches(self, table: TableRows) -> Iterator[pa.RecordBatch]:
        """Read the rows of a table; the file is proven before the first, and all rows with the last.

        Args:
            table: One of the account.

        Yields:
            The rows, in the order in which they were put away.

        Raises:
            ArchiveError: The file is not what the bag was sealed with, cannot be reached or decrypted,
                or its rows are not those of the account.
        """
        found = RowDigest.zero()
        for batch in read_rows(self._bag.path(table.file), table.columns):
            found += digest_of(batch, table.columns)
            yield batch
        if found != table.digest:
            message = (
                f"{self._bag.place}/data/{table.file}: it holds other rows ({found}) than the bag says "
                f"({table.digest}). {_RESTORE}"
            )
            raise ArchiveError(message)

    def fetch(self) -> None:
        """Have the files of all tables on this machine, and proven, before a transaction needs them.

        Raises:
            ArchiveError: A file is not what the bag was sealed with, cannot be reached or decrypted.
        """
        for table in self.account.tables:
            self._bag.path(table.file)

    def prove(self) -> None:
        """Read all rows of all tables.

        Raises:
            ArchiveError: As for `batches`.
        """
        for table in self.account.tables:
            for _ in self.batches(table):
                pass


def rows_bag(connection: Connection, settings: Settings, batch_id: str) -> RowsBag | None:
    """Read what was put away of a batch's rows, last if several times; no row is read.

    Args:
        connection: A connection.
        settings: Hold the keys, and say where files are unpacked.
        batch_id: The batch.

    Returns:
        The bag; None where there is none.

    Raises:
        ArchiveError: It is gone, damaged or cannot be reached.
    """
    record = archives.rows(connection, batch_id)
    if record is None:
        return None
    archive, name = place_of(settings, record.place)
    with open_rows_at(settings, archive, name, record.tagmanifest_sha256) as rows:
        return RowsBag(record, rows.account)


@contextmanager
def open_rows(connection: Connection, settings: Settings, batch_id: str) -> Iterator[OpenRows]:
    """Open the newest bag of a batch's rows.

    Args:
        connection: A connection.
        settings: Hold the keys, and say where files are unpacked.
        batch_id: The batch.

    Yields:
        The bag.

    Raises:
        ArchiveError: There is none, or it is gone, damaged or cannot be reached.
    """
    record = archives.rows(connection, batch_id)
    if record is None:
        message = f"Batch {batch_id}: no rows of it were put away."
        raise ArchiveError(message)
    archive, name = place_of(settings, record.place)
    with open_rows_at(settings, archive, name, record.tagmanifest_sha256) as rows:
        yield rows


@contextmanager
def open_rows_at(settings: Settings, archive: Archive, name: str, seal: str) -> Iterator[OpenRows]:
    """Open a bag of rows by its name.

    Args:
        settings: Hold the keys, and say where files are unpacked.
        archive: Where it stands.
        name: The bag.
        seal: SHA-256 of its tag manifest, hex.

    Yields:
        The bag.

    Raises:
        ArchiveError: It is gone, or not the one that was sealed.
    """
    with opened(settings, archive, name, seal) as bag:
        pieces: list[bytes] = []
        bag.read(ACCOUNT, pieces.append)
        yield OpenRows(Account.of_json(b"".join(pieces)), bag)
