"""Verify a batch: count and digest of its rows of today against the ledger; where they differ, which.

Of a batch that fills no table, its files are read again (`files`).

Each table is looked at in one snapshot, so that batches which are published meanwhile make no
difference. Rows that a later batch has legitimately replaced are none either: of a batch that was
superseded, rolled back or archived no row should be left, and of rows that were updated by key the
images that were kept stand in for them.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg

from batch_pipelines.engine.catalog import is_stamped
from batch_pipelines.engine.digests import RowDigest
from batch_pipelines.engine.digests.recorded import asked, digest_today
from batch_pipelines.engine.digests.sql import digest_statement
from batch_pipelines.engine.errors import VerificationError
from batch_pipelines.engine.feeds import NO_TABLE
from batch_pipelines.engine.ledger import batches, proofs, verifications
from batch_pipelines.engine.ledger.verifications import TableVerification
from batch_pipelines.engine.verification.archived import verify_archived
from batch_pipelines.engine.verification.files import verify_files
from batch_pipelines.engine.verification.naming import name_differences
from batch_pipelines.engine.verification.rows import GONE, SNAPSHOT, batch_rows
from batch_pipelines.engine.work import explain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batch_pipelines.engine.digests.sides import BatchRows
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.proofs import TableBalance
    from batch_pipelines.engine.ledger.verifications import Outcome
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings

_OUTCOMES: tuple[Outcome, ...] = ("FAILED", "UNVERIFIED", "PARTIAL_SUCCESS", "SUCCESS")


@dataclass(frozen=True)
class Verification:
    """What became of a batch's rows.

    Attributes:
        batch: The batch.
        tables: What was found in each of its tables.
        exception: Why nothing of it could be verified; None where something could.
    """

    batch: Batch
    tables: tuple[TableVerification, ...]
    exception: str | None = None

    @property
    def status(self) -> Outcome:
        """The worst of its tables."""
        found = {table.status for table in self.tables}
        return next((status for status in _OUTCOMES if status in found), "UNVERIFIED")


@dataclass(frozen=True)
class Verifier:
    """Proves batches again.

    Attributes:
        settings: Say where bags and staging are.
        feeds: The feeds by name, with which the source of a changed row is read again.
        requested_by: Who asked for it.
        run_id: The Dagster run that does it, or None.
    """

    settings: Settings
    feeds: Mapping[str, Feed]
    requested_by: str
    run_id: str | None = None

    def verify(self, connection: Connection, batch: Batch) -> Verification:
        """Prove a batch again, and record what was found.

        Args:
            connection: A connection in autocommit mode.
            batch: The batch; of a duplicate, that is the batch which it is one of.

        Returns:
            What was found.
        """
        if batch.duplicate_of is not None:
            batch = batches.by_id(connection, batch.duplicate_of)
        tables = [table.target_table for table in proofs.tables(connection, batch.batch_id)]
        if not tables and batch.published_at is None:
            why = f"the batch is {batch.status}: nothing of it was published"
            return Verification(batch, (), why)
        found = []
        for full_name in tables or [NO_TABLE]:
            one = self._verify_table(connection, batch, full_name)
            verifications.record(
                connection, batch.batch_id, one,
                run_id=self.run_id, requested_by=self.requested_by,
            )  # fmt: skip
            found.append(one)
        return Verification(batch, tuple(found))

    def _verify_table(
        self, connection: Connection, batch: Batch, full_name: str
    ) -> TableVerification:
        began = dt.datetime.now(dt.UTC)
        unknown = (None,) * 7
        found = TableVerification(full_name, "UNVERIFIED", began, *unknown, [], "", None, [])
        feed = self.feeds.get(batch.feed)
        try:
            with connection.transaction():
                connection.execute(SNAPSHOT)
                now = batches.by_id(connection, batch.batch_id)
                if full_name == NO_TABLE:
                    return verify_files(connection, self.settings, now, found)
                tables = {t.target_table: t for t in proofs.tables(connection, batch.batch_id)}
                found = _verify(connection, self.settings, feed, now, tables[full_name], found)
            if now.status == "ARCHIVED" and found.status == "SUCCESS" and tables[full_name].stored:
                return verify_archived(connection, self.settings, batch.batch_id, found)
        except psycopg.Error as error:
            if connection.broken:
                raise
            return replace(found, exception=explain(error))
        return found


def require_proven(found: Iterable[Verification]) -> None:
    """Raise where rows differ, so that it is never quiet.

    Args:
        found: What was found.

    Raises:
        VerificationError: Rows of some batches differ; they are named.
    """
    differing = [each.batch for each in found if each.status == "FAILED"]
    if differing:
        names = ", ".join(f"{batch.name} ({batch.batch_id[:8]})" for batch in differing)
        message = (
            f"Rows differ from what was recorded of them in {names}. "
            "`batch-pipelines verify BATCH` names them."
        )
        raise VerificationError(message)


def _verify(
    connection: Connection,
    settings: Settings,
    feed: Feed | None,
    batch: Batch,
    recorded: TableBalance,
    found: TableVerification,
) -> TableVerification:
    """Verify a table inside its snapshot."""
    expected = 0 if batch.status in GONE else recorded.stored
    found = replace(found, expected_rows=expected, not_covered=recorded.not_covered)
    if not is_stamped(connection, recorded.target_table):
        why = "the table, or its column for the stamp, is gone"
        return replace(found, status="FAILED" if expected else "UNVERIFIED", exception=why)
    rows, unproven = batch_rows(connection, batch, recorded)
    if rows.columns.names:
        statement = digest_statement(connection, *asked(rows)[0])
        found = replace(found, sql=statement.as_string(connection).strip())
    digests = _digests(connection, rows)
    sent = (recorded.digest_sum, recorded.digest_moment) if rows.columns.names else (0, 0)
    if digests is not None and digests[0] + digests[1] == RowDigest(expected, *sent):
        proven: Outcome = "PARTIAL_SUCCESS" if recorded.not_covered else "SUCCESS"
        return replace(
            found, status=proven if unproven is None else "UNVERIFIED", actual_rows=expected,
            replaced=digests[1].rows, changed=0, missing=0, added=0, duplicated=0, exception=unproven,
        )  # fmt: skip
    named = name_differences(connection, settings, feed, rows, recorded=expected > 0)
    reasons = [reason for reason in (unproven, named.exception) if reason is not None]
    comparison = named.comparison
    if comparison is None:
        actual = None if digests is None else digests[0].rows + digests[1].rows
        return replace(
            found, status="FAILED", actual_rows=actual, exception="; ".join(reasons) or None
        )
    if not comparison.differs:
        reasons.append("the ledger contradicts itself: `batch_table` and `row_digest` differ")
    return replace(
        found, status="FAILED", actual_rows=comparison.stored, replaced=comparison.replaced,
        changed=comparison.changed, missing=comparison.missing, added=comparison.added,
        duplicated=comparison.duplicated, exception="; ".join(reasons) or None,
        details=named.details,
    )  # fmt: skip


def _digests(connection: Connection, rows: BatchRows) -> tuple[RowDigest, RowDigest] | None:
    """Digest the rows of today; None where a value cannot be brought back to its earlier type."""
    try:
        with connection.transaction():
            return digest_today(connection, rows)
    except psycopg.DataError:
        return None
