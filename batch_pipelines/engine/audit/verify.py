"""Verifying the audit trail: what of it holds, what does not, and how far anchors cover it."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from batch_pipelines.engine.alerts import Alert, raise_alert
from batch_pipelines.engine.audit import anchors, batches
from batch_pipelines.engine.audit.chain import Finding, Walk
from batch_pipelines.engine.audit.entry import entries
from batch_pipelines.engine.audit.segments import Segment, differences, segments
from batch_pipelines.engine.errors import ArchiveError, AuditError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable
    from pathlib import Path

    from batch_pipelines.engine.audit.anchors import Anchor
    from batch_pipelines.engine.audit.segment_bags import SegmentBags
    from batch_pipelines.engine.postgres.database import Connection

_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_PENDING = "SELECT count(*) FROM batch_audit.audit_pending"
# Triggers that keep the trail append-only, of tables and partitions: a plain one does not fire for who
# sets session_replication_role.
_UNPROTECTED = """
SELECT format('%s.%s', n.nspname, c.relname), missing.name
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL unnest(CASE
    WHEN c.relname = 'audit_pending' THEN '{chain_event}'::text[]
    WHEN c.relname = 'audit_head' THEN '{append_only,step_on}'
    WHEN c.relname = 'audit_segment' THEN '{append_only,remove_once}'
    ELSE '{append_only,append_only_truncate}' END) AS missing (name)
WHERE n.nspname = 'batch_audit' AND (
        c.relname IN ('audit_pending', 'audit_head', 'audit_event', 'audit_segment')
        OR c.oid IN (SELECT inhrelid FROM pg_inherits
                     WHERE inhparent = 'batch_audit.audit_event'::regclass))
    AND NOT EXISTS (SELECT FROM pg_trigger t
                    WHERE t.tgrelid = c.oid AND t.tgname = missing.name AND t.tgenabled = 'A')
ORDER BY 1, 2
"""


@dataclass(frozen=True)
class AuditVerification:
    """What verifying the audit trail found.

    Attributes:
        ledger_id: The ledger.
        first: Number of the first entry that is in the database; None where there is none.
        last: Number of the last entry, as the ledger has it.
        last_hash: Its hash, in hex.
        entries: Entries that were read.
        anchors: Anchors that they were compared with.
        anchored: The last entry that an anchor confirms; up to it the trail was not changed since, if
            there are no findings. 0 without anchors.
        anchored_at: When that entry was chained.
        findings: What does not hold, the first entry first; so many at most.
        problems: How many there are in all.
        batches: Batches in the ledger, compared with what the trail says of them.
        at_work: Of these, those that a run is at work on, which were not compared.
        segments: Months that are over and sealed.
        from_bags: Of the entries that were read, those of removed months, from their bags.
        not_read: Entries of removed months that were not read: of these only the seal holds.
        seconds: Time it took.
    """

    ledger_id: str
    first: int | None
    last: int
    last_hash: str
    entries: int
    anchors: int
    anchored: int
    anchored_at: dt.datetime | None
    findings: tuple[Finding, ...]
    problems: int
    batches: int
    at_work: int
    segments: int
    from_bags: int
    not_read: int
    seconds: float

    @property
    def status(self) -> Literal["SUCCESS", "FAILED"]:
        """Whether all of it holds."""
        return "FAILED" if self.problems else "SUCCESS"

    @property
    def exposed(self) -> int:
        """Entries after the last anchor: a superuser could change these, and chain them anew, unseen."""
        return max(0, self.last - self.anchored)


def verify_audit(
    connection: Connection, folder: Path, bags: SegmentBags | None = None
) -> AuditVerification:
    """Verify the audit trail, in one snapshot that disturbs nobody.

    Args:
        connection: A connection in autocommit mode.
        folder: The folder of anchors.
        bags: Where entries of removed months are read from; without, by their seals alone.

    Returns:
        What was found.

    Raises:
        AuditError: There is no end of the chain to compare with, or anchors cannot be read.
    """
    with connection.transaction():
        connection.execute(_SNAPSHOT)
        return examine(connection, folder, bags)


def examine(
    connection: Connection, folder: Path, bags: SegmentBags | None = None
) -> AuditVerification:
    """Verify the audit trail as a transaction sees it.

    Args:
        connection: A connection inside a transaction.
        folder: The folder of anchors.
        bags: Where entries of removed months are read from; without, by their seals alone.

    Returns:
        What was found.

    Raises:
        AuditError: There is no end of the chain to compare with, or anchors cannot be read.
    """
    began = time.perf_counter()
    head = anchors.head(connection)
    known = anchors.read(folder, head.ledger_id)
    sealed = segments(connection)
    walk = Walk(
        0, genesis(head.ledger_id), _by_entry(known), {each.last_seq: each for each in sealed}
    )
    removed = deque(each for each in sealed if each.removed_at is not None)
    first, from_bags = None, 0
    for entry in entries(connection):
        first = entry.seq if first is None else first
        while removed and removed[0].first_seq <= entry.seq:
            from_bags += _pass_removed(walk, removed.popleft(), bags)
        walk.step(entry)
    for segment in removed:
        from_bags += _pass_removed(walk, segment, bags)
    walk.end(head)
    _look_at_protection(connection, walk)
    for finding in differences(connection):
        walk.add(finding)
    for finding in batches.differences(connection):
        walk.add(finding)
    of_batches = batches.compared(connection)
    found = sorted(walk.findings, key=lambda each: (each.seq is None, each.seq))
    times = [anchor.at for anchor in known if anchor.seq == walk.confirmed]
    return AuditVerification(
        ledger_id=head.ledger_id,
        first=first,
        last=head.seq,
        last_hash=head.hash,
        entries=walk.entries,
        anchors=len(known),
        anchored=walk.confirmed,
        anchored_at=times[0] if times else None,
        findings=tuple(found),
        problems=walk.count,
        batches=of_batches.batches,
        at_work=of_batches.at_work,
        segments=len(sealed),
        from_bags=from_bags,
        not_read=walk.skipped,
        seconds=time.perf_counter() - began,
    )


def require_holds(connection: Connection, found: AuditVerification) -> None:
    """Raise an alert, and an error, where the trail does not hold.

    Args:
        connection: A connection in autocommit mode.
        found: What verifying it found.

    Raises:
        AuditError: It does not hold; the first finding is named.
    """
    if found.status == "SUCCESS":
        return
    first = found.findings[0]
    alert = Alert(
        kind="audit",
        severity="critical",
        subject=f"The audit trail does not hold: {found.problems} findings",
        # The same damage is told once, more of it again.
        deduplication_key=f"audit/{found.ledger_id}/{first.kind}/{first.seq}/{found.problems}",
        details={"first": first.message, "next": "batch-pipelines verify --audit"},
    )
    raise_alert(connection, alert)
    message = (
        f"The audit trail does not hold, {found.problems} findings. The first: {first.message}. "
        "`batch-pipelines verify --audit` lists them."
    )
    raise AuditError(message)


def genesis(ledger_id: str) -> bytes:
    """Give what the first entry of a ledger refers to: the SHA-256 of the ledger's id."""
    return hashlib.sha256(uuid.UUID(ledger_id).bytes).digest()


def _pass_removed(walk: Walk, segment: Segment, bags: SegmentBags | None) -> int:
    """Walk over a removed month, through its bag where one is to be read; give how many entries."""
    try:
        if bags is None or not bags.has(segment):
            walk.skip(segment)
            return 0
        with bags.entries(segment) as found:
            # All of the bag was proven before the first one comes.
            number = 0
            for entry in found:
                walk.step(entry)
                number += 1
            return number
    except ArchiveError as error:
        walk.add(Finding(segment.first_seq, "segment", f"the bag of {segment.name}: {error}"))
        walk.skip(segment)
        return 0


def _by_entry(known: Iterable[Anchor]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for anchor in known:
        found.setdefault(anchor.seq, set()).add(anchor.hash)
    return found


def _look_at_protection(connection: Connection, walk: Walk) -> None:
    ((pending,),) = connection.execute(_PENDING).fetchall()
    if pending:
        message = f"{pending} entries were committed without being chained: the trigger was off"
        walk.add(Finding(None, "pending", message))
    for table, trigger in connection.execute(_UNPROTECTED).fetchall():
        message = f"{table} lacks its trigger {trigger}, or it is not ENABLE ALWAYS"
        walk.add(Finding(None, "unprotected", message))
