"""Critical rows: which rows become visible that people must be told of at once.

PostgreSQL judges them as they are stored, in the publish transaction. What is to be told is written down
there, too, as alerts: rows and alerts are one commit. Not here: sending them (`alerts.at_once`).
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Final

import crc32c
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from psycopg import sql

from batch_pipelines.engine.alerts import Alert, raise_alert
from batch_pipelines.engine.catalog import STAMP
from batch_pipelines.engine.errors import PublishError
from batch_pipelines.engine.images import as_json
from batch_pipelines.engine.ledger import critical
from batch_pipelines.engine.writing.staging import give_room

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batch_pipelines.engine.alerts.alert import Detail
    from batch_pipelines.engine.ledger.critical import Untold
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.writing.proof import Proof
    from batch_pipelines.engine.writing.publication import Publication
    from batch_pipelines.engine.writing.source import TableSource

KIND: Final = "critical_row"
REST_KIND: Final = "critical_rows"
# A key is told as it is up to here; above, the alert is known by a digest of it.
_LONG_KEY: Final = 200

_TEMPORARY = """
CREATE TEMPORARY TABLE batch_pipelines_told (
    target_table text, condition text, identity text, mark text, alert_key text) ON COMMIT DROP;
CREATE TEMPORARY TABLE batch_pipelines_critical (
    target_table text, condition text, identity text, mark text, record_key text) ON COMMIT DROP
"""
# One row for each condition that is true; the unknown is not. Expressions look at bare names of columns.
_CRITICAL = sql.SQL("""
SELECT {name} AS target_table, c.condition, {identity} AS identity, {mark} AS mark, {wire} AS wire
FROM {table} AS t
CROSS JOIN LATERAL unnest(ARRAY[{conditions}]) AS c (condition)
WHERE t.{stamp} = {batch} AND c.condition IS NOT NULL
""")
_WHEN = sql.SQL("CASE WHEN ({expression}) THEN {name} END")
# Told is what the ledger says was told, not what would be by the conditions of now.
_NOTE_TOLD = sql.SQL("""
INSERT INTO pg_temp.batch_pipelines_told
SELECT f.target_table, f.condition, f.identity, f.mark, min(r.alert_key)
FROM ({critical}) AS f JOIN batch_audit.critical_record AS r
    ON r.batch_id = {batch} AND r.target_table = f.target_table AND r.condition = f.condition {same}
GROUP BY 1, 2, 3, 4
""")
_NOTE_KEYED = sql.SQL("""
INSERT INTO pg_temp.batch_pipelines_critical
SELECT target_table, condition, identity, mark, identity FROM ({critical}) AS f
""")
_READ = sql.SQL("COPY ({critical}) TO STDOUT (FORMAT binary)")
_NOTE = "COPY pg_temp.batch_pipelines_critical FROM STDIN"
# In the order of their keys, so that the same delivery tells of the same ones singly.
_RECORD = """
INSERT INTO batch_audit.critical_record (batch_id, target_table, condition, record_key, alert_key)
SELECT %(batch_id)s, f.target_table, f.condition, f.record_key, t.alert_key
FROM pg_temp.batch_pipelines_critical AS f
LEFT JOIN pg_temp.batch_pipelines_told AS t USING (target_table, condition, identity, mark)
ORDER BY f.target_table, f.condition, f.record_key
ON CONFLICT DO NOTHING
"""


def note_told(connection: Connection, publication: Publication) -> None:
    """Note what was told of the batch that is about to be superseded, while its rows are there.

    Args:
        connection: The publishing connection, inside its transaction, before the first row.
        publication: What is to be published.

    Raises:
        PublishError: A condition cannot be computed.
    """
    if not _is_asked(publication):
        return
    # Where this way ends at a row that does not fit, the session goes on with staged tables.
    give_room(connection)
    connection.execute(_TEMPORARY)
    if publication.superseded is None:
        return
    for source in _asked(publication):
        key = _key(publication, source)
        note = _NOTE_TOLD.format(
            critical=_critical(source, key, publication.superseded),
            batch=sql.Literal(publication.superseded),
            same=sql.SQL("AND r.record_key = f.identity" if key else ""),
        )
        _compute(connection, source, note)


def raise_critical(
    connection: Connection, publication: Publication, proofs: Iterable[Proof]
) -> None:
    """Write down which rows are critical, and an alert of each that was not told before.

    Args:
        connection: The publishing connection, when all rows are in their tables.
        publication: What is published.
        proofs: What was noted of the records as they were parsed.

    Raises:
        PublishError: A condition cannot be computed.
    """
    if not _is_asked(publication):
        return
    batch_id = publication.batch.batch_id
    for proof in proofs:
        source = proof.source
        if not source.rules.critical:
            continue
        key = _key(publication, source)
        found = _critical(source, key, batch_id)
        if key:
            _compute(connection, source, _NOTE_KEYED.format(critical=found))
        else:
            _note_places(connection, publication, proof, found)
    connection.execute(_RECORD, {"batch_id": batch_id})
    total = critical.count(connection, batch_id)
    left = publication.work.feed.critical.told_singly - critical.told_singly(connection, batch_id)
    keys = {each.table.full_name: _key(publication, each) for each in publication.sources}
    for record in critical.untold(connection, batch_id, max(left, 0)):
        alert = _alert_of(publication, record, record.place(keys[record.target_table]))
        raise_alert(connection, alert)
        critical.record_told(connection, record, alert.deduplication_key)
    # A replay may add more than were left before.
    rest_key = f"{REST_KIND}/{batch_id}/{total}"
    if rest := critical.record_rest_told(connection, batch_id, rest_key):
        raise_alert(connection, _alert_of_rest(publication, rest, rest_key))


def _is_asked(publication: Publication) -> bool:
    return publication.is_real and publication.work.feed.has_critical


def _asked(publication: Publication) -> list[TableSource]:
    return [source for source in publication.sources if source.rules.critical]


def _key(publication: Publication, source: TableSource) -> tuple[str, ...]:
    return publication.upsert_key(source) or source.table.primary_key


def _critical(source: TableSource, key: tuple[str, ...], batch_id: str) -> sql.Composed:
    """Ask for the critical rows of a batch.

    What tells a row from others is its key; it is told anew where what a condition looks at has changed.
    Without a key a row is what it brings, and known by the digest that it had as a record.
    """
    brought = _row(column.name for column in source.columns)
    marks = sql.SQL(" ").join(
        sql.SQL("WHEN {} THEN md5({}::text)").format(sql.Literal(each.name), _row(each.columns))
        for each in source.rules.critical
    )
    wire = sql.SQL("pg_catalog.record_send({})").format(_row(c.name for c in source.exact))
    return _CRITICAL.format(
        name=sql.Literal(source.table.full_name),
        identity=sql.SQL("{}::text").format(as_json("t", key))
        if key
        else sql.SQL("md5({}::text)").format(brought),
        mark=sql.SQL("CASE c.condition {} END").format(marks) if key else sql.SQL("''::text"),
        wire=sql.SQL("NULL::bytea") if key or not source.exact else wire,
        table=source.table.identifier,
        conditions=sql.SQL(", ").join(
            # The expressions are PostgreSQL's own renderings.
            _WHEN.format(expression=sql.SQL(each.expression), name=sql.Literal(each.name))
            for each in source.rules.critical
        ),
        stamp=sql.Identifier(STAMP),
        batch=sql.Literal(batch_id),
    )


def _row(names: Iterable[str]) -> sql.Composed:
    return sql.SQL("ROW({})").format(sql.SQL(", ").join(sql.Identifier("t", n) for n in names))


def _compute(connection: Connection, source: TableSource, query: sql.Composed) -> None:
    try:
        connection.execute(query)
    except psycopg.DataError as error:
        raise _not_computed(source, error) from None


def _not_computed(source: TableSource, error: psycopg.Error) -> PublishError:
    names = ", ".join(each.name for each in source.rules.critical)
    return PublishError(
        f"{source.table.full_name}: whether a row is critical cannot be computed of some row (one of "
        f"{names}; SQLSTATE {error.sqlstate}); nothing was written. Write the condition so that it has "
        "an answer for every row, as with NULLIF or CASE, or demand by a rule that it has."
    )


def _note_places(
    connection: Connection, publication: Publication, proof: Proof, found: sql.Composed
) -> None:
    """Note critical rows of a table without a key by file and record, known by their digests."""
    rows: list[tuple[str, str, int | None]] = []
    try:
        with connection.cursor() as cursor, cursor.copy(_READ.format(critical=found)) as copy:
            copy.set_types(["text", "text", "text", "text", "bytea"])
            for _, condition, identity, _, wire in copy.rows():
                rows.append((condition, identity, None if wire is None else crc32c.crc32c(wire)))
    except psycopg.DataError as error:
        raise _not_computed(proof.source, error) from None
    places = _places(proof, {crc for _, _, crc in rows if crc is not None})
    left = {each.name: {crc: deque(own) for crc, own in places.items()}
            for each in proof.source.rules.critical}  # fmt: skip
    name, lost = proof.source.table.full_name, 0
    with connection.cursor() as cursor, cursor.copy(_NOTE) as copy:
        for condition, identity, crc in rows:
            own = left[condition].get(crc) if crc is not None else None
            if own:
                file_name, number = own.popleft()
                place = {"file": file_name, "record": str(number)}
            elif publication.purpose == "replay":
                # It was there before the records that are replayed.
                continue
            else:
                # What is stored is not written as it was sent, so that no record is known by it.
                lost += 1
                place = {"file": "unknown", "record": f"unknown {lost}"}
            copy.write_row((name, condition, identity, "", json.dumps(place)))


def _places(proof: Proof, wanted: set[int]) -> dict[int, list[tuple[str, int]]]:
    """Say which records have which digest."""
    found: dict[int, list[tuple[str, int]]] = defaultdict(list)
    values = pa.array(sorted(wanted), pa.uint32())
    with pq.ParquetFile(proof.path) as noted:
        for rows in noted.iter_batches():
            own = rows.filter(pc.is_in(rows["crc32c"], value_set=values))
            columns = (own[name].to_pylist() for name in ("file_name", "record", "crc32c"))
            for file_name, number, crc in zip(*columns, strict=True):
                found[crc].append((file_name, number))
    return found


def _alert_of(publication: Publication, record: Untold, place: str) -> Alert:
    batch = publication.batch
    short = place if len(place) <= _LONG_KEY else hashlib.sha256(place.encode()).hexdigest()
    parts = (KIND, batch.batch_id, record.target_table, record.condition, short)
    return _alert(
        publication,
        KIND,
        f"{batch.name}: {record.condition} is critical: {place} of {record.target_table}",
        "/".join(parts),
        {"condition": record.condition, "table": record.target_table, "record": place},
    )


def _alert_of_rest(
    publication: Publication, rest: Iterable[tuple[str, str, int]], key: str
) -> Alert:
    by_condition = {f"{condition} in {table}": number for table, condition, number in rest}
    total = sum(by_condition.values())
    subject = f"{publication.batch.name}: {total:,} more rows are critical"
    return _alert(publication, REST_KIND, subject, key, by_condition)


def _alert(
    publication: Publication, kind: str, subject: str, key: str, details: Mapping[str, Detail]
) -> Alert:
    batch, told = publication.batch, publication.work.feed.critical
    following = f"batch-pipelines show {batch.batch_id[:8]}"
    return Alert(
        kind=kind,
        severity="critical",
        subject=subject,
        deduplication_key=key,
        feed=batch.feed,
        batch_id=batch.batch_id,
        details={
            **details,
            "received": f"{batch.started_at:%Y-%m-%d %H:%M:%S %Z}",
            "next": following,
        },
        channels=told.channels,
        escalate_after=told.escalates_after,
        escalate_to=told.escalate_to,
        occurred_at=batch.started_at,
    )
