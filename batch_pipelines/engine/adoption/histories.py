"""Reading an import history of another system: which column means what, and which word is which state.

What is taken over is when, by whom, how many and how it ended; never a text of an error, which may hold
values of rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql
from psycopg.rows import scalar_row
from psycopg.types.json import Jsonb

from batch_pipelines.engine.adoption.records import Options
from batch_pipelines.engine.errors import AdoptionError
from batch_pipelines.engine.ledger.batch_events import tell_of_many

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from batch_pipelines.engine.adoption.relations import Relation
    from batch_pipelines.engine.postgres.database import Connection

BATCH_ID = "batch_id"
# Meaning -> names it is known by, the likeliest first. The first three have to be there.
_KNOWN = {
    "job_id": ("job_id", "import_id", "import_job_id"),
    "status": ("status", "state", "job_status"),
    "started_at": ("started_at", "start_time", "started", "created_at"),
    "completed_at": ("completed_at", "finished_at", "ended_at", "end_time", "completed"),
    "rolled_back_at": ("rolled_back_at",),
    "rolled_back_by": ("rolled_back_by",),
    "requested_by": ("requested_by", "imported_by", "created_by", "started_by", "user_id"),
    "source_records": ("total_rows", "total_records", "source_records", "row_count"),
    "written_records": ("success_rows", "imported_rows", "success_count", "written_records"),
    "rejected_records": ("failed_rows", "error_rows", "error_count", "rejected_records"),
    "partition_key": (),
}
_NEEDED = ("job_id", "status", "started_at")
_NUMBERS = frozenset({"source_records", "written_records", "rejected_records"})
_TIMES = frozenset({"started_at", "completed_at", "rolled_back_at"})
_NUMBER_TYPES = frozenset({"smallint", "integer", "bigint"})
_TIME_TYPES = ("timestamp", "date")
UNFINISHED = "IN_PROGRESS"
"""State of a job that has not ended; it is taken over when it has."""
_ENDED = ("SUCCESS", "PARTIAL_SUCCESS", "FAILED", "ROLLED_BACK")
STATES: Mapping[str, str] = {
    **dict.fromkeys(
        ["completed", "complete", "success", "succeeded", "successful", "done", "finished", "ok",
         "imported"], "SUCCESS"),
    **dict.fromkeys(
        ["partial", "partial_success", "partially_completed", "completed_with_errors",
         "completed_with_warnings"], "PARTIAL_SUCCESS"),
    **dict.fromkeys(
        ["failed", "failure", "error", "errored", "aborted", "cancelled", "canceled", "rejected"],
        "FAILED"),
    **dict.fromkeys(["rolled_back", "rolledback", "reverted", "undone"], "ROLLED_BACK"),
    **dict.fromkeys(
        ["pending", "queued", "created", "waiting", "running", "processing", "in_progress", "started",
         "importing", "validating", "validated"], UNFINISHED),
}  # fmt: skip
"""The rule by which words of other systems become states; read in lower case, `-` and blanks as `_`."""

_COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
# Infinity is a time to PostgreSQL, and to nobody else.
_TIME = sql.SQL("CASE WHEN isfinite({0}::timestamptz) THEN {0}::timestamptz END")
_ID, _ID_OF_TEXT = sql.SQL("h.{}"), sql.SQL("batch_audit.batch_id_of(h.{}::text)")
_WORD = sql.SQL("regexp_replace(lower(btrim(h.{status}::text)), '[- ]+', '_', 'g')")
_STATE = sql.SQL("coalesce({rolled_back}, {states}::jsonb ->> {word})")
_UNKNOWN = sql.SQL("""
SELECT DISTINCT coalesce(left({word}, 40), '(null)') FROM {table} h
WHERE {state} IS NULL ORDER BY 1 LIMIT 20
""")
_PENDING = sql.SQL("""
SELECT count(*) FILTER (WHERE {state} <> 'IN_PROGRESS'), count(*) FILTER (WHERE {state} = 'IN_PROGRESS')
FROM {table} h
WHERE NOT EXISTS (SELECT FROM batch_audit.import_history b
                  WHERE b.batch_id = {id})
""")
# A later try at the same key is a later attempt, as it is with batches of ours.
_TAKE_OVER = sql.SQL("""
INSERT INTO batch_audit.import_history (batch_id, job_id, feed, feed_version, partition_key, status,
    attempt, requested_by, correlation_id, source_records, written_records, rejected_records,
    started_at, published_at, completed_at, rolled_back_at, rolled_back_by, adopted_from)
SELECT id, job_id, {feed}, 1, key, state,
    coalesce((SELECT max(attempt) FROM batch_audit.import_history b
              WHERE b.feed = {feed} AND b.partition_key = key), 0)
        + row_number() OVER (PARTITION BY key ORDER BY started, id),
    by, id::text, source, written, rejected, started, CASE WHEN state <> 'FAILED' THEN ended END, ended,
    undone, undone_by, {name}
FROM (SELECT {id} AS id, h.{job_id}::text AS job_id,
          coalesce(nullif({partition_key}::text, ''), h.{job_id}::text) AS key, {state} AS state,
          coalesce({requested_by}::text, 'unknown') AS by, {source_records}::bigint AS source,
          {written_records}::bigint AS written, {rejected_records}::bigint AS rejected,
          coalesce({started}, {ended}, clock_timestamp()) AS started, {ended} AS ended,
          {undone} AS undone,
          {rolled_back_by}::text AS undone_by
      FROM {table} h WHERE {state} <> 'IN_PROGRESS') AS job
WHERE NOT EXISTS (SELECT FROM batch_audit.import_history b WHERE b.batch_id = id)
RETURNING batch_id::text
""")
# What the other system has taken back since it was taken over.
_UNDONE_SINCE = sql.SQL("""
UPDATE batch_audit.import_history b
SET status = 'ROLLED_BACK', rolled_back_at = {undone},
    rolled_back_by = {rolled_back_by}::text
FROM {table} h
WHERE b.adopted_from = {name} AND b.batch_id = {id}
  AND b.status IN ('SUCCESS', 'PARTIAL_SUCCESS') AND {state} = 'ROLLED_BACK'
RETURNING b.batch_id::text
""")
# A rollback of ours that the history does not know of.
_ROLLED_BACK_HERE = sql.SQL("""
SELECT count(*) FROM batch_audit.import_history b
JOIN {table} h ON b.batch_id = {id}
WHERE b.adopted_from = {name} AND b.status = 'ROLLED_BACK' AND {state} IS DISTINCT FROM 'ROLLED_BACK'
""")
_UNSAID = Options(feed="adopted")
_FEED = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class History:
    """An import history and how it is read.

    Attributes:
        relation: The table.
        options: Its columns by their meaning, words and feed, all of them.
        is_text: Whether it had a `batch_id` of a text type.
    """

    relation: Relation
    options: Options
    is_text: bool

    @property
    def job_id(self) -> str:
        """Column of the other system's id."""
        return self.options.columns["job_id"]


def read_history(connection: Connection, relation: Relation, options: Options) -> History:
    """Find out which column of an import history means what.

    Args:
        connection: A connection.
        relation: The table.
        options: What was said of it: columns, words, feed.

    Returns:
        The history, with columns that nobody named found by their usual names.

    Raises:
        AdoptionError: A column is missing or of a wrong type, or a word or the feed cannot be used.
    """
    options = options.over(_UNSAID)
    types: dict[str, str] = dict(connection.execute(_COLUMNS, (relation.oid,)).fetchall())
    problems = [*_problems(options, types)]
    columns = {
        meaning: options.columns.get(meaning) or next((n for n in names if n in types), None)
        for meaning, names in _KNOWN.items()
    }
    problems += [
        f"no column is known to be its {meaning}: say `--column {meaning}=NAME`"
        for meaning in _NEEDED
        if columns[meaning] is None
    ]
    for meaning, name in columns.items():
        type_name = types.get(name or "", "")
        wanted = "a whole number" if meaning in _NUMBERS else "a time"
        right = (
            type_name in _NUMBER_TYPES if meaning in _NUMBERS
            else type_name.startswith(_TIME_TYPES) if meaning in _TIMES else True
        )  # fmt: skip
        if type_name and not right and meaning in options.columns:
            problems.append(f"{name} is of type {type_name}; {meaning} has to be {wanted}")
        elif type_name and not right and meaning in _NEEDED:
            problems.append(
                f"{name} is of type {type_name}; say `--column {meaning}=NAME` of {wanted}"
            )
        elif not right:
            columns[meaning] = None
    if problems:
        message = (
            f"{relation.full_name} cannot be read as an import history: {'; '.join(problems)}."
        )
        raise AdoptionError(message)
    found = {meaning: name for meaning, name in columns.items() if name is not None}
    is_text = types.get(BATCH_ID, "uuid") != "uuid"
    return History(relation, Options(found, _normal(options.states), options.feed), is_text)


def unknown_words(connection: Connection, history: History) -> list[str]:
    """List words of the history's status that no rule makes a state, at most 20."""
    query = _UNKNOWN.format(**_parts(history))
    return [word for (word,) in connection.execute(query).fetchall()]


def require_known_words(connection: Connection, history: History) -> None:
    """Refuse a history with words for its states that no rule knows.

    Args:
        connection: A connection.
        history: The history.

    Raises:
        AdoptionError: There are such words; they are listed.
    """
    words = unknown_words(connection, history)
    if words:
        message = (
            f"{history.relation.full_name}: {history.options.columns['status']} has words that say no "
            f"state: {', '.join(words)}. Say what each means, as in `--status {words[0]}=SUCCESS`; the "
            f"states are {', '.join(_ENDED)}, and {UNFINISHED} for a job that has not ended."
        )
        raise AdoptionError(message)


def pending(connection: Connection, history: History) -> tuple[int, int]:
    """Count the jobs that are not in the ledger; the history has its batch ids.

    Returns:
        Those that have ended, and those that have not.
    """
    ((ended, running),) = connection.execute(_PENDING.format(**_parts(history))).fetchall()
    return int(ended), int(running)


def take_over(connection: Connection, history: History) -> int:
    """Write the jobs that have ended into the ledger, and what was rolled back since it was.

    Args:
        connection: A connection inside a transaction.
        history: The history; each of its rows has its batch id.

    Returns:
        How many batches are new.
    """
    parts = _parts(history)
    with connection.cursor(row_factory=scalar_row) as cursor:
        undone = cursor.execute(_UNDONE_SINCE.format(**parts)).fetchall()
        new = cursor.execute(_TAKE_OVER.format(**parts)).fetchall()
    tell_of_many(connection, undone, "adopted.rolled_back")
    tell_of_many(connection, new, "adopted")
    return len(new)


def rolled_back_here(connection: Connection, history: History) -> int:
    """Count the batches that were rolled back here, of which the history itself knows nothing."""
    query = _ROLLED_BACK_HERE.format(**_parts(history))
    ((count,),) = connection.execute(query).fetchall()
    return int(count)


def _problems(options: Options, types: Mapping[str, str]) -> Iterable[str]:
    for meaning, name in options.columns.items():
        if meaning not in _KNOWN:
            yield f"`--column {meaning}=` is not known; there are {', '.join(_KNOWN)}"
        elif name not in types:
            yield f"there is no column {name} for {meaning}"
    for word, state in options.states.items():
        if state not in {*_ENDED, UNFINISHED}:
            yield f"`--status {word}={state}`: states are {', '.join([*_ENDED, UNFINISHED])}"
    if not _FEED.fullmatch(options.feed):
        yield f"{options.feed!r} is no name of a feed: lower-case letters, digits and _"


def _normal(states: Mapping[str, str]) -> dict[str, str]:
    """Write words as they are compared."""
    return {re.sub("[- ]+", "_", word.strip().lower()): state for word, state in states.items()}


def _parts(history: History) -> dict[str, sql.Composable]:
    """Give what statements are filled with: literals too, for a name may have a per cent sign."""
    columns = history.options.columns
    given: dict[str, sql.Composable] = {
        meaning: sql.SQL("h.{}").format(sql.Identifier(columns[meaning]))
        if meaning in columns
        else sql.SQL("NULL")
        for meaning in _KNOWN
    }
    word = _WORD.format(status=sql.Identifier(columns["status"]))
    rolled_back = sql.SQL("CASE WHEN {} IS NOT NULL THEN 'ROLLED_BACK' END").format(
        given["rolled_back_at"]
    )
    states = sql.Literal(Jsonb({**STATES, **history.options.states}))
    return {
        **given,
        "feed": sql.Literal(history.options.feed),
        "name": sql.Literal(history.relation.full_name),
        "started": _TIME.format(given["started_at"]),
        "ended": _TIME.format(given["completed_at"]),
        "undone": _TIME.format(given["rolled_back_at"]),
        "job_id": sql.Identifier(columns["job_id"]),
        "table": history.relation.identifier,
        "id": (_ID_OF_TEXT if history.is_text else _ID).format(sql.Identifier(BATCH_ID)),
        "word": word,
        "state": _STATE.format(rolled_back=rolled_back, word=word, states=states),
    }
