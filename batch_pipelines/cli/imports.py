"""`import`: run a feed's Dagster job in this process, with progress."""

from __future__ import annotations

import getpass
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import rich.console
import rich.progress
import typer

from batch_pipelines.cli.batches import next_command
from batch_pipelines.cli.show import Json, complain, console, print_json, say, status
from batch_pipelines.engine.errors import DeliveryError
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
    if any(outcome.batch.status == "PARTIAL_SUCCESS" for outcome in outcomes):
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
    """What became of one partition: its batch, and what went wrong, if anything did."""

    batch: Batch
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
                    _report(outcome, archived=self._archived(outcome.batch))
        return outcomes

    def _import(self, key: str) -> Imported:
        ops = {f"{self._feed.feed}__ingest": {"config": {"force": self._force}}}
        result = self._job.execute_in_process(
            instance=self._instance,
            partition_key=key,
            run_config=_QUIET | {"ops": ops},
            tags={"batch-pipelines/requested_by": f"{getpass.getuser()} (command line)"},
            raise_on_error=False,
        )
        with self._database.connect("import") as connection:
            outcome = ledger.of_run(connection, result.run_id)
        if outcome is None:
            # The run got no batch: somebody else holds the partition, as a rule.
            raise DeliveryError(_first_error(result))
        return Imported(outcome, None if result.success else _first_error(result))

    def _archived(self, outcome: Batch) -> bool:
        with self._database.connect("import") as connection:
            return proofs.archive(connection, outcome.batch_id) is not None

    def _tell(self, stage: Stage, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress.update(
                self._task, description=f"{self._feed.feed} {stage}", completed=done, total=total
            )


def _report(imported: Imported, *, archived: bool) -> None:
    batch = imported.batch
    records = f"{batch.written_records:,} rows" if batch.written_records is not None else ""
    console().print(
        f"{batch.batch_id[:8]}  {batch.name}  {status(batch.status)}  {records}".rstrip()
    )
    if imported.problem is not None:
        complain(imported.problem)
        say(f"Next: {next_command(batch, archived=archived)}")
    elif batch.duplicate_of is not None:
        say(f"          the same delivery is in force as batch {batch.duplicate_of[:8]}")


def _first_error(result: dg.ExecuteInProcessResult) -> str:
    """Say why a run failed that has no failed batch: the partition was busy, as a rule."""
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error is not None:
            cause = event.step_failure_data.error.cause or event.step_failure_data.error
            return cause.message.split(": ", 1)[-1].strip()
    return f"Run {result.run_id} failed; its log in Dagster's UI tells why."
