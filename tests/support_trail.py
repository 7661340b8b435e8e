"""An audit trail of months that are over, in tests: the clock cannot be turned back, entries can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.audit.segment_bags import SegmentBags
from batch_pipelines.engine.audit.verify import verify_audit

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.audit.verify import AuditVerification
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings

_OFF = """
ALTER TABLE batch_audit.audit_event DISABLE TRIGGER append_only;
ALTER TABLE batch_audit.audit_head DISABLE TRIGGER ALL
"""
_ON = """
ALTER TABLE batch_audit.audit_event ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE batch_audit.audit_head ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE batch_audit.audit_head ENABLE ALWAYS TRIGGER step_on
"""
_BACK = """
SELECT batch_audit.ensure_audit_month(created_at - %(days)s * interval '1 day')
FROM (SELECT DISTINCT created_at FROM batch_audit.audit_event) AS e
"""
_MOVE = """
UPDATE batch_audit.audit_event SET created_at = created_at - %(days)s * interval '1 day'
"""
CHAIN_ANEW = """
DO $$
DECLARE
    previous record;
    entry record;
BEGIN
    SELECT 0::bigint AS seq, sha256(uuid_send(ledger_id)) AS hash, created_at INTO previous
    FROM batch_audit.audit_head;
    FOR entry IN SELECT * FROM batch_audit.audit_event ORDER BY seq LOOP
        UPDATE batch_audit.audit_event e SET prev_hash = previous.hash,
            hash = batch_audit.event_hash(e.seq, previous.hash, e.created_at, e.principal_id, e.action,
                e.status, e.resource_type, e.resource_id, e.correlation_id, e.session_context,
                e.compliance_context, e.details)
        WHERE e.seq = entry.seq RETURNING e.seq, e.hash, e.created_at INTO previous;
    END LOOP;
    UPDATE batch_audit.audit_head SET seq = previous.seq, hash = previous.hash,
        created_at = previous.created_at;
END $$
"""
"""What a superuser can do where no anchor tells: all hashes anew."""


def unprotect(db: Connection) -> None:
    """What a superuser can do: switch off what stands in the way of tampering."""
    db.execute(_OFF)


def protect(db: Connection) -> None:
    """And on again, so that only what was done tells of it."""
    db.execute(_ON)


def backdate(db: Connection, days: int) -> None:
    """Make all entries of the trail so many days older."""
    with db.transaction():
        # What is made is protected.
        db.execute(_BACK, {"days": days})
        unprotect(db)
        db.execute(_MOVE, {"days": days})
        db.execute(CHAIN_ANEW)
        protect(db)


def verified(
    db: Connection, settings: Settings, folder: Path, *, everywhere: bool = False
) -> AuditVerification:
    """Verify the trail, removed months from the bags below a folder, or wherever they stand."""
    return verify_audit(db, folder, SegmentBags(settings, folder, everywhere=everywhere))
