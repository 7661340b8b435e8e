"""The commands, gathered; and how an error ends one."""

from __future__ import annotations

import sys

import typer

from batch_pipelines.cli import (
    alerts,
    archive,
    batches,
    cancel,
    db,
    dev,
    erase,
    feeds,
    hold,
    imports,
    metrics,
    reconcile,
    rejects,
    report_group,
    reruns,
    restore,
    retention,
    rollback,
    support,
    verify,
)
from batch_pipelines.cli.show import complain
from batch_pipelines.engine.errors import (
    AlertError,
    BatchError,
    FeedError,
    ReportError,
    SettingsError,
)

_FAILED, _WRONG_USAGE = 1, 2

app = typer.Typer(
    name="batch-pipelines",
    help="Batch imports you can trace, prove and take back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(db.app, name="db")
app.add_typer(feeds.app, name="feeds")
app.add_typer(alerts.app, name="alerts")
app.add_typer(archive.app, name="archive")
app.add_typer(hold.app, name="hold")
app.add_typer(report_group.app, name="report")
app.command("import")(imports.import_)
app.command("batches")(batches.batches)
app.command("show")(batches.show)
app.command("rejects")(rejects.rejects)
app.command("replay")(imports.replay)
app.command("reprocess")(imports.reprocess)
app.command("retention")(retention.retention)
app.command("rollback")(rollback.rollback)
app.command("restore")(restore.restore)
app.command("erase")(erase.erase)
app.command("cancel")(cancel.cancel)
app.command("rerun-failed")(reruns.rerun_failed)
app.command("verify")(verify.verify)
app.command("reconcile")(reconcile.reconcile)
app.command("support")(support.support)
app.command("metrics")(metrics.metrics)
app.command("dev")(dev.dev)


def main() -> None:
    """Run the command line; an error of ours is one sentence on standard error, not a trace."""
    try:
        app()
    except (AlertError, FeedError, ReportError, SettingsError) as error:
        complain(str(error))
        sys.exit(_WRONG_USAGE)
    except BatchError as error:
        complain(str(error))
        sys.exit(_FAILED)
