"""`import`: run a feed's Dagster job in this process, with progress."""

from __future__ import annotations

import os
import pwd
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import rich.console
import rich.progress
import typer

from batch_pipelines.cli.batches import next_command
from batch_pipelines.cli.show import Json, complain, console, print_json, say, status
from batch_pipelines.engine.errors import BatchError, DeliveryError
from batch_pipelines.engine.feeds import check_key, find_feed, load_feeds
from batch_pipelines.engine.landing import find_delivery, find_keys
from batch_pipelines.engine.ledger import batches as ledger
from batch_pipelines.engine.ledger import proofs
from batch_pipelines.engine.postgres.migrate import require_current
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.instance import open_instance, prepared

if TYPE_CHECKING:
    import dagster as dg

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.ledger.batches import Batch, Stage
    from batch_pipelines.engine.postgres.database import Database
    from batch_pipelines.engine.settings import Settings

_FAILED, _PARTIAL = 1, 3
# As workspace.yaml names it: without this tag the UI's pages of jobs and its timeline show no run
# that was not launched from there.
_LOCATION = "__repository__@batch_pipelines"
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
    json: Json = False,
) -> None:
    """Import deliveries of a feed."""
    settings = load_settings()
    chosen = find_feed(load_feeds(settings.feeds), feed)
    keys = _keys(chosen, batch, settings)
    with prepared(settings) as database:
        with database.connect("import") as connection:
            require_current(connection)
        outcomes = _Importer(chosen, settings, database, force=force).run(keys, quiet=json)
    if json:
        print_json(outcomes)
    if any(outcome.problem is not None for outcome in outcomes):
        raise typer.Exit(_FAILED)
    if any(o.batch is not None and o.batch.status == "PARTIAL_SUCCESS" for o in outcomes):
        raise typer.Exit(_PARTIAL)


def _keys(feed: Feed, batch: str | None, settings: Settings) -> list[str]:
    if batch is None:
        keys = find_keys(feed, settings.root)
        if not keys:
            pattern = feed.pattern("{batch}", settings.root)
            message = f"Nothing lies in landing for feed {feed.feed}: no file {pattern}."
            raise DeliveryError(message)
        return keys
    if find_delivery(feed, check_key(batch), settings.root) is None:
        pattern = feed.pattern(batch, settings.root)
        near = ", ".join(find_keys(feed, settings.root)[:12]) or "nothing"
        message = f"There is no file {pattern}. In landing for {feed.feed}: {near}."
        raise DeliveryError(message)
    return [batch]


@dataclass(frozen=True)
class Imported:
    """What became of one partition.

    Attributes:
        name: Feed and partition key.
        batch: The batch that the run worked on; None where it got none, because another run holds
            the partition, as a rule.
        problem: What went wrong, if anything did.
    """

    name: str
    batch: Batch | None
    problem: str | None


class _Importer:
    """Runs one feed's job for one partition after the other."""

    def __init__(self, feed: Feed, settings: Settings, database: Database, *, force: bool) -> None:
        # Dagster takes a second and a half to import; what is wrong above is said without it.
        from batch_pipelines.definitions import build_defs  # noqa: PLC0415

        self._feed, self._database, self._force = feed, database, force
        self._instance: dg.DagsterInstance = open_instance()
        defs = build_defs(feeds=[feed], load=lambda: settings, progress=self._tell)
        self._job = defs.resolve_job_def(feed.feed)
        self._progress: rich.progress.Progress | None = None
        self._task = rich.progress.TaskID(0)

    def run(self, keys: list[str], *, quiet: bool) -> list[Imported]:
        known = set(self._instance.get_dynamic_partitions(self._feed.feed))
        if fresh := [key for key in keys if key not in known]:
            self._instance.add_dynamic_partitions(self._feed.feed, fresh)
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
        ops = {f"{self._feed.feed}__ingest": {"config": {"force": self._force}}}
        result = self._job.execute_in_process(
            instance=self._instance,
            partition_key=key,
            run_config=_QUIET | {"ops": ops},
            tags={
                "batch-pipelines/requested_by": f"{_user()} (command line)",
                ".dagster/repository": _LOCATION,
            },
            raise_on_error=False,
        )
        with self._database.connect("import") as connection:
            outcome = ledger.of_run(connection, result.run_id)
        name = f"{self._feed.feed}/{key}"
        return Imported(name, outcome, None if result.success else _first_error(result))

    def _report(self, imported: Imported) -> None:
        batch = imported.batch
        if batch is None:
            say(f"--------  {imported.name}  nothing done")
            complain(imported.problem or "")
            return
        rows = "" if batch.written_records is None else f"{batch.written_records:,} rows"
        line = f"{batch.batch_id[:8]}  {batch.name}  {status(batch.status)}  {rows}"
        console().print(line.rstrip())
        if imported.problem is not None:
            complain(imported.problem)
            with self._database.connect("import") as connection:
                archived = proofs.archive(connection, batch.batch_id) is not None
            say(f"Next: {next_command(batch, archived=archived)}")
        elif batch.duplicate_of is not None:
            say(f"          the same delivery is in force as batch {batch.duplicate_of[:8]}")

    def _tell(self, stage: Stage, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress.update(
                self._task, description=f"{self._feed.feed} {stage}", completed=done, total=total
            )


def _user() -> str:
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
