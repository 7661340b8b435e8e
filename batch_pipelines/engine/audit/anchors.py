"""Anchors: what the end of the chain was, kept where who changes the database cannot reach.

A folder holds a file of JSON lines for each ledger, named by its id. It is only ever appended to.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.errors import AuditError

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.postgres.database import Connection

_HEAD = "SELECT ledger_id::text, seq, hash, created_at FROM batch_audit.audit_head"


@dataclass(frozen=True, slots=True)
class Anchor:
    """What the end of a chain was.

    Attributes:
        ledger_id: Of which ledger.
        seq: Number of its last entry.
        hash: Hash of that entry, 64 hex digits.
        at: When that entry was chained, with time zone.
    """

    ledger_id: str
    seq: int
    hash: str
    at: dt.datetime


def head(connection: Connection) -> Anchor:
    """Read what the end of the chain is now."""
    row = connection.execute(_HEAD).fetchone()
    if row is None:
        message = (
            "batch_audit.audit_head is empty, so nothing tells where the audit trail ends; it "
            "was tampered with. Restore the database from a backup."
        )
        raise AuditError(message)
    ledger_id, seq, digest, at = row
    return Anchor(ledger_id, seq, digest.hex(), at)


def drop(connection: Connection, folder: Path) -> Anchor | None:
    """Write down, outside the database, what the end of the chain is now; on disk when this returns.

    Args:
        connection: A connection; what it has not committed yet is in no anchor.
        folder: The folder of anchors; made if it is not there.

    Returns:
        The anchor; None where the trail has no entry yet.

    Raises:
        AuditError: The folder cannot be written.
    """
    anchor = head(connection)
    if not anchor.seq:
        return None
    line = json.dumps(
        {"ledger": anchor.ledger_id, "seq": anchor.seq, "hash": anchor.hash, "at": str(anchor.at)}
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One write of a line in append mode: those of two processes do not mix.
        with _file(folder, anchor.ledger_id).open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())
            os.fsync(file.fileno())
    except OSError as error:
        message = f"{folder}: the anchor of the audit trail cannot be written ({error.strerror})."
        raise AuditError(message) from None
    return anchor


def read(folder: Path, ledger_id: str) -> list[Anchor]:
    """Read the anchors of a ledger.

    Args:
        folder: The folder of anchors.
        ledger_id: The ledger.

    Returns:
        Its anchors; none where there is no file of it. A line that a crash cut off is left out.

    Raises:
        AuditError: The file cannot be read, or a line is none of an anchor.
    """
    file = _file(folder, ledger_id)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except OSError as error:
        message = f"{file}: the anchors cannot be read ({error.strerror})."
        raise AuditError(message) from None
    lines = enumerate(text.splitlines(), 1)
    return [_parsed(file, number, line) for number, line in lines if line.endswith("}")]


def _parsed(file: Path, number: int, line: str) -> Anchor:
    try:
        told = json.loads(line)
        return Anchor(
            told["ledger"], int(told["seq"]), told["hash"], dt.datetime.fromisoformat(told["at"])
        )
    except (ValueError, KeyError, TypeError):
        message = f"{file}: line {number} is no anchor; the file was damaged or edited."
        raise AuditError(message) from None


def _file(folder: Path, ledger_id: str) -> Path:
    return folder / f"{ledger_id}.jsonl"
