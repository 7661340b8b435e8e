"""The ledger's schema goes up and down, and a program works on no ledger but its own."""

from __future__ import annotations

from pathlib import Path
from threading import Barrier, Thread
from typing import TYPE_CHECKING

import alembic.config
import alembic.script
import pytest

from batch_pipelines.engine.errors import FeedError, SettingsError
from batch_pipelines.engine.postgres.migrate import (
    LedgerStatus,
    create_tables,
    downgrade,
    require_current,
    revisions,
    status,
    upgrade,
)
from tests.support_engine import feed_of

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection, Database

pytestmark = pytest.mark.versions

MIGRATIONS = Path(__file__).parents[3] / "migrations"
HEAD = revisions()[-1]
EVERYTHING = """
SELECT 'schema ' || nspname FROM pg_namespace
WHERE nspname <> 'information_schema' AND nspname !~ '^pg_'
UNION ALL
SELECT c.relkind::text || ' ' || c.oid::regclass::text FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE nspname <> 'information_schema' AND nspname !~ '^pg_'
UNION ALL
SELECT 'function ' || p.oid::regprocedure::text FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE nspname <> 'information_schema' AND nspname !~ '^pg_'
UNION ALL
SELECT 'type ' || t.oid::regtype::text FROM pg_type t
JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE nspname <> 'information_schema' AND nspname !~ '^pg_'
ORDER BY 1
"""
SHAPE = """
SELECT table_name, column_name, data_type, is_nullable, column_default
FROM information_schema.columns WHERE table_schema = 'batch_audit' ORDER BY 1, 2
"""


def everything(db: Connection) -> list[str]:
    return [row[0] for row in db.execute(EVERYTHING)]


def test_revisions_are_alembics() -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    script = alembic.script.ScriptDirectory.from_config(config)
    found = [revision.revision for revision in script.walk_revisions()][::-1]
    assert list(revisions()) == found
    assert script.get_current_head() == HEAD


def test_down_to_nothing_and_up_again(database: Database, db: Connection) -> None:
    """Given a ledger, when it is taken down, nothing of ours is left; up again, it is the same."""
    db.execute("CREATE TABLE public.theirs (import_batch_id uuid)")
    db.execute("INSERT INTO public.theirs VALUES (gen_random_uuid())")
    shape = db.execute(SHAPE).fetchall()
    full = everything(db)
    assert status(db) == LedgerStatus(HEAD, HEAD, ())

    assert downgrade(database, "base") == LedgerStatus(None, HEAD, revisions())
    assert everything(db) == [
        "r theirs", "schema public", "type theirs", "type theirs[]"
    ]  # fmt: skip
    assert db.execute("SELECT count(*) FROM public.theirs").fetchone() == (1,)

    assert upgrade(database) == LedgerStatus(HEAD, HEAD, ())
    assert db.execute(SHAPE).fetchall() == shape
    assert everything(db) == full
    assert upgrade(database) == LedgerStatus(HEAD, HEAD, ())
    require_current(db)


def test_there_is_nothing_to_take_back_twice(database18: Database) -> None:
    downgrade(database18, "base")
    with pytest.raises(SettingsError, match="at revision none: nothing to take back"):
        downgrade(database18, "base")


def test_an_unknown_revision_is_refused(database18: Database) -> None:
    known = ", ".join(revisions())
    with pytest.raises(SettingsError, match=rf"no revision 9999; there are {known}\."):
        upgrade(database18, "9999")
    with pytest.raises(SettingsError, match="no revision 9999"):
        downgrade(database18, "9999")


def test_two_upgrades_at_once(database: Database, db: Connection) -> None:
    downgrade(database, "base")
    barrier = Barrier(2)
    found: list[LedgerStatus] = []

    def go() -> None:
        barrier.wait()
        found.append(upgrade(database))

    threads = [Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [LedgerStatus(HEAD, HEAD, ())] * 2
    require_current(db)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            "DROP SCHEMA batch_audit CASCADE",
            rf"at revision none, {HEAD} is needed\. Run `batch-pipelines db upgrade`\.",
            id="none",
        ),
        pytest.param(
            "DELETE FROM batch_audit.alembic_version",
            rf"at revision none, {HEAD} is needed\. Run `batch-pipelines db upgrade`\.",
            id="empty",
        ),
        pytest.param(
            "UPDATE batch_audit.alembic_version SET version_num = '9999'",
            rf"at revision 9999, which this program \({HEAD}\) does not know\. Use the version",
            id="newer",
        ),
    ],
)
def test_a_ledger_of_another_version_is_refused(
    database18: Database, change: str, message: str
) -> None:
    with database18.connect("test") as db:
        db.execute(change.encode())
        with pytest.raises(SettingsError, match=message):
            require_current(db)


def test_a_newer_ledger_is_left_as_it_is(database18: Database) -> None:
    with database18.connect("test") as db:
        db.execute("UPDATE batch_audit.alembic_version SET version_num = '9999'")
        before = everything(db)
        for change in (upgrade, lambda database: downgrade(database, "base")):
            with pytest.raises(SettingsError, match="at revision 9999, which this program"):
                change(database18)
        assert everything(db) == before
        assert status(db).current == "9999"


def test_what_others_put_into_our_schema_is_not_dropped(database18: Database) -> None:
    """Given somebody's view on the ledger, when it is taken down, it is refused and all is left."""
    with database18.connect("test") as db:
        db.execute("CREATE VIEW public.failed AS SELECT * FROM batch_audit.import_history")
        before = everything(db)
        with pytest.raises(
            SettingsError, match=r"refused to downgrade .* 2BP01.*view failed depends on"
        ):
            downgrade(database18, "base")
        assert everything(db) == before


# Months

MONTHS = """
SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
WHERE inhparent = 'batch_audit.crc32_audit'::regclass ORDER BY 1
"""
ENSURE = "SELECT batch_audit.ensure_month('batch_audit.crc32_audit', %s)"


def test_this_month_and_the_next_have_a_partition_from_the_start(db: Connection) -> None:
    expected = db.execute("""
        SELECT array_agg('crc32_audit_' || to_char(now() AT TIME ZONE 'UTC' + m * interval '1 month',
                                                   'YYYY_MM') ORDER BY m)
        FROM generate_series(0, 1) m
    """).fetchone()
    assert expected is not None
    assert [name for name, _ in db.execute(MONTHS)] == expected[0]


def test_a_month_is_made_once_and_holds_it_from_its_first_to_its_last_instant(
    db: Connection,
) -> None:
    for instant in ("2031-02-01 00:00+00", "2031-02-28 23:59:59.999999+00"):
        db.execute(ENSURE, (instant,))
    # Wherever the session is: the month is that of UTC.
    db.execute("SET TimeZone = 'Pacific/Auckland'")
    db.execute(ENSURE, ("2031-02-28 12:00+00",))
    db.execute("SET TimeZone = 'UTC'")
    made = [row for row in db.execute(MONTHS) if row[0] >= "crc32_audit_2031"]
    bounds = "FOR VALUES FROM ('2031-02-01 00:00:00+00') TO ('2031-03-01 00:00:00+00')"
    assert made == [("crc32_audit_2031_02", bounds)]


# The tables of feeds


def test_tables_that_are_missing_are_created_from_the_feeds_sql(
    database: Database, db: Connection, tmp_path: Path
) -> None:
    (tmp_path / "t.sql").write_text(
        "CREATE TABLE IF NOT EXISTS t (a int, import_batch_id uuid);\n"
        "CREATE TABLE IF NOT EXISTS u (a int CHECK (a % 2 = 0), import_batch_id uuid);\n"
    )
    feed = feed_of({"public.t": "t*", "public.u": "u*"}, ddl="t.sql")
    without = feed_of({"public.w": "*"}, feed="others")
    assert create_tables(db, [feed, without], tmp_path) == ("orders",)
    db.execute("INSERT INTO t VALUES (1)")
    assert create_tables(db, [feed, without], tmp_path) == ()
    db.execute("DROP TABLE u")
    assert create_tables(db, [feed, without], tmp_path) == ("orders",)
    assert db.execute("SELECT count(*) FROM t").fetchone() == (1,)
    assert db.execute("SELECT count(*) FROM u").fetchone() == (0,)


def test_sql_may_refer_to_the_tables_of_other_feeds(db: Connection, tmp_path: Path) -> None:
    (tmp_path / "c.sql").write_text("CREATE TABLE c (p int REFERENCES p)")
    (tmp_path / "p.sql").write_text("CREATE TABLE p (id int PRIMARY KEY)")
    child = feed_of({"public.c": "*"}, feed="child", ddl="c.sql")
    parent = feed_of({"public.p": "*"}, feed="parent", ddl="p.sql")
    with pytest.raises(FeedError, match=r"c\.sql: PostgreSQL refuses it \(SQLSTATE 42P01\)"):
        create_tables(db, [child], tmp_path)
    assert create_tables(db, [child, parent], tmp_path) == ("parent", "child")


def test_sql_that_postgresql_refuses_creates_nothing(database18: Database, tmp_path: Path) -> None:
    (tmp_path / "t.sql").write_text("CREATE TABLE first (a int);\nCREATE TABLE t (a nonsense);\n")
    feed = feed_of({"public.t": "*"}, ddl="t.sql")
    with database18.connect("test") as db:
        with pytest.raises(FeedError, match=r"t\.sql: PostgreSQL refuses it \(SQLSTATE 42704\)"):
            create_tables(db, [feed], tmp_path)
        assert db.execute("SELECT to_regclass('first')").fetchone() == (None,)
        (tmp_path / "t.sql").unlink()
        with pytest.raises(FeedError, match=r"`ddl` of feed orders cannot be read \(No such file"):
            create_tables(db, [feed], tmp_path)
