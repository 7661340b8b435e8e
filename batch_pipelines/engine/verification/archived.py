"""Verifying a batch whose rows are in the archive: none is left in the table, and the bag has all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from batch_pipelines.engine.archiving.rows.reading import open_rows
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.ledger import archives
from batch_pipelines.engine.work import explain

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.verifications import TableVerification
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings


def verify_archived(
    connection: Connection, settings: Settings, batch_id: str, found: TableVerification
) -> TableVerification:
    """Read the rows of a batch in its bag, and hold them against the digest they were put away with.

    Args:
        connection: A connection.
        settings: Hold the keys, and say where files are unpacked.
        batch_id: The batch.
        found: What was found in the table: no row.

    Returns:
        The same, and what was found in the bag; `exception` says where the rows are.
    """
    record = archives.rows(connection, batch_id)
    try:
        with open_rows(connection, settings, batch_id) as rows:
            for table in rows.account.tables:
                if table.full_name != found.target_table:
                    continue
                number = sum(part.num_rows for part in rows.batches(table))
                place = "" if record is None else record.place
                told = (
                    f"its {number:,} rows are in {place}, read again, and are as they were put away"
                )
                return replace(found, exception=told)
    except (ArchiveError, OSError) as error:
        return replace(found, status="FAILED", exception=explain(error))
    return replace(found, status="FAILED", exception="its rows are in no bag")
