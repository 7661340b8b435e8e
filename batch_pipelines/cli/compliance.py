"""`report --month`, `report sign`, `report check`, `report list`: compliance reports."""

from __future__ import annotations

import datetime as dt
import shutil
import sys
import time
import uuid
from pathlib import Path  # noqa: TC003  # typer reads it
from typing import TYPE_CHECKING, Annotated

import typer

from batch_pipelines.cli.batches import opened_ledger
from batch_pipelines.cli.imports import user
from batch_pipelines.cli.show import Json, complain, print_json, print_table, say
from batch_pipelines.engine.compliance import signing
from batch_pipelines.engine.compliance.making import Maker, make
from batch_pipelines.engine.compliance.scope import days, month, regulations_of, scope
from batch_pipelines.engine.feed_files import load_feeds
from batch_pipelines.engine.ledger import compliance_reports
from batch_pipelines.engine.reports.filing import program
from batch_pipelines.engine.settings import load_settings

if TYPE_CHECKING:
    from batch_pipelines.engine.compliance.making import Made
    from batch_pipelines.engine.compliance.scope import Span
    from batch_pipelines.engine.compliance.signing import Checked

_FAILED, _PARTIAL = 1, 3
_DAY = "%Y-%m-%d"


def period(
    *,
    month_: Annotated[
        str | None, typer.Option("--month", help="The month, as in 2026-10.", metavar="YYYY-MM")
    ] = None,
    first: Annotated[
        dt.datetime | None,
        typer.Option("--from", formats=[_DAY], help="In place of it: first day."),
    ] = None,
    last: Annotated[
        dt.datetime | None, typer.Option("--to", formats=[_DAY], help="And the last day.")
    ] = None,
    regulation: Annotated[
        str | None, typer.Option(help="Only feeds under it: HIPAA, CLIA, or their own word.")
    ] = None,
    feed: Annotated[str | None, typer.Option(help="Only this feed.")] = None,
    entity_type: Annotated[
        str | None,
        typer.Option(help="Only checksums of these: file, chunk, row, or a feed's word."),
    ] = None,
    type_: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            help="Only this part: summary, findings, critical, integrity, quarantine, overrides, "
            "access or retention. Can be repeated.",
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Copy the page to this file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    csv: Annotated[
        Path | None, typer.Option(help="Copy the CSV files of its tables into this folder.")
    ] = None,
) -> None:
    """Make a compliance report, and keep it. Exit code 3: a part of it could not be made."""
    settings = load_settings()
    regulations = regulations_of(load_feeds(settings.feeds), settings.regulations)
    about = scope(
        _span(month_, first, last, settings.report_timezone), regulations, dt.datetime.now(dt.UTC),
        regulation=regulation, feed=feed, entity_type=entity_type,
    )  # fmt: skip
    maker = Maker(
        settings.reports / "compliance", f"{user()} (command line)", program(),
        new_id=lambda: str(uuid.uuid4()), monotonic=time.monotonic,
    )  # fmt: skip
    with opened_ledger() as connection:
        made = make(connection, about, type_ or [], maker)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made.place("html"), html)
    if csv is not None:
        shutil.unpack_archive(made.place("csv"), csv, "zip")
    if json:
        sys.stdout.write(made.place("json").read_text(encoding="utf-8"))
    else:
        _tell(made)
    if made.read.failed:
        raise typer.Exit(_PARTIAL)


def _span(key: str | None, first: dt.datetime | None, last: dt.datetime | None, zone: str) -> Span:
    if key is not None and first is None and last is None:
        return month(key, zone)
    if key is None and first is not None and last is not None:
        return days(first.date(), last.date(), zone)
    message = "say either --month, or both --from and --to"
    raise typer.BadParameter(message)


def _tell(made: Made) -> None:
    found = made.read
    if found.scope.is_partial:
        say(f"{found.scope.span.name} is not over: this report is partial.")
    print_table(
        f"Compliance report {made.record.report_id}",
        ["part", "rows counted", "seconds"],
        [
            [each.title, each.content and each.content.records, round(each.seconds, 2)]
            for each in found.sections
        ],
    )
    for each in made.files:
        say(each.place)
    for section in found.failed:
        complain(f"{section.title} could not be made: {section.failure}")
    say(f'Next: batch-pipelines report sign {made.record.report_id[:8]} --statement "..."')


def sign(
    report: Annotated[
        str, typer.Argument(help="Its id, a unique prefix of one, or one of its files.")
    ],
    *,
    statement: Annotated[str, typer.Option(help="What you state; it is kept with the signature.")],
    json: Json = False,
) -> None:
    """Sign a compliance report: an event of the audit trail, by whoever runs this command."""
    if not statement.strip():
        message = "say what you state: it is kept with the signature"
        raise typer.BadParameter(message, param_hint="--statement")
    with opened_ledger() as connection:
        by = f"{user()} (command line)"
        found = signing.sign(connection, report, statement=statement.strip(), by=by)
    if json:
        print_json(found)
        return
    say(f"Report {found.report.report_id} of {found.report.span} is signed.")
    _print_signatures(found)


def check(
    report: Annotated[
        str, typer.Argument(help="A file that was handed over; or the id of a report.")
    ],
    *,
    again: Annotated[
        bool, typer.Option("--again", help="Read the ledger again: does it still say the same?")
    ] = False,
    json: Json = False,
) -> None:
    """Prove a compliance report: are its files as they were made, and who signed it?"""
    with opened_ledger() as connection:
        found = signing.check(connection, report, again=time.monotonic if again else None)
    if json:
        print_json(found)
    else:
        made = found.report
        partial = ", partial" if made.is_partial else ""
        say(f"Report {made.report_id} of {made.span}{partial}, made by {made.requested_by}.")
        _print_signatures(found)
        if again:
            changed = ", ".join(found.changed or ())
            say(f"The ledger says something else now of: {changed}." if changed
                else "The ledger says the same now.")  # fmt: skip
        for each in found.problems:
            complain(each)
        if not found.problems:
            say("Every file of it is as it was made.")
    if found.problems:
        raise typer.Exit(_FAILED)


def list_(
    *,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 50,
    json: Json = False,
) -> None:
    """List compliance reports, newest first."""
    with opened_ledger() as connection:
        found = compliance_reports.newest(connection, limit)
    if json:
        print_json(found)
        return
    print_table(
        "Compliance reports",
        ["report", "range", "regulation", "feed", "as of", "by"],
        [
            [r.report_id[:8], r.span + (", partial" if r.is_partial else ""), r.regulation, r.feed,
             f"{r.as_of:%Y-%m-%d %H:%M:%S}", r.requested_by]
            for r in found
        ],
    )  # fmt: skip


def _print_signatures(found: Checked) -> None:
    if not found.signatures:
        say("Nobody has signed it.")
        return
    print_table(
        "Signatures",
        ["when", "who", "statement"],
        [
            [f"{s.created_at:%Y-%m-%d %H:%M:%S}", s.principal_id, s.statement]
            for s in found.signatures
        ],
    )
