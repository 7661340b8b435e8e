"""`import` and `replay`: run a feed's Dagster job in this process, with progress."""

from __future__ import annotations

import datetime as dt
import os
import pwd
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import rich.console
import rich.progress
import typer

from batch_pipelines.cli.batches import next_command
from batch_pipelines.cli.catalog import tell_catalog
from batch_pipelines.cli.rehearse import rehearse_all
from batch_pipelines.cli.show import Json, complain, console, print_json, reason_text, say, status
from batch_pipelines.engine.errors import BatchError, StageOrderError
from batch_pipelines.engine.feed_files import find_feed, load_feeds
from batch_pipelines.engine.ledger import archives, files, pauses
from batch_pipelines.engine.ledger import batches as ledger
from batch_pipelines.engine.ledger import rejects as quarantine
from batch_pipelines.engine.postgres.migrate import require_current
from batch_pipelines.engine.reprocessing import require_source
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.engine.sources import gathered_keys, keys_to_import
from batch_pipelines.engine.windowing.timetable import require_over
from batch_pipelines.instance import open_instance, prepared
from batch_pipelines.run_tags import feed_tags

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import dagster as dg

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.rejects import RejectCount
    from batch_pipelines.engine.ledger.stages import Stage
    from batch_pipelines.engine.postgres.database import Database
    from batch_pipelines.engine.settings import Settings

_FAILED, _PARTIAL = 1, 3
# Reasons for rejects that are told of a batch.
_REASONS = 5
_INTERRUPTED = "Interrupted."
# Dagster's own log of each step goes to its event log; on the terminal only what is wrong.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def import_(
    feed: Annotated[str, typer.Argument(help="Name of the feed.")],
    *,
    batch: Annotated[
        str | None, typer.Option(help="Partition key; without it, all that lies in landing.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Load again what is in force; it is superseded.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Do it all, say what would happen, and take it back.")
    ] = False,
    json: Json = False,
) -> None:
    """Import deliveries of a feed."""
    settings = load_settings()
    feeds = load_feeds(settings.feeds)
    chosen = find_feed(feeds, feed)
    gathers = chosen.source.gather is not None
    keys = (
        [] if gathers else keys_to_import(chosen, batch, settings.root, now=dt.datetime.now(dt.UTC))
    )
    with prepared(settings) as database:
        with database.connect("import") as connection:
            require_current(connection)
            if gathers:
                keys = gathered_keys(connection, chosen, batch, settings.root, time.time)
            # What changes nothing may be tried all the same.
            if not dry_run:
                pauses.require_running(connection, chosen.feed)
        if dry_run:
            rehearse_all(chosen, keys, settings, database, json=json)
            return
        tags = feed_tags(feeds.values())[feed]
        importer = _Importer(chosen, settings, database, tags, force=force)
        outcomes = importer.run(keys, quiet=json)
        tell_catalog(settings, database, feeds, quiet=json)
    _end(outcomes, json=json)


def replay(
    batch: Annotated[str, typer.Argument(help="Batch id, unique prefix of one, or FEED/KEY.")],
    *,
    json: Json = False,
) -> None:
    """Load what was set aside of a published batch, once the cause is mended."""
    settings = load_settings()
    with prepared(settings) as database:
        with database.connect("replay") as connection:
            require_current(connection)
            found = ledger.find(connection, batch)
            pauses.require_running(connection, found.feed)
            inforce = ledger.in_force(connection, found.feed, found.partition_key)
        if inforce is None or inforce.batch_id != found.batch_id:
            message = (
                f"Batch {found.batch_id} ({found.name}) is {found.status}: only what is in force is "
                "replayed. Import the partition again."
            )
            raise StageOrderError(message)
        if not found.rejected_records:
            say(
                f"{found.batch_id[:8]}  {found.name}: nothing was set aside, there is nothing to do."
            )
            return
        feeds = load_feeds(settings.feeds)
        feed = find_feed(feeds, found.feed)
        require_over(feed, found.partition_key, now=dt.datetime.now(dt.UTC))
        tags = feed_tags(feeds.values())[feed.feed]
        importer = _Importer(feed, settings, database, tags, replay=True)
        outcomes = importer.run([found.partition_key], quiet=json)
        tell_catalog(settings, database, feeds, quiet=json)
    _end(outcomes, json=json)


def reprocess(
    batch: Annotated[str, typer.Argument(help="Batch id, unique prefix of one, or FEED/KEY.")],
    *,
    json: Json = False,
) -> None:
    """Import the source of a batch again, out of its bag, as a new batch that takes its place."""
    settings = load_settings()
    with prepared(settings) as database:
        with database.connect("reprocess") as connection:
            require_current(connection)
            found = ledger.find(connection, batch)
            feeds = load_feeds(settings.feeds)
            feed = find_feed(feeds, found.feed)
            pauses.require_running(connection, feed.feed)
            origin = require_source(connection, settings, found)
        tags = feed_tags(feeds.values())[feed.feed]
        importer = _Importer(feed, settings, database, tags, reprocess=origin.batch_id)
        outcomes = importer.run([origin.partition_key], quiet=json)
    _end(outcomes, json=json)


@dataclass(frozen=True)
class Again:
    """Partitions of a feed that are imported again.

    Attributes:
        feed: The feed.
        keys: Their partition keys.
        reprocess: The batch whose source they are, out of its bag; None for what lies in landing.
    """

    feed: Feed
    keys: tuple[str, ...]
    reprocess: str | None = None


def import_again(
    settings: Settings, database: Database, wanted: Sequence[Again], *, json: bool
) -> None:
    """Import partitions of several feeds, and end as `import` does.

    Args:
        settings: The settings.
        database: The target database.
        wanted: What is imported.
        json: Whether to print JSON.
    """
    feeds = load_feeds(settings.feeds)
    tags = feed_tags(feeds.values())
    outcomes = []
    for each in wanted:
        own = tags[each.feed.feed]
        importer = _Importer(each.feed, settings, database, own, reprocess=each.reprocess)
        outcomes += importer.run([*each.keys], quiet=json)
    tell_catalog(settings, database, feeds, quiet=json)
    _end(outcomes, json=json)


def _end(outcomes: list[Imported], *, json: bool) -> None:
    if json:
        print_json(outcomes)
    if any(outcome.problem is not None for outcome in outcomes):
        raise typer.Exit(_FAILED)
    if any(o.batch is not None and o.batch.status == "PARTIAL_SUCCESS" for o in outcomes):
        raise typer.Exit(_PARTIAL)


@dataclass(frozen=True)
class Imported:
    """What became of one partition.

    Attributes:
        name: Feed and partition key.
        batch: The batch that the run worked on; None where it got none, because another run holds
            the partition, as a rule.
        problem: What went wrong, if anything did.
        rejects: How many of its records each reason holds back.
        files_set_aside: What is wrong with each file that it went on without.
        files: How many files it went on with.
    """

    name: str
    batch: Batch | None
    problem: str | None
    rejects: list[RejectCount] = field(default_factory=list)
    files_set_aside: list[str] = field(default_factory=list)
    files: int = 0


class _Importer:
    """Runs one feed's job for one partition after the other."""

    def __init__(
        self,
        feed: Feed,
        settings: Settings,
        database: Database,
        tags: Mapping[str, str],
        *,
        force: bool = False,
        replay: bool = False,
        reprocess: str | None = None,
    ) -> None:
        # Dagster takes a second and a half to import; what is wrong above is said without it.
        from batch_pipelines.definitions import build_defs  # noqa: PLC0415

        self._feed, self._settings, self._database = feed, settings, database
        self._ingest: dict[str, object] = {"force": force, "reprocess": reprocess}
        self._tags = tags
        self._instance: dg.DagsterInstance = open_instance()
        defs = build_defs(feeds=[feed], load=lambda: settings, progress=self._tell)
        self._replay = replay
        self._job = defs.resolve_job_def(f"{feed.feed}_replay" if replay else feed.feed)
        self._progress: rich.progress.Progress | None = None
        self._task = rich.progress.TaskID(0)

    def run(self, keys: list[str], *, quiet: bool) -> list[Imported]:
        from batch_pipelines.partitions import register  # noqa: PLC0415
        from resources.batches import Batches  # noqa: PLC0415
        from resources.dead_runs import end_dead_runs  # noqa: PLC0415

        # Nobody else may look: the daemon need not run.
        end_dead_runs(self._instance, Batches(self._settings, self._database))
        register(self._instance, self._feed, keys)
        outcomes = []
        with ExitStack() as stack:
            if not quiet and sys.stderr.isatty():
                self._progress = stack.enter_context(
                    rich.progress.Progress(
                        "{task.description}",
                        rich.progress.BarColumn(),
                        rich.progress.MofNCompleteColumn(),
                        rich.progress.TimeRemainingColumn(),
                        console=rich.console.Console(stderr=True),
                        transient=True,
                    )
                )
                self._task = self._progress.add_task("", total=None)
            for key in keys:
                outcomes.append(outcome := self._import(key))
                if not quiet:
                    self._report(outcome)
                if outcome.problem == _INTERRUPTED:
                    # Dagster has caught the Ctrl+C to end its run; the rest is not wanted either.
                    raise KeyboardInterrupt
        return outcomes

    def _import(self, key: str) -> Imported:
        from resources.runs import LOCATION, REPOSITORY_TAG  # noqa: PLC0415

        stage, config = "ingest", self._ingest
        if self._replay:
            stage, config = "bulk_write", {"replay": True}
        ops = {f"{self._feed.feed}__{stage}": {"config": config}}
        result = self._job.execute_in_process(
            instance=self._instance,
            partition_key=key,
            run_config=_QUIET | {"ops": ops},
            # The feed's too: a run that does not go through the queue counts in it all the same.
            tags={
                **self._tags,
                "batch-pipelines/requested_by": f"{user()} (command line)",
                REPOSITORY_TAG: LOCATION,
            },
            raise_on_error=False,
        )
        with self._database.connect("import") as connection:
            outcome = ledger.of_run(connection, result.run_id)
            reasons = quarantine.summary(connection, outcome.batch_id) if outcome else []
            staged = files.of_batch(connection, outcome.batch_id) if outcome else []
        name = f"{self._feed.feed}/{key}"
        problem = None if result.success else _first_error(result)
        aside = [file.problem or "" for file in staged if file.set_aside]
        return Imported(name, outcome, problem, reasons, aside, len(staged) - len(aside))

    def _report(self, imported: Imported) -> None:
        batch = imported.batch
        if batch is None:
            say(f"--------  {imported.name}  nothing done")
            complain(imported.problem or "")
            return
        rows = "" if batch.written_records is None else f"{batch.written_records:,} rows"
        if not self._feed.tables:
            rows = f"{imported.files:,} files"
        line = f"{batch.batch_id[:8]}  {batch.name}  {status(batch.status)}  {rows}"
        console().print(line.rstrip())
        for problem in imported.files_set_aside:
            say(f"          file set aside: {problem}")
        if imported.rejects:
            self._report_rejects(batch, imported.rejects)
        if imported.problem is not None:
            complain(imported.problem)
        if imported.problem is not None or imported.rejects or imported.files_set_aside:
            with self._database.connect("import") as connection:
                archived = archives.bag(connection, batch.batch_id) is not None
            say(f"Next: {next_command(batch, archived=archived)}")
        elif batch.duplicate_of is not None:
            say(f"          the same delivery is in force as batch {batch.duplicate_of[:8]}")

    def _report_rejects(self, batch: Batch, reasons: list[RejectCount]) -> None:
        total, records = batch.rejected_records or 0, batch.source_records or 0
        say(f"          {total:,} of {records:,} records were set aside:")
        for reason in reasons[:_REASONS]:
            why = reason_text(
                reason.target_table, reason.column_name, reason.message, reason.sqlstate
            )
            say(f"          {reason.records:>7,}  {why}")
        if len(reasons) > _REASONS:
            say(f"          and {len(reasons) - _REASONS:,} more reasons")

    def _tell(self, stage: Stage, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress.update(
                self._task, description=f"{self._feed.feed} {stage}", completed=done, total=total
            )


def user() -> str:
    """Say who runs this process, as the operating system has it and not as LOGNAME claims."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user id {os.geteuid()}"


def _first_error(result: dg.ExecuteInProcessResult) -> str:
    """Say why a run failed."""
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error is not None:
            cause = event.step_failure_data.error.cause or event.step_failure_data.error
            if cause.cls_name == "DagsterExecutionInterruptedError":
                return _INTERRUPTED
            # Our own errors are sentences; of any other the class says more than its text.
            return cause.message.removeprefix(f"{BatchError.__module__}.{cause.cls_name}: ").strip()
    return f"Run {result.run_id} failed; its log in Dagster's UI tells why."
