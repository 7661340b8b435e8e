"""`support`: what a colleague needs to help with a batch, in one zip without values."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batch_pipelines.cli.show import say
from batch_pipelines.engine.ledger import batches
from batch_pipelines.engine.postgres.migrate import require_current
from batch_pipelines.engine.reports.filing import program
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.engine.support.pack import parts, write_zip
from batch_pipelines.instance import open_instance, prepared

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import dagster as dg
    from dagster_shared.error import SerializableErrorInfo

# Of one run; what fails fails the same way again and again.
_MOST_ERRORS = 50


def support(
    batch: Annotated[str, typer.Argument(help="Batch id, a unique prefix of one, or FEED/KEY.")],
    *,
    to: Annotated[
        Path | None,
        typer.Option(help="The zip to write; by default support-BATCH.zip here.", dir_okay=False),
    ] = None,
) -> None:
    """Pack what a colleague needs to help with a batch: no values of rows, no secrets."""
    settings = load_settings()
    now = dt.datetime.now(dt.UTC)
    with prepared(settings) as database, database.connect("support") as connection:
        require_current(connection)
        found = batches.find(connection, batch)
        with open_instance() as instance:
            runs = [*_logs(instance, batches.runs(connection, found.batch_id))]
        told = parts(
            connection, settings, found.batch_id, runs, made_at=now, made_by=program()
        )  # fmt: skip
    path = to or Path(f"support-{found.batch_id[:8]}.zip")
    write_zip(path, told)
    say(f"{path}: {', '.join(sorted(told))}")
    say("Look at it before you hand it on: names of files, tables and people are in it.")


def _logs(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> Iterator[dict[str, object]]:
    for run_id in run_ids:
        run = instance.get_run_by_id(run_id)
        if run is None:
            yield {"run": run_id, "status": None, "note": "Dagster does not know it any more"}
            continue
        errors = []
        for entry in instance.all_logs(run_id):
            event = entry.dagster_event
            error = None if event is None else _error_of(event)
            if event is not None and error is not None:
                errors.append({
                    "at": dt.datetime.fromtimestamp(entry.timestamp, dt.UTC),
                    "event": event.event_type_value, "step": event.step_key, "errors": [*_chain(error)],
                })  # fmt: skip
        yield {
            "run": run_id, "status": run.status.value, "job": run.job_name,
            "errors": errors[:_MOST_ERRORS], "more_errors": max(0, len(errors) - _MOST_ERRORS),
        }  # fmt: skip


def _error_of(event: dg.DagsterEvent) -> SerializableErrorInfo | None:
    found: SerializableErrorInfo | None = getattr(event.event_specific_data, "error", None)
    return found


def _chain(error: SerializableErrorInfo) -> Iterator[dict[str, object]]:
    """Give the kinds and places of an error and its causes; their texts may hold values of rows."""
    at: SerializableErrorInfo | None = error
    while at is not None:
        yield {"kind": at.cls_name, "stack": [line.rstrip() for line in at.stack]}
        at = at.cause or at.context
