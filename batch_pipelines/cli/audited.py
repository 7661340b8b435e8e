"""`verify --audit`: the audit trail, against its own hashes and against its anchors."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from batch_pipelines.cli.batches import opened_ledger
from batch_pipelines.cli.show import print_json, print_table, say
from batch_pipelines.engine.audit.segment_bags import SegmentBags
from batch_pipelines.engine.audit.verify import verify_audit
from batch_pipelines.engine.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.audit.verify import AuditVerification

_DOES_NOT_HOLD = 1


def verify_trail(folder: Path | None, *, removed: bool, json: bool) -> None:
    """Verify the audit trail and say what was found.

    Args:
        folder: Folder of anchors; None for the one of the settings.
        removed: Whether to read removed months where their bags stand, too.
        json: Whether to print JSON.

    Raises:
        typer.Exit: It does not hold.
        typer.BadParameter: The folder is none.
    """
    if folder is not None and not folder.is_dir():
        message = f"{folder} is no folder of anchors."
        raise typer.BadParameter(message)
    settings = load_settings()
    place = folder or settings.anchors_folder
    with opened_ledger() as connection:
        found = verify_audit(connection, place, SegmentBags(settings, place, everywhere=removed))
    if json:
        print_json(asdict(found) | {"status": found.status, "exposed": found.exposed})
    else:
        _print(found)
    if found.status != "SUCCESS":
        raise typer.Exit(_DOES_NOT_HOLD)


def _print(found: AuditVerification) -> None:
    say(
        f"Audit trail {found.ledger_id}: {found.status}; {found.entries:,} entries, the last one is "
        f"{found.last}, hash {found.last_hash[:16]}; {found.batches:,} batches"
        f"{f', {found.at_work:,} at work and not compared' if found.at_work else ''}"
    )
    if found.findings:
        first = found.findings[0]
        say(f"The first that does not hold: {first.message}.")
        print_table(
            f"{found.problems:,} findings",
            ["entry", "what", "found"],
            [[str(each.seq or ""), each.kind, each.message] for each in found.findings],
        )
    if found.segments:
        say(
            f"{found.segments:,} months are sealed; of removed ones {found.from_bags:,} entries were "
            f"read from their bags{_unread(found)}."
        )
    if found.anchored:
        say(f"Anchored up to entry {found.anchored} of {found.anchored_at}.")
    if found.exposed:
        say(
            f"{found.exposed:,} entries after that stand in no anchor: somebody with the rights of a "
            "superuser could have changed these without a trace."
        )


def _unread(found: AuditVerification) -> str:
    if not found.not_read:
        return ""
    return f", and {found.not_read:,} were not: only their seals hold (--removed reads them)"
