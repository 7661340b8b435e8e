"""Reconcile: compare batches that another system has loaded with their files, each by itself.

Nothing is written but the ledger: copies of files and temporary tables are gone when a batch is done.
One that fails, or cannot be verified, never keeps the next one from its turn.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from psycopg import sql

from batch_pipelines.engine.errors import (
    BusyError,
    FeedError,
    ReconciliationError,
)
from batch_pipelines.engine.ledger import proofs, reconciliations
from batch_pipelines.engine.reconciliation.loaded_batches import (
    check_loaded,
    comparable_tables,
    loaded_batches,
    loaded_in,
)
from batch_pipelines.engine.reconciliation.query import reconcile_query
from batch_pipelines.engine.reconciliation.scratch import scratch_folder
from batch_pipelines.engine.reconciliation.source_files import copy_source
from batch_pipelines.engine.reconciliation.table import reconcile_table
from batch_pipelines.engine.signatures import Terms
from batch_pipelines.engine.work import explain
from batch_pipelines.engine.writing.server_changed import require_known
from batch_pipelines.engine.writing.source import table_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from batch_pipelines.engine.catalog import TableInfo
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.proofs import TableValidation
    from batch_pipelines.engine.ledger.reconciliations import LogEntry
    from batch_pipelines.engine.postgres.database import Connection, Database
    from batch_pipelines.engine.settings import Settings

Outcome = Literal["SUCCESS", "PARTIAL_SUCCESS", "FAILED", "UNVERIFIED"]
WHOLE = "whole"
"""Stands for a batch in the log where a table is compared as a whole."""
LOCK_CLASS = 0x62700005
"""One more class of two-key advisory locks, beside those of `database`."""
_TRY_LOCK = "SELECT pg_try_advisory_lock(%s, hashtext(%s))"


@dataclass(frozen=True)
class TableReconciliation:
    """What is known of batches in one table.

    Attributes:
        log: The entry of the validation log.
        found: The checks and the rows that differ; None where they could not be made.
    """

    log: LogEntry
    found: TableValidation | None


@dataclass(frozen=True)
class Reconciliation:
    """What is known of a batch that another system has loaded, or of several compared together.

    Attributes:
        feed: The feed.
        batches: The other system's ids.
        worked: Whether they were compared now; without, they had been before.
        tables: What was found in each table.
        exception: Why nothing was done; None where something was.
    """

    feed: str
    batches: tuple[str, ...]
    worked: bool
    tables: tuple[TableReconciliation, ...]
    exception: str | None = None

    @property
    def status(self) -> Outcome:
        """The worst of its tables; what could not be verified is no success."""
        found = {table.log.status for table in self.tables}
        if "FAILED" in found:
            return "FAILED"
        return "SUCCESS" if found == {"SUCCESS"} else "UNVERIFIED"


def overall(found: Iterable[Reconciliation]) -> Outcome:
    """Give the status of a run.

    Args:
        found: What it found of each batch.

    Returns:
        `PARTIAL_SUCCESS` where some batches passed and some did not; `SUCCESS` where there was none.
    """
    statuses = {each.status for each in found}
    if statuses <= {"SUCCESS"}:
        return "SUCCESS"
    if "SUCCESS" in statuses:
        return "PARTIAL_SUCCESS"
    return "FAILED" if "FAILED" in statuses else "UNVERIFIED"


def require_reconciled(found: Reconciliation) -> None:
    """Raise where rows differ or could not be compared, so that it is never quiet.

    Args:
        found: What was found.

    Raises:
        ReconciliationError: The batch is no success.
    """
    if found.status == "SUCCESS":
        return
    reasons = [f"{t.log.target_table}: {t.log.exception}" for t in found.tables if t.log.exception]
    reasons += [found.exception] if found.exception else []
    name = f"{found.feed}/{found.batches[0]}" if len(found.batches) == 1 else found.feed
    message = (
        f"{name}: {found.status}. {'; '.join(reasons)}. `batch-pipelines show {name}` tells more."
    )
    raise ReconciliationError(message)


@dataclass(frozen=True)
class Reconciler:
    """Compares batches that another system has loaded.

    Attributes:
        database: The target database.
        settings: Folders.
        feed: A feed that is reconciled.
        requested_by: Who asked for it.
        run_id: The Dagster run that does it, or None.
    """

    database: Database
    settings: Settings
    feed: Feed
    requested_by: str
    run_id: str | None = None

    def run(
        self, connection: Connection, batch: str | None = None, *, force: bool = False
    ) -> Iterator[Reconciliation]:
        """Compare one batch, or all that nobody has compared yet.

        Args:
            connection: A connection in autocommit mode.
            batch: The other system's id of the batch; None for all.
            force: Compare again what has been.

        Yields:
            What was found of each batch, as soon as it is known; of one that was asked for and has been
            compared before, what was found then.

        Raises:
            FeedError: The feed does not fit its tables, or nothing loads them but this program.
        """
        if not self.feed.is_reconciled:
            message = (
                f"Feed {self.feed.feed} loads its tables itself: `batch-pipelines import "
                f"{self.feed.feed}` validates what it loads. `write: none` makes a feed reconcile."
            )
            raise FeedError(message)
        check_loaded(connection, self.feed)
        tables = comparable_tables(connection, self.feed)
        require_known(self.feed, tables)
        if self.feed.is_compared_whole:
            if batch not in {None, WHOLE}:
                message = f"Feed {self.feed.feed} compares its table as a whole; leave --batch out."
                raise FeedError(message)
            # What was equal then need not be now.
            yield self._reconcile(connection, (WHOLE,), tables)
            return
        if batch is not None:
            known = _known(connection, self.feed.feed, (batch,), worked=False)
            done = known.status in {"SUCCESS", "FAILED"} and not force
            yield known if done else self._reconcile(connection, (batch,), tables)
            return
        found = loaded_batches(connection, self.feed, every=force)
        if self.feed.validation == "together" and found:
            yield self._reconcile(connection, tuple(found), tables)
            return
        for each in found:
            yield self._reconcile(connection, (each,), tables)

    def _reconcile(
        self, ledger: Connection, batches: tuple[str, ...], tables: Sequence[TableInfo]
    ) -> Reconciliation:
        """Compare batches over a connection of their own: what breaks it does not break the next."""
        try:
            with self.database.connect("reconcile") as connection:
                self._lock(connection, batches)
                reconciliations.end_dead(ledger, self.feed.feed, batches)
                self._compare(ledger, connection, batches, tables)
        except BusyError as error:
            return Reconciliation(
                self.feed.feed, batches, worked=False, tables=(), exception=str(error)
            )
        return _known(ledger, self.feed.feed, batches, worked=True)

    def _lock(self, connection: Connection, batches: Sequence[str]) -> None:
        for batch in batches:
            name = f"{self.feed.feed}/{batch}"
            ((taken,),) = connection.execute(_TRY_LOCK, (LOCK_CLASS, name)).fetchall()
            if not taken:
                message = f"{name}: another run compares it just now."
                raise BusyError(message)

    def _compare(
        self,
        ledger: Connection,
        connection: Connection,
        batches: Sequence[str],
        tables: Sequence[TableInfo],
    ) -> None:
        for number, table in enumerate(tables):
            with self._logged(ledger, table, batches) as log_id:
                if number:
                    connection.execute("DISCARD TEMPORARY")
                found = self._compare_table(connection, batches, table)
                proofs.close_validation(ledger, None, log_id, found)

    def _compare_table(
        self, connection: Connection, batches: Sequence[str], table: TableInfo
    ) -> TableValidation:
        own = self.feed.table_named(table.full_name)
        whole = self.feed.is_compared_whole
        where = sql.SQL("true") if whole else loaded_in(own, batches)
        with scratch_folder(self.settings.home) as scratch:
            folder = scratch / "source"
            if self.feed.source.query is not None:
                return reconcile_query(connection, self.feed, table, where, batches[0], folder)
            copied = copy_source(connection, self.feed, own, batches, self.settings.root, folder)
            files = [part for file in copied if (part := file.of_table(table.full_name))]
            route = self.feed.route(table.full_name)
            terms = Terms(server_changed=frozenset(own.server_changed))
            source = table_source(
                table, files, folder, self.feed.form_of(table.full_name), route, terms
            )
            return reconcile_table(connection, source, where, own.key or table.primary_key)

    @contextmanager
    def _logged(
        self, ledger: Connection, table: TableInfo, batches: Sequence[str]
    ) -> Iterator[int]:
        """Open an entry of the log; what cannot be verified ends it, and goes no further."""
        log_id = reconciliations.open_log(
            ledger, self.feed.feed, table.full_name, batches,
            requested_by=self.requested_by, run_id=self.run_id,
        )  # fmt: skip
        try:
            yield log_id
        except BaseException as error:
            proofs.abandon_validation(ledger, log_id, explain(error))
            # Whatever is wrong with a batch is written down, and the next one has its turn.
            if not isinstance(error, Exception):
                raise


def find_reconciled(connection: Connection, reference: str) -> Reconciliation | None:
    """Read what was found last of a batch that another system has loaded.

    Args:
        connection: A connection.
        reference: FEED/ID, with the other system's id.

    Returns:
        What was found; None where no such batch was reconciled.
    """
    feed, _, batch = reference.partition("/")
    known = _known(connection, feed, (batch,), worked=False)
    return known if known.tables else None


def _known(
    connection: Connection, feed: str, batches: tuple[str, ...], *, worked: bool
) -> Reconciliation:
    logs = reconciliations.newest(connection, feed, batches[0])
    tables = [
        TableReconciliation(log, proofs.validation_of_log(connection, log.id)) for log in logs
    ]
    return Reconciliation(feed, batches, worked, tuple(tables))
