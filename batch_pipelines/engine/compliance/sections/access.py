"""Who looked at what: looks at values of rows, reports made and signed, entries of records."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from batch_pipelines.engine.compliance.model import Content, Figure, listing
from batch_pipelines.engine.compliance.sections.events import events

if TYPE_CHECKING:
    from batch_pipelines.engine.compliance.scope import Scope
    from batch_pipelines.engine.postgres.database import Connection


def read(connection: Connection, scope: Scope) -> Content:
    """Read who looked at what.

    Args:
        connection: A connection, in the snapshot of the report.
        scope: What the report is about.

    Returns:
        The content.
    """
    looks = events(connection, scope, ["values.%"])
    reports = events(connection, scope, ["report.%"])
    recorded = events(connection, scope, ["batch.rows.recorded"])
    by_whom = Counter(
        (each.principal_id, each.feed, each.action, each.status) for each in looks
    ).most_common()
    signed = [each for each in reports if each.action == "report.signed"]
    handed = [each for each in reports if each.action in {"report.made", "report.signed"}]
    refused = sum(each.status == "FAILED" for each in looks)
    figures = (
        Figure("looks", "Looks at values of rows", len(looks)),
        Figure("principals", "by different principals", len({e.principal_id for e in looks})),
        Figure("refused", "of these refused or failed", refused),
        Figure("reports", "Compliance reports made", len(handed) - len(signed)),
        Figure("signed", "Reports signed", len(signed)),
        Figure(
            "records",
            "Records with an entry of their own",
            sum(sum(each.details["tables"].values()) for each in recorded),
        ),
    )
    tables = (
        listing(
            "by_principal",
            "Looks at values, by principal",
            ("principal", "feed", "action", "outcome|state", "times|count"),
            [(*who, times) for who, times in by_whom],
        ),
        listing(
            "looks",
            "Looks at values",
            ("when|time", "principal", "action", "outcome|state", "feed", "partition", "of",
             "which|code"),
            [
                (e.created_at, e.principal_id, e.action, e.status, e.feed, e.partition_key,
                 e.resource_type, e.resource_id)
                for e in looks
            ],
        ),
        listing(
            "reports",
            "Compliance reports made and signed",
            ("when|time", "principal", "what", "report|code", "statement"),
            [
                (e.created_at, e.principal_id, e.action, e.resource_id, e.details.get("statement"))
                for e in handed
            ],
        ),
        listing(
            "records",
            "Batches whose records have an entry each",
            ("when|time", "feed", "partition", "batch|code", "records|count", "people|count"),
            [
                (e.created_at, e.feed, e.partition_key, e.resource_id,
                 sum(e.details["tables"].values()), e.details["principals"])
                for e in recorded
            ],
            note="People as they were delivered with the records; nobody has proven who they were.",
        ),
    )  # fmt: skip
    return Content(len(looks) + len(reports) + len(recorded), figures, tables)
