"""Traces: lines of the ledger that name a person's rows by key, without having the rows themselves.

What is critical, an alert of it, what was found to differ. The lines stay; whom they were about goes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.erasure.keys import PersonKeys
    from batch_pipelines.engine.erasure.subject import Subject
    from batch_pipelines.engine.ledger.erasures import Place
    from batch_pipelines.engine.postgres.database import Connection

# Of an alert its key has the record's, too; what was sent to people cannot be called back.
_ALERTS: Final = """
UPDATE batch_audit.alert AS a
SET subject = 'a critical row of a record that was erased',
    details = (a.details::jsonb || '{"record": "erased"}')::json,
    deduplication_key = 'critical_row/erased/' || a.alert_id
FROM batch_audit.critical_record AS c
WHERE a.kind = 'critical_row' AND a.deduplication_key = c.alert_key AND c.target_table = %(table)s
  AND c.record_key::jsonb @> ANY(%(keys)s::jsonb[])
RETURNING a.alert_id
"""
_CRITICAL: Final = """
UPDATE batch_audit.critical_record
SET record_key = jsonb_build_object('erased', critical_record_id::text)::text,
    alert_key = CASE WHEN alert_key LIKE 'critical\\_row/%%' THEN 'critical_row/erased'
                     ELSE alert_key END
WHERE target_table = %(table)s AND record_key::jsonb @> ANY(%(keys)s::jsonb[])
RETURNING batch_id::text
"""
_NAMING: Final = sql.SQL("""
UPDATE batch_audit.{table} AS t
SET details = (SELECT coalesce(jsonb_agg(e.d ORDER BY e.n), '[]')
               FROM jsonb_array_elements(t.details) WITH ORDINALITY AS e (d, n)
               WHERE (e.d -> 'key' @> ANY(%(keys)s::jsonb[])) IS NOT TRUE)
WHERE target_table = %(table)s AND EXISTS (
    SELECT FROM jsonb_array_elements(t.details) AS d WHERE d -> 'key' @> ANY(%(keys)s::jsonb[]))
RETURNING batch_id::text
""")
_ROW_CHECKSUMS: Final = """
DELETE FROM batch_audit.crc32_audit AS a USING unnest(%(starts)s::text[]) AS s (start)
WHERE a.batch_id = %(batch)s AND a.entity_type = 'row'
  AND (a.entity_id = s.start OR starts_with(a.entity_id, s.start || '#'))
"""


def remove_traces(
    connection: Connection, subject: Subject, keys: PersonKeys, places: Sequence[Place]
) -> set[str]:
    """Let no line of the ledger name a person's rows.

    Args:
        connection: A connection inside the erasing transaction.
        subject: The person.
        keys: The primary keys of their rows.
        places: Where records were found; those in bags say which records of what was delivered.

    Returns:
        The batches whose lines have changed.
    """
    table = subject.table.full_name
    named = [{c.name: v for c, v in zip(keys.columns, key, strict=True)} for key in keys.keys]
    named.append(dict(zip(subject.names, subject.values, strict=True)))
    changed = set[str]()
    for place in places:
        own = [(name, number) for name, numbers in place.positions.items() for number in numbers]
        if place.kind != "bag" or not own:
            continue
        starts = [f"{table}#{name}#{number}" for name, number in own]
        wanted = {"batch": place.batch_id, "starts": starts}
        if connection.execute(_ROW_CHECKSUMS, wanted).rowcount and place.batch_id is not None:
            changed.add(place.batch_id)
    asked = {"table": table, "keys": [json.dumps(key) for key in named]}
    connection.execute(_ALERTS, asked)
    queries = [sql.SQL(_CRITICAL)] + [
        _NAMING.format(table=sql.Identifier(name))
        for name in ("validation_summary", "verification_log")
    ]
    for query in queries:
        found = connection.execute(query, asked).fetchall()
        changed |= {str(batch_id) for (batch_id,) in found if batch_id is not None}
    return changed
