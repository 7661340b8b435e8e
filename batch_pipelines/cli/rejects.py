"""`rejects`: what of a batch was set aside, and why; as a file too."""

from __future__ import annotations

import base64
import dataclasses
import os
from contextlib import contextmanager
from pathlib import Path  # noqa: TC003  # Typer reads it at run time
from typing import TYPE_CHECKING, Annotated

import typer

from batch_pipelines.cli.batches import opened_ledger, print_reasons
from batch_pipelines.cli.imports import user
from batch_pipelines.cli.show import Json, print_json, print_table, say
from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.ledger import batches as ledger
from batch_pipelines.engine.ledger import rejects as quarantine
from batch_pipelines.engine.ledger import values
from batch_pipelines.engine.ledger.reject_files import WRITERS
from batch_pipelines.engine.work import explain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.ledger.batches import Batch
    from batch_pipelines.engine.ledger.rejects import RejectRecord

# Characters of a record that the terminal is given; an export has all of it.
_SHOWN = 500


def _export_path(typed: Path | None) -> Path | None:
    """Accept a file that can be written in one of the formats."""
    if typed is None:
        return None
    if typed.suffix.lower() not in WRITERS:
        message = f"{typed.name!r} does not say which format: {', '.join(WRITERS)}."
        raise typer.BadParameter(message)
    if not typed.parent.is_dir():
        message = f"There is no folder {typed.parent}."
        raise typer.BadParameter(message)
    if typed.is_dir():
        message = f"{typed} is a folder."
        raise typer.BadParameter(message)
    return typed


def rejects(
    batch: Annotated[str, typer.Argument(help="Batch id, a unique prefix of one, or FEED/KEY.")],
    *,
    limit: Annotated[int, typer.Option(help="Show at most so many records.", min=0)] = 20,
    raw: Annotated[
        bool, typer.Option("--raw", help="Show the records themselves, too; they hold values.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            help="Write all of them, raw, to FILE: .csv, .parquet or .jsonl.", callback=_export_path
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    json: Json = False,
) -> None:
    """Show which records of a batch were set aside, and why."""
    with opened_ledger(values=raw or export is not None) as connection:
        asked = ledger.find(connection, batch)
        # A duplicate has no records of its own.
        found = ledger.by_id(connection, asked.duplicate_of) if asked.duplicate_of else asked
        count = quarantine.count(connection, found.batch_id)
        reasons = quarantine.summary(connection, found.batch_id)
        first = quarantine.of_batch(connection, found.batch_id, limit)
        records = None
        who = f"{user()} (command line)"
        if raw and first:
            with values.opened(connection, found.batch_id, "look", who):
                records = quarantine.raw_of_batch(connection, found.batch_id, limit)
        exported = None
        if export is not None and count:
            with (
                _created(export, force=force) as unfinished,
                values.opened(connection, found.batch_id, "export", who),
            ):
                exported = WRITERS[export.suffix.lower()](connection, found.batch_id, unfinished)
    total = sum(count.values())
    following = _next_command(found, total, is_exported=exported is not None)
    if json:
        print_json({
            "batch": found, "rejected": count, "reasons": reasons,
            "rejects": _plain(first, records),
            "exported": None if exported is None else {"file": str(export), "rejects": exported},
            "next": following,
        })  # fmt: skip
        return
    say(f"Batch {found.batch_id}  {found.name}, attempt {found.attempt}: {found.status}")
    if asked.duplicate_of:
        say(f"batch {asked.batch_id[:8]} is a duplicate of it")
    if total:
        say(_told(found, count))
        print_reasons(reasons)
        _print_records(first, total, records)
    else:
        say("No record of it is set aside.")
    if exported is not None:
        say(f"{exported:,} rejects written to {export}")
    elif export is not None:
        say(f"Nothing to write to {export}")
    say(f"Next: {following}")


def _told(batch: Batch, count: dict[str, int]) -> str:
    of = "" if batch.source_records is None else f" of {batch.source_records:,}"
    tables = ", ".join(f"{table} {records:,}" for table, records in count.items())
    outcome = "" if batch.published_at else "; nothing of the batch was written"
    return f"{sum(count.values()):,}{of} records were set aside ({tables}){outcome}."


def _print_records(first: list[RejectRecord], total: int, records: list[bytes] | None) -> None:
    if not first:
        return
    print_table(
        "Rejects" if len(first) >= total else f"The first {len(first):,} of {total:,} rejects",
        ["file", "record", "line", "byte", "table", "reasons", *([] if records is None else ["raw"])],
        [
            [
                each.file_name, each.record_number, each.line_number, each.byte_offset,
                each.target_table, "\n".join(_reason(breach) for breach in each.breaches),
                *([] if records is None else [_printable(records[place])]),
            ]
            for place, each in enumerate(first)
        ],
    )  # fmt: skip


def _reason(breach: dict[str, str | None]) -> str:
    column = f"{breach['column']}: " if breach["column"] else ""
    constraint, message = breach["constraint"], breach["message"] or ""
    named = f", {constraint}" if constraint and constraint not in message else ""
    return f"{column}{message} ({breach['sqlstate']}{named})"


def _printable(raw: bytes) -> str:
    """Show bytes so that none of them can do anything to a terminal."""
    text = raw[: 4 * _SHOWN].decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(raw):,} bytes)"


def _plain(first: list[RejectRecord], records: list[bytes] | None) -> list[dict[str, object]]:
    found: list[dict[str, object]] = [dataclasses.asdict(each) for each in first]
    for each, record in zip(found, records or [], strict=False):
        each["raw_base64"] = base64.b64encode(record).decode()
    return found


def _next_command(batch: Batch, total: int, *, is_exported: bool) -> str:
    if not total:
        return f"batch-pipelines show {batch.batch_id[:8]}"
    if is_exported and batch.status == "PARTIAL_SUCCESS":
        # What was wrong in the file wants a corrected delivery; what was missing in the tables, this.
        return f"batch-pipelines replay {batch.batch_id[:8]}"
    if is_exported:
        return f"batch-pipelines import {batch.feed} --batch {batch.partition_key}"
    return f"batch-pipelines rejects {batch.batch_id[:8]} --export rejects.csv"


@contextmanager
def _created(path: Path, *, force: bool) -> Iterator[Path]:
    """Give a file to write to, which gets its name when it is whole.

    Raises:
        BatchError: The file is there already, or the file system refuses.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    reserved = False
    try:
        if not force:
            # Nobody else's either, should it appear in the meantime.
            path.open("x").close()
            reserved = True
        yield unfinished
        unfinished.replace(path)
        reserved = False
    except FileExistsError:
        message = f"{path} is there already. Choose another name, or overwrite it with --force."
        raise typer.BadParameter(message, param_hint="--export") from None
    except OSError as error:
        raise BatchError(explain(error)) from None
    finally:
        unfinished.unlink(missing_ok=True)
        if reserved:
            path.unlink(missing_ok=True)
