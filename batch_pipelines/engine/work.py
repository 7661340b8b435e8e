"""What every stage shares: what it is handed, which batch it works on, and how its end is recorded.

`action` is the table stage x state -> action of docs/stages.md. Not here: what a stage does.
"""

from __future__ import annotations

import datetime as dt
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import psycopg

from batch_pipelines.engine.audit import anchors
from batch_pipelines.engine.causes import cause_of
from batch_pipelines.engine.errors import (
    BatchError,
    LeaseLostError,
    PublishError,
    StageOrderError,
)
from batch_pipelines.engine.ledger import batches, rejects, stages

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from batch_pipelines.engine.causes import Cause
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.stages import Stage
    from batch_pipelines.engine.postgres.database import Connection, Database
    from batch_pipelines.engine.postgres.lease import Lease
    from batch_pipelines.engine.settings import Settings

Action = Literal["work", "report", "refuse"]


class Progress(Protocol):
    """Is told how far a stage has come."""

    def __call__(self, stage: Stage, done: int, total: int) -> None:
        """Take note.

        Args:
            stage: The stage.
            done: Records behind it.
            total: Records in all.
        """


class Notice(Protocol):
    """Is told what people should know before a stage goes on."""

    def __call__(self, text: str, /) -> None:
        """Take note.

        Args:
            text: A sentence without any value of a row.
        """


def no_notice(text: str, /) -> None:
    """Tell nobody."""


def utc_now() -> dt.datetime:
    """Give the time."""
    return dt.datetime.now(dt.UTC)


def no_progress(stage: Stage, done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Work:
    """One run's work on one partition: what a stage is handed beside its connection.

    Attributes:
        database: The target database, for connections beside the stage's own.
        settings: Folders and times.
        feed: The feed.
        key: Partition key.
        lease: The run's lease on the partition; it also names the run.
        requested_by: Who asked for the run.
        correlation_id: Ties the batch to what asked for it.
        progress: Is told how far a stage has come.
        notice: Is told what people should know before a stage goes on.
        clock: Gives the time, with time zone.
    """

    database: Database
    settings: Settings
    feed: Feed
    key: str
    lease: Lease
    requested_by: str
    correlation_id: str
    progress: Progress = no_progress
    notice: Notice = no_notice
    clock: Callable[[], dt.datetime] = utc_now

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.lease.run_id

    @property
    def name(self) -> str:
        """Feed and partition key."""
        return f"{self.feed.feed}/{self.key}"

    def staging(self, batch_id: str) -> Path:
        """Folder of a batch's staged files."""
        return self.settings.staging / batch_id

    def staged_source(self, batch_id: str) -> Path:
        """Folder of the staged copies of the delivered files."""
        return self.staging(batch_id) / "source"

    def staged_digests(self, batch_id: str) -> Path:
        """Folder of the row digests that bulk-write leaves for the bag."""
        return self.staging(batch_id) / "row_digests"

    def waiting_digests(self, batch_id: str) -> Path:
        """Folder of the row digests of rows that wait for validation."""
        return self.staging(batch_id) / "waiting_digests"

    def staged_feed(self, batch_id: str) -> Path:
        """Folder of the feed as it was when the batch was loaded."""
        return self.staging(batch_id) / "feed"

    def staged_rejects(self, batch_id: str) -> Path:
        """File in which bulk-write gathers the records that cannot be loaded."""
        return self.staging(batch_id) / "rejects.arrows"


# After these a batch has its state, or a duplicate's.
_ENDING: frozenset[Stage] = frozenset({"ingest", "validate", "archive"})
_WORK: tuple[Action, str] = ("work", "")
_NOT_VISIBLE: dict[Stage, tuple[Action, str]] = {
    "checksum": _WORK,
    "bulk_write": _WORK,
    # Of a batch whose rows wait, its bulk-write is done; of others it is not, and they refuse.
    "validate": _WORK,
    "archive": ("refuse", "nothing of it is published; run the whole partition"),
}
_NOT_VALIDATED: dict[Stage, tuple[Action, str]] = {
    "checksum": ("report", "its rows are published already"),
    "bulk_write": ("report", "its rows are published already"),
    "validate": _WORK,
    "archive": ("refuse", "only a validated batch is archived; run validate"),
}
_VALIDATED: dict[Stage, tuple[Action, str]] = {
    **_NOT_VALIDATED,
    "validate": ("report", "it is validated already"),
    "archive": _WORK,
}
_ACTIONS: dict[str, dict[Stage, tuple[Action, str]]] = {
    "IN_PROGRESS": _NOT_VISIBLE,
    "FAILED": _NOT_VISIBLE,
    "PUBLISHED": _NOT_VALIDATED,
    "VALIDATION_FAILED": _NOT_VALIDATED,
    "SUCCESS": _VALIDATED,
    "PARTIAL_SUCCESS": _VALIDATED,
    "ROLLED_BACK": dict.fromkeys(
        _VALIDATED, ("refuse", "it was rolled back; run the whole partition")
    ),
    **{
        status: dict.fromkeys(_VALIDATED, ("report", f"the batch is {status}"))
        for status in ("DUPLICATE", "SUPERSEDED", "ARCHIVED")
    },
}


def action(stage: Stage, status: str, done: Collection[str]) -> tuple[Action, str]:
    """Decide what a stage after ingest does with a batch; docs/stages.md shows the whole table.

    Args:
        stage: The stage that is asked to run.
        status: State of the batch.
        done: Stages that the batch has behind it.

    Returns:
        What to do, and for `report` and `refuse` why.
    """
    what, why = _ACTIONS[status][stage]
    before = stages.STAGES[stages.STAGES.index(stage) - 1]
    if what == "work" and status in batches.UNFINISHED and before not in done:
        return "refuse", f"its {before} is not done; run the whole partition"
    if what == "work" and stage == "archive" and stage in done:
        return "report", "it is archived already"
    return what, why


def batch_for(connection: Connection, work: Work, stage: Stage) -> tuple[Batch, bool]:
    """Find the batch that a stage after ingest has to do with, and attach the run to it.

    The run's own batch comes first; a run that has none (a retry from failure, one asset launched
    alone) attaches to the newest batch of the partition, or to the one that it is a duplicate of.

    Args:
        connection: A connection in autocommit mode.
        work: The run's work.
        stage: The stage.

    Returns:
        The batch, and whether there is work to do; without, the stage reports what it finds.

    Raises:
        StageOrderError: There is no batch, or its state does not allow the stage.
    """
    batch = batches.of_run(connection, work.run_id)
    if batch is None:
        batch = batches.newest(connection, work.feed.feed, work.key)
    if batch is None:
        message = (
            f"{work.name}: there is no batch to {stage}; run the whole partition, from ingest."
        )
        raise StageOrderError(message)
    records = stages.of_batch(connection, batch.batch_id)
    done = {name for name, record in records.items() if record.status == "SUCCESS"}
    what, why = action(stage, batch.status, done)
    if what == "refuse":
        message = f"{work.name}: {stage} cannot work on batch {batch.batch_id}: {why}."
        raise StageOrderError(message)
    batches.attach(connection, work.run_id, batch)
    return batch, what == "work"


def batch_to_replay(connection: Connection, work: Work) -> tuple[Batch, bool]:
    """Find the batch in force of which records were set aside, and attach the run to it.

    Args:
        connection: A connection in autocommit mode.
        work: The run's work.

    Returns:
        The batch, and whether there are records to load.

    Raises:
        StageOrderError: Nothing of the partition is visible, or its rejects were archived.
    """
    batch = batches.in_force(connection, work.feed.feed, work.key)
    if batch is None:
        message = f"{work.name}: nothing of it is published; import it, there is nothing to replay."
        last = batches.newest(connection, work.feed.feed, work.key)
        if last is not None and last.status == "ARCHIVED":
            message = (
                f"{work.name}: its rows are in the archive. Bring them back first: `batch-pipelines "
                f"restore {last.batch_id[:8]}`."
            )
        raise StageOrderError(message)
    if batch.rejected_records and not rejects.has_any(connection, batch.batch_id):
        message = (
            f"{work.name}: its rejects have left the ledger, because their time was over; "
            f"`batch-pipelines show {batch.batch_id[:8]}` says where they are. Have the sender deliver "
            "a correction."
        )
        raise StageOrderError(message)
    batches.attach(connection, work.run_id, batch)
    return batch, bool(batch.rejected_records)


@contextmanager
def recorded(connection: Connection, work: Work, batch_id: str, stage: Stage) -> Iterator[None]:
    """Record a stage's begin and end; what raises inside fails the batch if nothing is visible yet.

    Args:
        connection: A connection in autocommit mode.
        work: The run's work.
        batch_id: The batch.
        stage: The stage.

    Yields:
        Nothing.

    Raises:
        BatchError: What the stage raised; a driver's error as a sentence without its text.
        LeaseLostError: Another run has taken the partition over; the ledger is left to it.
    """
    work.lease.record_worker(connection)
    stages.start(connection, batch_id, stage, work.run_id)
    batches.resume(connection, batch_id)
    try:
        yield
        stages.end(connection, batch_id, stage)
        if stage in _ENDING:
            anchors.drop_quietly(connection, work.settings.anchors_folder, work.notice)
    except LeaseLostError:
        # The batch belongs to another run now, which has written down what became of it.
        raise
    except BaseException as error:
        why = explain(error)
        lost = _record_failure(work, batch_id, stage, why, cause_of(error))
        if lost is not None and isinstance(error, Exception):
            raise lost from None
        if isinstance(error, psycopg.Error):
            raise PublishError(why) from None
        raise


def _record_failure(
    work: Work, batch_id: str, stage: Stage, why: str, cause: Cause
) -> LeaseLostError | None:
    """Fail a stage and its batch, unless another run has the partition: then the word is its own.

    Over a connection of its own: the stage's may be broken. Where the database is gone altogether the
    batch stays in progress without a live lease, and the next run fails it.
    """
    try:
        with work.database.connect(f"{stage} failed") as ledger, ledger.transaction():
            work.lease.hold(ledger)
            stages.end(ledger, batch_id, stage, why, cause)
            batches.mark_failed(ledger, batch_id, why, cause)
        with work.database.connect("anchor") as ledger:
            anchors.drop_quietly(ledger, work.settings.anchors_folder, work.notice)
    except LeaseLostError as lost:
        return lost
    except (BatchError, psycopg.Error):
        pass
    return None


def explain(error: BaseException) -> str:
    """Say what went wrong without a row's values, a driver's text or a secret.

    Args:
        error: Any exception.

    Returns:
        A sentence for the ledger.
    """
    if isinstance(error, BatchError):
        return str(error)
    if isinstance(error, psycopg.Error):
        return _explain_driver(error)
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename else ""
        return f"The file system refused: {error.strerror or type(error).__name__}{place}."
    if not isinstance(error, Exception):
        # Ctrl+C, or what Dagster raises where a run is terminated.
        return "Interrupted."
    return f"Unexpected {type(error).__name__}; the run's log has its trace."


def _explain_driver(error: psycopg.Error) -> str:
    diag = error.diag
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        # It names what the role may not touch, and holds no value.
        return (
            f"PostgreSQL refused: {diag.message_primary} (SQLSTATE {error.sqlstate}). What the role of "
            "the pipelines needs stands in docs/roles.md."
        )
    where = [f"{k} {v}" for k, v in (
        ("table", diag.table_name), ("column", diag.column_name),
        ("constraint", diag.constraint_name),
    ) if v]  # fmt: skip
    if error.sqlstate:
        state = f"SQLSTATE {error.sqlstate}"
    elif isinstance(error, psycopg.OperationalError):
        state = "the connection was lost"
    else:
        # The statement never reached the server.
        return f"Unexpected {type(error).__name__} of PostgreSQL's driver; report it as a defect."
    return f"PostgreSQL ended the statement: {', '.join([state, *where])}."
