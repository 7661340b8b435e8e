"""What each role may do with each table, view and function of the ledger: the one place that says so.

A migration creates tables; `settle` hands them to the owner and grants what stands here, after every
upgrade. So a new table needs a line here, and the same in docs/roles.md. Partitions get no grants of
their own: who works with them does it through their parent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

OWNER: Final = "batch_owner"
WRITER: Final = "batch_writer"
READER: Final = "batch_reader"
AUDITOR: Final = "batch_auditor"
VALUES: Final = "batch_values"
ROLES: Final = (OWNER, WRITER, READER, AUDITOR, VALUES)
"""All roles, in the order in which they are created."""
GRANTED: Final = (WRITER, READER, AUDITOR, VALUES)
"""The roles that get something granted; the owner needs nothing."""

EMBEDDED_LOGIN: Final = "batch_loader"
"""The user of the embedded server as whom the pipelines log in: a writer, and no more."""

LEDGER: Final = "batch_audit"
STAGING: Final = "batch_staging"


@dataclass(frozen=True)
class Grants:
    """What is granted on a table or view.

    Attributes:
        writer: Privileges of the writer, as in GRANT.
        reader: Whether the reader may SELECT.
        auditor: Whether the auditor may SELECT.
        values: Columns that hold values of rows: nobody sees them there.
        opened: Whether it shows such values, to sessions that have said so in the audit trail.
    """

    writer: tuple[str, ...] = ("SELECT",)
    reader: bool = True
    auditor: bool = True
    values: tuple[str, ...] = ()
    opened: bool = False

    def of(self, role: str) -> tuple[str, ...]:
        """List the privileges of a role, in the order in which GRANT's manual has them."""
        selects = {READER: self.reader, AUDITOR: self.auditor, VALUES: self.opened}
        return self.writer if role == WRITER else ("SELECT",) if selects[role] else ()


_READ = ("SELECT",)
_APPEND = ("SELECT", "INSERT")
_KEEP = ("SELECT", "INSERT", "UPDATE")
_REPLACE = ("SELECT", "INSERT", "DELETE")
_ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")

RELATIONS: Final[dict[str, Grants]] = {
    "adopted_history": Grants(_READ, reader=False),
    "alembic_version": Grants(_READ),
    # It names critical rows by their keys; readers have `alert_told`.
    "alert": Grants(_KEEP, reader=False),
    "alert_attempt": Grants(_KEEP, reader=False),
    "alert_delivery": Grants(_KEEP, reader=False),
    "alert_told": Grants(),
    "archive_manifest": Grants(_KEEP),
    # Appended to by `append_event` alone.
    "audit_event": Grants(_READ, reader=False),
    "audit_head": Grants(_READ, reader=False),
    "audit_pending": Grants(_READ, reader=False),
    "audit_segment": Grants(_READ, reader=False),
    "batch_column": Grants(_REPLACE),
    "batch_cost": Grants(),
    "batch_integrity": Grants(),
    "batch_lease": Grants(_KEEP, reader=False),
    "batch_metrics": Grants(),
    "batch_rollback": Grants(_APPEND),
    "batch_run": Grants(_KEEP),
    "batch_signature": Grants(_REPLACE),
    "batch_stage": Grants(_ALL),
    "batch_table": Grants(_ALL),
    "batch_throughput": Grants(),
    "checksum_entity_sum": Grants(_REPLACE),
    "checksum_hour_sum": Grants(_REPLACE),
    "checksum_sum": Grants(_KEEP),
    "compliance_report": Grants(_APPEND),
    "compliance_report_file": Grants(_APPEND),
    "compliance_report_type": Grants(_APPEND),
    # Nothing but retention deletes from it, from `validation_summary` and `verification_log`.
    "crc32_audit": Grants(_REPLACE),
    # Keys of rows are no business of who only counts.
    "critical_record": Grants(_KEEP, reader=False),
    "entity_compliance": Grants(),
    # Who was erased stands in neither; that somebody was is no business of who only counts.
    "erasure": Grants(_KEEP, reader=False),
    "erasure_place": Grants(_ALL, reader=False),
    "failed_batch": Grants(),
    "feed_pause": Grants(_KEEP),
    "feed_signature": Grants(_APPEND),
    "gathered_file": Grants(_REPLACE),
    "hourly_success": Grants(),
    "import_file": Grants(_ALL),
    "import_history": Grants(_KEEP),
    "import_reject": Grants(_ALL, reader=False, values=("raw",)),
    "import_reject_breach": Grants(),
    "invalid_entity": Grants(),
    "latest_batch": Grants(),
    "legal_hold": Grants(_KEEP),
    "lineage_sent": Grants(_APPEND),
    "metric": Grants(),
    "metric_change": Grants(_ALL),
    "metric_level": Grants(),
    "metric_total": Grants(_ALL),
    "opened_reject": Grants(reader=False, auditor=False, opened=True),
    "reconciled_batch": Grants(_APPEND),
    "rerun_request": Grants(_APPEND, reader=False),
    "retention_chunk": Grants(_ALL),
    "rollback_request": Grants(_KEEP, reader=False),
    "row_before_image": Grants(_ALL, reader=False, auditor=False),
    "row_digest": Grants(_ALL),
    # People stand in it.
    "row_event": Grants(_REPLACE, reader=False),
    "signature_change": Grants(),
    "signature_event": Grants(_REPLACE),
    "staged_table": Grants(_REPLACE, reader=False),
    "superseded_row": Grants(_REPLACE, reader=False, auditor=False),
    "threshold_event": Grants(_APPEND),
    "threshold_state": Grants(_ALL),
    # `db track` is typed by the owner of the table, who has to be a writer for this.
    "tracked_table": Grants(_ALL, reader=False),
    "unsummed_batch": Grants(),
    "values_opening": Grants((), reader=False, auditor=False),
    "validation_log": Grants(_KEEP),
    "validation_summary": Grants(_ALL, reader=False),
    "verification_log": Grants(_ALL, reader=False),
    "whole_digest": Grants(_KEEP),
}
"""Tables and views of the schema batch_audit, by name."""

_EVENT_HASH: Final = (
    "event_hash(bigint,bytea,timestamp with time zone,text,text,text,text,text,text,"
    "jsonb,jsonb,jsonb)"
)
_REMOVE_SEGMENT: Final = (
    "remove_segment(date,bytea,text,text,text,text,timestamp with time zone,text,text)"
)
FUNCTIONS: Final[dict[str, tuple[str, ...]]] = {
    "append_event(text,text,text,text,text,text,jsonb,jsonb,jsonb)": (WRITER,),
    "batch_id_of(text)": (WRITER, READER, AUDITOR),
    "bucket(double precision)": (WRITER,),
    "carry_on(date,integer,text,text)": (WRITER,),
    "checked_of(uuid)": (WRITER, READER, AUDITOR),
    "checksums_of(uuid)": (WRITER, READER, AUDITOR),
    "detail_columns(integer)": (AUDITOR,),
    "detail_root(uuid)": (WRITER, AUDITOR),
    "detail_root(uuid,integer)": (WRITER, AUDITOR),
    "ensure_audit_month(timestamp with time zone)": (WRITER,),
    "ensure_month(regclass,timestamp with time zone)": (WRITER,),
    "entity_checksums_of(uuid)": (WRITER, READER, AUDITOR),
    _EVENT_HASH: (AUDITOR,),
    "history_facts(uuid)": (WRITER, AUDITOR),
    "framed(bytea)": (AUDITOR,),
    "holds_over_month(date)": (WRITER, AUDITOR),
    "hour_checksums_of(uuid)": (WRITER, READER, AUDITOR),
    "last_words(date)": (AUDITOR,),
    "lock_chain()": (),
    "row_event_root(uuid)": (WRITER, AUDITOR),
    "sum_checksums(uuid[])": (WRITER,),
    "open_values(uuid,text,text)": (WRITER, VALUES),
    "opened_batch()": (WRITER, VALUES),
    _REMOVE_SEGMENT: (WRITER,),
    "seal_months(text,text)": (WRITER,),
    "segment_facts(date)": (WRITER, AUDITOR),
    "segment_root(date)": (AUDITOR,),
}
"""Who may EXECUTE a function of that schema; triggers apart, which nobody has to call. Nobody else may:
PUBLIC's own right is taken away."""

SCHEMAS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    LEDGER: dict.fromkeys(GRANTED, ("USAGE",)),
    STAGING: {WRITER: ("USAGE", "CREATE")},
}
"""What each role may do with our schemas."""
