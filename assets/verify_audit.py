"""The op `verify_trail`: the audit trail, against its hashes, its anchors and what the ledger says."""

import dagster as dg

from assets.common import table
from batch_pipelines.engine.audit.verify import require_holds, verify_audit
from resources.batches import Batches


@dg.op(
    name="verify_trail",
    description="Verifies the audit trail; fails, and raises an alert, where it does not hold.",
)
def verify_audit_op(context: dg.OpExecutionContext, batches: dg.ResourceParam[Batches]) -> None:
    """Verify the audit trail."""
    with batches.connect("verify_audit") as connection:
        found = verify_audit(connection, batches.settings.anchors_folder)
        context.add_output_metadata(
            {
                "status": found.status,
                "entries": found.entries,
                "last entry": found.last,
                "hash of it": found.last_hash,
                "anchors": found.anchors,
                "anchored up to": found.anchored,
                "not anchored": found.exposed,
                "batches": found.batches,
                "months sealed": found.segments,
                "entries of removed months": found.not_read,
                "findings": table(
                    {"entry": each.seq, "what": each.kind, "found": each.message}
                    for each in found.findings
                ),
            }
        )
        require_holds(connection, found)
