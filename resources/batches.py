"""The resource `batches`: a run's work on a partition, with its database connection and lease.

The lease is taken by the first stage of a run and kept until the run's process ends with it, so that
no other run slips in between two stages.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import dagster as dg

from batch_pipelines.engine.feed_files import load_feeds
from batch_pipelines.engine.ledger import batches as ledger
from batch_pipelines.engine.postgres.actor import UNAUTHENTICATED, Actor, here
from batch_pipelines.engine.postgres.database import open_database
from batch_pipelines.engine.postgres.lease import acquire
from batch_pipelines.engine.postgres.migrate import require_current
from batch_pipelines.engine.reports.filing import file_batch, file_feed
from batch_pipelines.engine.work import Work, no_progress
from resources.runs import record_process, report_dead
from resources.storage import hold_connections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Connection, Database
    from batch_pipelines.engine.postgres.lease import Lease
    from batch_pipelines.engine.reports.filing import Filed, Place
    from batch_pipelines.engine.settings import Settings
    from batch_pipelines.engine.work import Progress

REQUESTED_BY_TAG = "batch-pipelines/requested_by"
TAKEN_OVER = "Its process ended without a word; another run has taken its partition over."


@dataclass
class Batches:
    """Hands out work; one object for the length of a run's process.

    Attributes:
        settings: The settings.
        database: The target database.
        progress: Told how far a stage has come.
    """

    settings: Settings
    database: Database
    progress: Progress = no_progress
    _stack: ExitStack = field(default_factory=ExitStack)
    _leases: dict[tuple[str, str, str], Lease] = field(default_factory=dict)

    @contextmanager
    def connect(self, purpose: str) -> Iterator[Connection]:
        """Open a connection to a ledger of this program's version, for the length of a block.

        Args:
            purpose: What it is for.

        Yields:
            The connection, in autocommit mode.
        """
        with self.database.connect(purpose) as connection:
            require_current(connection)
            yield connection

    @contextmanager
    def work(
        self, context: dg.AssetExecutionContext, feed: Feed, stage: str
    ) -> Iterator[tuple[Connection, Work]]:
        """Open what a stage is handed.

        Args:
            context: The asset's context: its partition, run and tags.
            feed: The feed.
            stage: The stage, shown in pg_stat_activity.

        Yields:
            A connection in autocommit mode, and the run's work on the partition.

        Raises:
            BusyError: Another live run holds the partition.
        """
        run, key = context.run, context.partition_key
        database = self.acting_for(run)
        with database.connect(stage) as connection:
            require_current(connection)
            lease = self._lease(feed.feed, key, run.run_id)
            if lease.before is not None and lease.before.died:
                report_dead(context.instance, lease.before.run_id, TAKEN_OVER)
            work = Work(
                database=database,
                settings=self.settings,
                feed=feed,
                key=key,
                lease=lease,
                requested_by=requester(run),
                correlation_id=run.root_run_id or run.run_id,
                progress=self.progress,
                notice=context.log.warning,
            )
            try:
                yield connection, work
            except Exception:
                # A stage that fails leaves no metadata in which to look for the report.
                filed = self.file_report(connection, work)
                if filed is not None:
                    context.log.info("Report of the batch: %s", filed.url or filed.path)
                raise

    def file_report(self, connection: Connection, work: Work) -> Filed | None:
        """Write the report of the batch that a run works on, which is no reason for it to fail.

        Args:
            connection: A connection in autocommit mode.
            work: The run's work.

        Returns:
            Where it is; None where the run has no batch yet, or it could not be written, of which the
            run's log tells.
        """
        try:
            batch = ledger.of_run(connection, work.run_id)
            if batch is None:
                return None
            return file_batch(connection, self.settings, batch.batch_id, work.clock())
        except Exception as error:  # noqa: BLE001  # whatever it is, the batch is none the worse
            work.notice(f"The report of the batch was not written: {type(error).__name__}")
            return None

    def file_feed_report(self, connection: Connection, work: Work) -> Place | None:
        """Write the report of the feed that a run works on, which is no reason for it to fail.

        Args:
            connection: A connection in autocommit mode.
            work: The run's work.

        Returns:
            Where it is; None where it could not be written, of which the run's log tells.
        """
        try:
            return file_feed(connection, self.settings, work.feed, work.clock())
        except Exception as error:  # noqa: BLE001  # whatever it is, the batch is none the worse
            work.notice(f"The report of the feed was not written: {type(error).__name__}")
            return None

    def acting_for(self, run: dg.DagsterRun) -> Database:
        """Give the target database as whoever has asked for a run acts on it.

        Args:
            run: The run; the audit trail names its id, too.
        """
        session = {**here(), "run_id": run.run_id}
        return replace(self.database, actor=Actor(requester(run), session))

    def feeds(self) -> dict[str, Feed]:
        """Read the feeds by name, as their files are now."""
        return load_feeds(self.settings.feeds)

    def close(self) -> None:
        """Release every lease."""
        self._stack.close()

    def _lease(self, feed: str, key: str, run_id: str) -> Lease:
        wanted = (feed, key, run_id)
        if wanted not in self._leases:
            seconds = self.settings.lease_seconds
            lease = acquire(self.database, feed, key, run_id, seconds=seconds)
            self._leases[wanted] = self._stack.enter_context(lease)
        return self._leases[wanted]


def requester(run: dg.DagsterRun) -> str:
    """Say who has asked for a run."""
    return run.tags.get(REQUESTED_BY_TAG, UNAUTHENTICATED)


def batches_resource(
    load: Callable[[], Settings], progress: Progress = no_progress
) -> dg.ResourceDefinition:
    """Make the resource.

    Args:
        load: Reads the settings, when a run begins.
        progress: Told how far a stage has come.

    Returns:
        A resource that yields a `Batches`.
    """

    @dg.resource(description="Database, lease and settings for the stages of a batch.")
    def batches(context: dg.InitResourceContext) -> Iterator[Batches]:
        if context.run is not None and context.instance is not None:
            hold_connections(context.instance)
            record_process(context.instance, context.run.run_id)
        settings = load()
        with open_database(settings) as database:
            # What is no run's own, such as a sensor's look, Dagster does.
            own = replace(database, actor=Actor("dagster", here()))
            handed = Batches(settings, own, progress)
            try:
                yield handed
            finally:
                handed.close()

    return batches
