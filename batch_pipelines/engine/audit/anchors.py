"""Anchors: what the end of the chain was, kept where who changes the database cannot reach.

A folder holds a file of JSON lines for each ledger, named by its id. It is only ever appended to.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from batch_pipelines.engine.postgres.database import Connection

_LOG = logging.getLogger(__name__)
# Where a bag has the anchor of the time at which it was written.
IN_BAG = "ledger/audit_anchor.json"
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

    def __str__(self) -> str:
        """Say it in few words."""
        return f"entry {self.seq}, hash {self.hash}"

    @property
    def json(self) -> str:
        """The anchor as a line of a file has it."""
        fields = {"ledger": self.ledger_id, "seq": self.seq, "hash": self.hash, "at": str(self.at)}
        return json.dumps(fields)


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # One write of a line in append mode: those of two processes do not mix.
        with _file(folder, anchor.ledger_id).open("ab", buffering=0) as file:
            file.write(f"{anchor.json}\n".encode())
            os.fsync(file.fileno())
    except OSError as error:
        message = f"{folder}: the anchor of the audit trail cannot be written ({error.strerror})."
        raise AuditError(message) from None
    return anchor


def drop_quietly(
    connection: Connection, folder: Path, notice: Callable[[str], object]
) -> Anchor | None:
    """Write an anchor where what it is about must not fail for it.

    Args:
        connection: A connection in autocommit mode.
        folder: The folder of anchors.
        notice: Is told why there is none.

    Returns:
        The anchor; None where there is none.
    """
    try:
        anchor = drop(connection, folder)
    except AuditError as error:
        notice(str(error))
        return None
    if anchor is not None:
        _LOG.info("Anchor of the audit trail %s: %s", anchor.ledger_id, anchor)
    return anchor


def read(folder: Path, ledger_id: str) -> list[Anchor]:
    """Read the anchors of a ledger.

    Args:
        folder: The folder of anchors.
        ledger_id: The ledger.

    Returns:
        Its anchors, also those in the bags below the folder; none where there are none of it. A line
        that a crash cut off is left out.

    Raises:
        AuditError: The file cannot be read, or a line is none of an anchor.
    """
    file = _file(folder, ledger_id)
    found = []
    for each in [*([file] if file.exists() else []), *sorted(folder.rglob(f"data/{IN_BAG}"))]:
        try:
            text = each.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            message = f"{each}: the anchors cannot be read ({type(error).__name__})."
            raise AuditError(message) from None
        lines = enumerate(text.splitlines(), 1)
        found += [_parsed(each, number, line) for number, line in lines if line.endswith("}")]
    return [anchor for anchor in found if anchor.ledger_id == ledger_id]


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
