"""Files that are not what their sender or their store says: whether a batch may go on without them.

Here is only what has to hold then. Not here: finding them (`intake`, `checksum`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.errors import DeliveryError, ThresholdError
from batch_pipelines.engine.feeds import EVERY_TABLE
from batch_pipelines.engine.ledger import batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.work import Work

_AGAIN = "Nothing was written. Deliver what is right, and run again."


def require_enough(connection: Connection, work: Work, staged: Sequence[ImportFile]) -> None:
    """Refuse to go on without the bad files of a delivery where more would be lost than they.

    Args:
        connection: A connection.
        work: The run's work.
        staged: All files of the batch.

    Raises:
        DeliveryError: The feed does not set files aside; or a table would get no file; or the rows of an
            earlier batch would be replaced, of which those in the bad files would be missing.
        ThresholdError: There are more of them than the feed tolerates.
    """
    bad = [file for file in staged if file.problem is not None]
    if not bad:
        return
    why = "; ".join(file.problem or "" for file in bad)
    if work.feed.on_bad_file == "fail":
        raise DeliveryError(f"{why}. {_AGAIN}")
    limit = work.feed.thresholds.broken_by_files(len(bad), len(staged))
    if limit is not None:
        found = f"{len(bad)} of {len(staged)} files are bad, above {limit}"
        message = f"{work.name}: {found}: {why}. {_AGAIN}"
        raise ThresholdError(message, {})
    if len(bad) == len(staged):
        raise DeliveryError(f"{why}. There is no other file. {_AGAIN}")
    filled = {file.target_table for file in staged if file.problem is None}
    for table in work.feed.tables:
        if not filled & {EVERY_TABLE, table.table}:
            message = (
                f"{why}. No other file is for {table.table}, so the batch does not go on. {_AGAIN}"
            )
            raise DeliveryError(message)
    old = batches.in_force(connection, work.feed.feed, work.key)
    if old is not None and work.feed.tables:
        message = (
            f"{why}. The delivery would replace batch {old.batch_id}, of which what stands in the bad "
            f"files would be lost. {_AGAIN}"
        )
        raise DeliveryError(message)
