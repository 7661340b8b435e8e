"""A superuser against the whole ledger: whatever of it is anchored, no change of it goes unseen."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from batch_pipelines.engine.audit import anchors
from batch_pipelines.engine.audit.segment_bags import SegmentBags
from batch_pipelines.engine.audit.verify import examine
from batch_pipelines.engine.errors import AuditError
from batch_pipelines.engine.feed_parts.retention import SiteRetention
from batch_pipelines.engine.feeds import Feed
from batch_pipelines.engine.retention.course import Retention, require_done
from batch_pipelines.engine.retention.plan import Planner
from batch_pipelines.engine.retention.record import Course
from tests.support_engine import new_id
from tests.support_retention import ahead
from tests.support_rollback import take_back
from tests.support_soak import short_or_long
from tests.support_trail import CHAIN_ANEW, backdate, protect, unprotect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.postgres.database import Connection
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = "CREATE TABLE t (id int PRIMARY KEY, v int, by text, note text, import_batch_id uuid)"
_RULE = {"audit_trail": {"keep": "30 days", "legal_source": "data policy 4.2"}}
_TRAIL = ("audit_event", "audit_event", "audit_head", "audit_segment")
# What of them the trail tells; the rest are measures and work of the program.
_HISTORY = """
SELECT array_agg(DISTINCT key) FROM batch_audit.import_history,
    jsonb_object_keys(batch_audit.history_facts(batch_id)) AS key
"""
_DETAILS = "SELECT detail, columns FROM batch_audit.detail_columns(2)"
_COLUMNS = """
SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = ('batch_audit.' || %s)::regclass AND attnum > 0 AND NOT attisdropped
    AND attgenerated = '' AND attidentity = ''
"""
# Another value of a type, whatever there was.
_OTHER = {
    "text": "coalesce({0}, '') || 'x'", "bigint": "coalesce({0}, 0) + 1",
    "integer": "coalesce({0}, 0) + 1", "numeric": "coalesce({0}, 0) + 1",
    "double precision": "coalesce({0}, 0) + 1", "bytea": "sha256(coalesce({0}, ''))",
    "uuid": "gen_random_uuid()", "boolean": "NOT coalesce({0}, false)",
    "timestamp with time zone": "coalesce({0}, now()) + interval '1 microsecond'",
    "date": "{0} + 31", "text[]": "coalesce({0}, '{{}}') || '{{x}}'",
    "jsonb": "jsonb_build_object('x', {0})", "json": "json_build_object('x', {0})",
}  # fmt: skip


def at(db: Connection, table: str, chosen: random.Random, count: int) -> list[str]:
    """Places of rows, chosen."""
    query = sql.SQL("SELECT tableoid::regclass || ' ' || ctid FROM batch_audit.{} ORDER BY 1")
    found = [place for (place,) in db.execute(query.format(sql.Identifier(table)))]
    return chosen.sample(found, min(count, len(found)))


def where(place: str) -> sql.Composed:
    child, ctid = place.split(" ")
    return sql.SQL("tableoid = {}::regclass AND ctid = {}::tid").format(child, ctid)


class Tamperer:
    """Changes something at random, of what is covered.

    Attributes:
        db: A superuser's connection.
        chosen: Chooses.
        tables: The tables, and their columns that are covered, with types.
    """

    def __init__(self, db: Connection, chosen: random.Random) -> None:
        self.db, self.chosen = db, chosen
        ((told,),) = db.execute(_HISTORY).fetchall()
        listed = dict.fromkeys((*_TRAIL, "row_event"))
        listed |= {"import_history": told} | dict(db.execute(_DETAILS).fetchall())
        self.tables = {
            table: [
                (name, kind)
                for name, kind in db.execute(_COLUMNS, (table,))
                if columns is None or name in columns
            ]
            for table, columns in listed.items()
        }
        # An entry's time is not its record's, and in no root.
        self.tables["row_event"] = [c for c in self.tables["row_event"] if c[0] != "created_at"]

    def change(self) -> str:
        """Change something, and say what."""
        table = self.chosen.choice([*self.tables, *_TRAIL])
        deed: Any = self.chosen.choice(
            [self.edit, self.edit, self.delete, self.swap, self.add, self.truncate]
        )
        deed(table)
        if self.chosen.random() < 0.2:
            # And all hashes anew, so that the chain holds by itself again.
            self.db.execute(CHAIN_ANEW)
        return f"{deed.__name__} of {table}"

    def edit(self, table: str) -> None:
        """Another value of a column."""
        (place,) = at(self.db, table, self.chosen, 1)
        column, kind = self.chosen.choice(self.tables[table])
        name = sql.Identifier(column)
        value = sql.SQL(_OTHER[kind]).format(name)
        self.run("UPDATE batch_audit.{} SET {} = {} WHERE {}", table, name, value, where(place))

    def delete(self, table: str) -> None:
        """Some rows go."""
        for place in at(self.db, table, self.chosen, self.chosen.choice([1, 1, 3])):
            self.run("DELETE FROM batch_audit.{} WHERE {}", table, where(place))

    def swap(self, table: str) -> None:
        """Two rows swap what they have in a column: nothing is there that was not."""
        one, other = at(self.db, table, self.chosen, 2)
        column, _ = self.chosen.choice(self.tables[table])
        values = "SELECT {} FROM batch_audit.{} WHERE {}"
        name, mine = sql.Identifier(column), sql.Identifier(table)
        ((first,),), ((second,),) = (
            self.db.execute(
                sql.SQL(values).format(sql.SQL("{}::text").format(name), mine, where(place))
            ).fetchall()
            for place in (one, other)
        )
        kind = dict(self.tables[table])[column]
        for place, value in ((one, second), (other, first)):
            literal = sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(kind))
            self.run(
                "UPDATE batch_audit.{} SET {} = {} WHERE {}", table, name, literal, where(place)
            )

    def add(self, table: str) -> None:
        """A row like one that is there, but for one column."""
        (place,) = at(self.db, table, self.chosen, 1)
        column, kind = self.chosen.choice(self.tables[table])
        value = sql.SQL(_OTHER[kind]).format(sql.Identifier(column))
        names = [name for name, _ in self.db.execute(_COLUMNS, (table,))]
        self.run(
            "INSERT INTO batch_audit.{0} ({1}) OVERRIDING SYSTEM VALUE"
            " SELECT {2} FROM batch_audit.{0} WHERE {3}",
            table,
            sql.SQL(", ").join(map(sql.Identifier, names)),
            sql.SQL(", ").join(value if n == column else sql.Identifier(n) for n in names),
            where(place),
        )

    def truncate(self, table: str) -> None:
        """All of them go."""
        self.run("DELETE FROM batch_audit.{}", table)

    def run(self, statement: str, table: str, *parts: sql.Composable) -> None:
        """Execute a statement."""
        self.db.execute(sql.SQL(statement).format(sql.Identifier(table), *parts))


def content(db: Connection, tables: dict[str, list[tuple[str, str]]]) -> str:
    """What is covered, in short."""
    parts = [
        sql.SQL(
            "(SELECT md5(coalesce(string_agg(ROW({})::text, '|' ORDER BY ROW({})::text), ''))"
            " FROM batch_audit.{})"
        ).format(
            *[sql.SQL(", ").join(sql.Identifier(n) for n, _ in columns)] * 2, sql.Identifier(name)
        )
        for name, columns in tables.items()
    ]
    ((found,),) = db.execute(sql.SQL("SELECT {}").format(sql.SQL(" || ").join(parts))).fetchall()
    return str(found)


def ledger(make: MakeSite) -> Site:
    """A ledger with some of everything: also a month that is sealed, and one that was removed."""
    here = make(DDL, thresholds={"rejected_rows": "60%"}, audit="row", validate_digests=True)
    told = here.feed.model_dump()
    (table,) = told["tables"]
    critical = [{"name": "large", "expression": "v > 90"}]
    table |= {"principal": "by", "write": "upsert", "critical_when": critical}
    here.feed = Feed.model_validate({**told, "audit_event": "row"})
    here.load({"a.csv": "id,v,by\n1,10,ada\n2,95,bob\nx,1,eve\n"}, "one")
    backdate(here.connection, 100)
    here.load({"a.csv": "id,v,by\n2,20,bob\n3,30,cyd\n"}, "two")
    kept = SiteRetention.model_validate(_RULE)
    planner = Planner({here.feed.feed: here.feed}, (), ahead(0), kept)
    done = Retention(here.database, here.settings, planner, Course(new_id(), "a tester")).run()
    require_done(done)
    assert [month.state for month in done.months] == ["SEALED", "REMOVED"]
    taken = here.load({"a.csv": "id,v,by\n4,99,dan\ny,1,eve\n"}, "three")
    here.load({"a.csv": "id,v,by\n4,40,dan\n"}, "three")
    take_back(here, here.newest("three").batch_id)
    assert here.newest("two").status == "SUCCESS", taken
    return here


@short_or_long("times", 60, 1000)
def test_whatever_a_superuser_changes_of_what_is_covered_is_found(
    times: int, site18: MakeSite, tmp_path: Path
) -> None:
    here = ledger(site18)
    db, folder = here.connection, tmp_path / "kept"
    anchors.drop(db, folder)
    bags = SegmentBags(here.settings, folder, everywhere=True)
    tamperer = Tamperer(db, random.Random(times))  # noqa: S311  # the same ones each time
    empty = [
        name
        for name in tamperer.tables
        if db.execute(
            sql.SQL("SELECT FROM batch_audit.{} LIMIT 1").format(sql.Identifier(name))
        ).rowcount
        == 0
    ]
    assert empty == []
    with db.transaction():
        assert examine(db, folder, bags).findings == ()
    before = content(db, tamperer.tables)
    missed: list[str] = []
    done = 0
    while done < times:
        for what, is_found in attempts(tamperer, before, folder, bags):
            done += 1
            if not is_found:
                missed.append(what)
    assert missed == []


def attempts(
    tamperer: Tamperer, before: str, folder: Path, bags: SegmentBags
) -> Iterator[tuple[str, bool]]:
    """One attempt; none where PostgreSQL refused it, or it came to nothing."""
    db = tamperer.db
    with db.transaction(force_rollback=True):
        try:
            with db.transaction():
                db.execute("SET LOCAL session_replication_role = replica")
                unprotect(db)
                db.execute("ALTER TABLE batch_audit.audit_segment DISABLE TRIGGER ALL")
                what = tamperer.change()
                protect(db)
                db.execute("""
                    ALTER TABLE batch_audit.audit_segment ENABLE ALWAYS TRIGGER append_only;
                    ALTER TABLE batch_audit.audit_segment ENABLE ALWAYS TRIGGER remove_once
                """)
        except (psycopg.IntegrityError, psycopg.DataError, ValueError):
            # A constraint; or fewer rows than that takes.
            return
        if content(db, tamperer.tables) != before:
            try:
                yield what, examine(db, folder, bags).status == "FAILED"
            except Exception as error:  # noqa: BLE001  # whatever it is, it is not quiet
                yield (
                    f"{what}: {error!r}",
                    isinstance(error, psycopg.Error | ValueError | AuditError),
                )


def test_who_says_that_a_run_is_at_work_hides_nothing(site18: MakeSite, tmp_path: Path) -> None:
    here = ledger(site18)
    batch = here.newest("two")
    here.sql(
        "UPDATE batch_audit.batch_stage SET status = 'IN_PROGRESS' WHERE batch_id = %s",
        batch.batch_id,
    )
    here.sql("UPDATE batch_audit.import_history SET written_records = 9, status = 'IN_PROGRESS'")
    here.sql("UPDATE batch_audit.import_file SET size = 9")
    with here.connection.transaction():
        found = examine(here.connection, tmp_path / "kept")
    assert (found.at_work, {f.kind for f in found.findings}) == (0, {"history", "root"})


def test_a_bag_that_was_tampered_with_is_found(site18: MakeSite, tmp_path: Path) -> None:
    here = ledger(site18)
    ((place,),) = here.sql(
        "SELECT place FROM batch_audit.audit_segment WHERE removed_at IS NOT NULL"
    )
    chosen = random.Random(7)  # noqa: S311  # the same ones each time
    bag, copy = Path(place), tmp_path / "copy"
    shutil.copytree(bag, copy)
    files = sorted(file for file in bag.rglob("*") if file.is_file())
    missed = []
    for file in files:
        whole = file.read_bytes()
        bit = chosen.randrange(len(whole) * 8)
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        for content_now in (bytes(flipped), whole[:-1], None):
            file.unlink() if content_now is None else file.write_bytes(content_now)
            with here.connection.transaction():
                bags = SegmentBags(here.settings, tmp_path / "kept", everywhere=True)
                found = examine(here.connection, tmp_path / "kept", bags)
            # Of what nobody reads the bag's own manifest tells; the entries are proven by the seal.
            if not found.problems and file.name not in {
                "segment.json",
                "audit_anchor.json",
                "bagit.txt",
            }:
                missed.append(f"{file.name}, {'gone' if content_now is None else 'changed'}")
            file.write_bytes(whole)
    assert missed == []
