"""`metrics`: the ledger's counters and levels for Prometheus."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path  # noqa: TC003  # Typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from batch_pipelines.cli.show import say
from batch_pipelines.engine.postgres.database import open_database
from batch_pipelines.engine.postgres.migrate import require_current
from batch_pipelines.engine.settings import load_settings
from batch_pipelines.instance import open_instance, prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import dagster as dg

    from batch_pipelines.engine.metrics.collector import LedgerCollector
    from batch_pipelines.engine.postgres.database import Database
    from batch_pipelines.engine.settings import Settings


def metrics(
    *,
    file: Annotated[
        Path | None,
        typer.Option(help="Write them to this file, for node_exporter; in one go.", dir_okay=False),
    ] = None,
    serve: Annotated[
        int | None,
        typer.Option(help="Answer scrapes on this port of the loopback address, until Ctrl+C.",
                     min=1, max=65535),
    ] = None,
    runs: Annotated[
        bool, typer.Option(help="Also ask Dagster's storage how many runs wait or are in progress.")
    ] = True,
) -> None:  # fmt: skip
    """Print what Prometheus wants to know, or serve it."""
    # A twentieth of a second to import, which no other command needs.
    from batch_pipelines.engine.metrics.exposition import (  # noqa: PLC0415
        as_text,
        served,
        write_file,
    )

    if file is not None and serve is not None:
        raise typer.BadParameter("Give --file or --serve, not both.")
    with ExitStack() as stack:
        collector = _opened(stack, load_settings(), runs=runs)
        if serve is not None:
            address = stack.enter_context(served(collector, serve))
            say(f"Metrics: {address}  (Ctrl+C ends it)")
            _wait()
        elif file is not None:
            write_file(collector, file)
        else:
            typer.echo(as_text(collector), nl=False)


def _wait() -> None:
    """Wait until somebody asks us to end; then the embedded database under us is stopped as well."""
    over = threading.Event()
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda *_: over.set())
    over.wait()


def collector_of(database: Database, instance: dg.DagsterInstance | None) -> LedgerCollector:
    """Make what reads the metrics.

    Args:
        database: The target database.
        instance: Dagster's instance; None leaves its runs out.

    Returns:
        The collector.
    """
    from batch_pipelines.engine.metrics.collector import (  # noqa: PLC0415  # as above
        LedgerCollector,
        no_queue,
    )

    queue = no_queue if instance is None else _queue_of(instance)
    return LedgerCollector(partial(database.connect, "metrics"), queue)


def _opened(stack: ExitStack, settings: Settings, *, runs: bool) -> LedgerCollector:
    database = stack.enter_context(prepared(settings) if runs else open_database(settings))
    with database.connect("metrics") as connection:
        require_current(connection)
    return collector_of(database, stack.enter_context(open_instance()) if runs else None)


def _queue_of(instance: dg.DagsterInstance) -> Callable[[], Mapping[str, int]]:
    import dagster as dg  # noqa: PLC0415  # a second and a half, which `--no-runs` need not wait for

    states = (
        dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    )  # fmt: skip

    def count() -> Mapping[str, int]:
        return {
            state.value: instance.get_runs_count(dg.RunsFilter(statuses=[state]))
            for state in states
        }

    return count
