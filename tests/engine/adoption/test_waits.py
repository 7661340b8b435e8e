"""How long a writer waits while a table is tracked behind a reader that stays: never for a second.

The small form runs with all tests, the full one (3 million rows, a reader of 60 seconds) with
`make soak`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.adoption.short_locks import Pace
from batch_pipelines.engine.adoption.track import track
from tests.engine.adoption.support import indexes, reading, writing

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Database

DDL = """
CREATE TABLE t (id bigint PRIMARY KEY, a int NOT NULL, b text NOT NULL);
INSERT INTO t SELECT n, n % 1000, 'row ' || n FROM generate_series(1, {rows}) n;
"""
UPSERT = "INSERT INTO t VALUES (%s, 1, 'new') ON CONFLICT (id) DO UPDATE SET a = t.a + 1"
# Of the statements that take longer, the waits are added up: a short one is no wait for us.
_WAITED = 0.05


def wait_while_tracked(database: Database, *, rows: int, seconds: float) -> tuple[float, float]:
    """Track a table behind a reader, with a writer at work.

    Args:
        database: Where.
        rows: Of the table.
        seconds: How long the reader stays.

    Returns:
        Longest wait of the writer, and all its longer ones together, in seconds.
    """
    with database.connect("test") as db:
        db.execute(DDL.format(rows=rows).encode())
        file = db.execute("SELECT pg_relation_filenode('t')").fetchone()
        with (
            writing(database, UPSERT, lambda n: (n * 7919 % (2 * rows),), 0.005) as waits,
            reading(database, "t", seconds),
        ):
            track(database, "public.t", by="a test", pace=Pace(give_up_after=300))
        assert waits.errors == []
        assert len(waits.seconds) > 100 * min(seconds, 5) / 5
        assert [valid for _, valid in indexes(db, "t")] == [True]
        assert db.execute("SELECT pg_relation_filenode('t')").fetchone() == file
    return max(waits.seconds), sum(wait for wait in waits.seconds if wait > _WAITED)


@pytest.mark.versions
def test_a_writer_waits_for_no_second(database: Database) -> None:
    longest, _ = wait_while_tracked(database, rows=100_000, seconds=5)
    # Behind the reader it would wait for all of its 5 seconds; a busy machine has pauses of its own.
    assert longest < 4


@pytest.mark.soak
def test_a_writer_of_a_large_table_waits_for_no_second_behind_a_reader_of_a_minute(
    database18: Database,
) -> None:
    longest, together = wait_while_tracked(database18, rows=3_000_000, seconds=60)
    print(f"longest wait {longest:.3f} s, all together {together:.3f} s")  # noqa: T201
    assert longest < 1
