"""Months of the audit trail: sealed when over, removed whole under a rule, provable ever after."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from batch_pipelines.engine.archiving.archives import TRAIL
from batch_pipelines.engine.audit import anchors
from batch_pipelines.engine.audit.rebuild import rebuild
from batch_pipelines.engine.audit.verify import verify_audit
from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.feed_parts.retention import SiteRetention
from batch_pipelines.engine.retention import holds
from batch_pipelines.engine.retention.course import Result, Retention, require_done
from batch_pipelines.engine.retention.holds import Scope
from batch_pipelines.engine.retention.plan import Planner
from batch_pipelines.engine.retention.record import Course
from batch_pipelines.engine.retention.site import read_site
from batch_pipelines.engine.retention.trail_plan import due_months
from tests.support_engine import new_id
from tests.support_trail import backdate, protect, unprotect, verified

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = "CREATE TABLE t (id int PRIMARY KEY, name text, import_batch_id uuid)"
RULE = {"keep": "90 days", "legal_source": "data policy 4.2"}
ONE, OTHER = {"a.csv": "id,name\n1,a\n2,b\n"}, {"a.csv": "id,name\n3,c\n"}
OLD = 200


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder for anchors alone: those of before the clock was turned back stand elsewhere."""
    return tmp_path / "kept"


def planner(site: Site, **rule: object) -> Planner:
    kept = SiteRetention.model_validate({"audit_trail": {**RULE, **rule}})
    return Planner({site.feed.feed: site.feed}, (), dt.datetime.now(dt.UTC), kept)


def retain(site: Site, **rule: object) -> Result:
    course = Course(new_id(), "a tester")
    return Retention(site.database, site.settings, planner(site, **rule), course).run()


def aged(make: MakeSite, **more: Any) -> Site:
    """A site with a batch in a month that is over, and one of today."""
    here = make(DDL, **more)
    here.load(ONE, "old")
    backdate(here.connection, OLD)
    here.load(OTHER, "new")
    return here


def entries(db: Connection) -> int:
    ((number,),) = db.execute("SELECT count(*) FROM batch_audit.audit_event").fetchall()
    return int(number)


def month_of(site: Site) -> str:
    ((month,),) = site.sql("SELECT to_char(min(month), 'YYYY-MM') FROM batch_audit.audit_segment")
    return str(month)


def bag_of(site: Site) -> Path:
    ((place,),) = site.sql(
        "SELECT place FROM batch_audit.audit_segment WHERE removed_at IS NOT NULL"
    )
    return Path(place)


def test_a_month_that_is_over_is_sealed_and_removed_as_a_whole_under_a_rule(
    site: MakeSite, kept: Path
) -> None:
    here = aged(site)
    before = entries(here.connection)
    anchors.drop(here.connection, kept)
    # Whatever is done: without a rule it is kept for ever, and sealed.
    done = Retention(
        here.database,
        here.settings,
        Planner({}, (), dt.datetime.now(dt.UTC)),
        Course(new_id(), "t"),
    ).run()
    assert [month.state for month in done.months] == ["SEALED"]
    sealed = verified(here.connection, here.settings, kept)
    assert (sealed.findings, sealed.segments, sealed.not_read) == ((), 1, 0)
    (due,) = due_months(here.connection, planner(here))
    assert (due.goes, due.name, due.entries) == (True, month_of(here), 13)
    done = retain(here)
    require_done(done)
    assert [(m.month, m.state, m.entries) for m in done.months] == [(due.name, "REMOVED", 13)]
    assert entries(here.connection) > before - 13
    # The seal holds the chain together, the last word on each batch is said again, roots with it.
    found = verified(here.connection, here.settings, kept)
    assert (found.findings, found.first, found.not_read, found.from_bags) == ((), 14, 13, 0)
    assert rebuild(here.connection, write=False, by="a tester").differing == ()
    # From its bag every single entry, below a folder or where it stands.
    archive = Path(here.settings.archive_address) / TRAIL
    for folder, everywhere in ((archive, False), (kept, True)):
        read = verified(here.connection, here.settings, folder, everywhere=everywhere)
        assert (read.findings, read.not_read, read.from_bags) == ((), 0, 13)
    assert verified(here.connection, here.settings, archive).anchored >= 13
    assert due_months(here.connection, planner(here)) == ()
    here.sql("UPDATE batch_audit.import_file SET records = 7")
    assert {f.kind for f in verify_audit(here.connection, kept).findings} == {"root"}


def test_what_was_said_again_is_said_again_when_its_month_goes_too(
    site18: MakeSite, kept: Path
) -> None:
    here = aged(site18)
    require_done(retain(here))
    # That run's own entries, its seals and the words it carried on, become old in turn.
    backdate_rest(here)
    here.load({"a.csv": "id,name\n9,z\n"}, "newest")
    done = retain(here)
    require_done(done)
    assert [m.state for m in done.months].count("REMOVED") >= 1
    found = verified(here.connection, here.settings, kept)
    assert (found.findings, found.segments) == ((), 2)
    assert rebuild(here.connection, write=False, by="a tester").differing == ()
    read = verified(here.connection, here.settings, kept, everywhere=True)
    assert (read.findings, read.not_read) == ((), 0)


def backdate_rest(site: Site) -> None:
    """Make what is left of the trail older, with the seal of what is gone as its beginning."""
    db = site.connection
    with db.transaction():
        days = {"days": 130}
        db.execute("SELECT batch_audit.ensure_audit_month(now() - interval '130 days')")
        unprotect(db)
        db.execute(
            "UPDATE batch_audit.audit_event SET created_at = created_at - %(days)s * interval '1 day'",
            days,
        )
        db.execute("""
            DO $$
            DECLARE
                previous record;
                entry record;
            BEGIN
                SELECT last_seq AS seq, last_hash AS hash, sealed_at AS created_at INTO previous
                FROM batch_audit.audit_segment;
                FOR entry IN SELECT * FROM batch_audit.audit_event ORDER BY seq LOOP
                    UPDATE batch_audit.audit_event e SET prev_hash = previous.hash,
                        hash = batch_audit.event_hash(e.seq, previous.hash, e.created_at,
                            e.principal_id, e.action, e.status, e.resource_type, e.resource_id,
                            e.correlation_id, e.session_context, e.compliance_context, e.details)
                    WHERE e.seq = entry.seq RETURNING e.seq, e.hash, e.created_at INTO previous;
                END LOOP;
                UPDATE batch_audit.audit_head SET seq = previous.seq, hash = previous.hash,
                    created_at = previous.created_at;
            END $$
        """)
        protect(db)


def test_a_legal_hold_wins(site18: MakeSite) -> None:
    here = aged(site18)
    ((batch_id,),) = here.sql(
        "SELECT batch_id::text FROM batch_audit.import_history WHERE partition_key = 'old'"
    )
    start = dt.datetime.now(dt.UTC) - dt.timedelta(days=OLD)
    hold: holds.Hold | None = None
    for scope in (
        Scope(batch_id=batch_id), Scope(feed=here.feed.feed),
        Scope(since=start - dt.timedelta(days=1), until=start + dt.timedelta(days=1)), Scope(),
    ):  # fmt: skip
        newer = holds.set_hold(here.connection, scope, reason="case 17", by="a tester")
        if hold is not None:
            holds.lift_hold(here.connection, hold.hold_id, reason="settled", by="a tester")
        hold = newer
        assert {m.state for m in retain(here).months} <= {"SEALED"}
        (due,) = due_months(here.connection, planner(here))
        assert due.kept_by == (str(hold),)
        # And whoever asks the ledger's function past the plan is refused.
        ((root, month),) = here.sql("SELECT root, month FROM batch_audit.audit_segment")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="legal hold"):
            remove(here, root, month)
    holds.lift_hold(here.connection, newer.hold_id, reason="settled", by="a tester")
    # One over another time keeps nothing.
    long_ago = Scope(until=start - dt.timedelta(days=900))
    holds.set_hold(here.connection, long_ago, reason="x", by="a tester")
    assert [m.state for m in retain(here).months] == ["REMOVED"]


def remove(site: Site, root: bytes, month: dt.date, due: str = "2026-11-01") -> None:
    site.sql(
        "SELECT batch_audit.remove_segment(%s, %s, 'p', 's', 'r', 'l', %s, 'me', 'c')",
        month, root, f"{due}T00:00Z",
    )  # fmt: skip


def test_a_longer_rule_and_a_regulation_keep_it(site18: MakeSite) -> None:
    here = aged(site18, compliance={"regulation": "HIPAA"})
    assert [m.state for m in retain(here).months] == ["SEALED"]
    (due,) = due_months(here.connection, planner(here))
    assert due.rule == "6 years from the month's end"
    assert due.kept_by[0].startswith("longer rule: 6 years")
    # Sealed today, its period begins today.
    assert due_months(here.connection, planner(here, cut_off="sealed")) == ()


def test_nothing_but_a_sealed_month_that_says_nothing_alone_is_removed(site18: MakeSite) -> None:
    here = aged(site18)
    retain(here, keep="10 years")
    ((root, month),) = here.sql("SELECT root, month FROM batch_audit.audit_segment")
    with pytest.raises(psycopg.errors.DataCorrupted, match="not what was sealed"):
        remove(here, b"another", month)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="not over"):
        remove(here, root, month, "2999-01-01")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="not sealed"):
        remove(here, root, dt.date(1999, 1, 1))
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="carry_on"):
        remove(here, root, month)
    for statement in (
        "DELETE FROM batch_audit.audit_segment", "TRUNCATE batch_audit.audit_segment",
        "UPDATE batch_audit.audit_segment SET root = ''",
    ):  # fmt: skip
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            here.sql(statement)


def test_what_was_tampered_with_is_neither_sealed_nor_removed(site18: MakeSite) -> None:
    here = aged(site18)
    unprotect(here.connection)
    here.sql("UPDATE batch_audit.audit_event SET principal_id = 'nobody' WHERE seq = 5")
    protect(here.connection)
    done = retain(here)
    assert [(m.month, m.state) for m in done.months] == [("seal", "FAILED")]
    assert here.sql("SELECT count(*) FROM batch_audit.audit_segment") == [(0,)]
    subjects = [subject for (subject,) in here.sql("SELECT subject FROM batch_audit.alert")]
    assert "The audit trail could not be sealed" in subjects


TAMPERED = {
    "the row is gone": "DELETE FROM batch_audit.audit_segment",
    "another root": "UPDATE batch_audit.audit_segment SET root = sha256(root)",
    "another end": "UPDATE batch_audit.audit_segment SET last_hash = sha256(last_hash)",
    "another beginning": "UPDATE batch_audit.audit_segment SET first_prev_hash = sha256(root)",
    "another place": "UPDATE batch_audit.audit_segment SET place = '/elsewhere'",
    "never removed": """
        UPDATE batch_audit.audit_segment SET place = NULL, tagmanifest_sha256 = NULL, rule = NULL,
            legal_source = NULL, due_at = NULL, removed_at = NULL, removed_by = NULL
    """,
    "one more": """
        INSERT INTO batch_audit.audit_segment (month, first_seq, last_seq, entries, first_prev_hash,
            last_hash, root, sealed_by)
        SELECT '1999-01-01', 1, 1, 1, root, root, root, 'x' FROM batch_audit.audit_segment
    """,
}


def test_a_segment_that_was_tampered_with_or_is_missing_is_found(
    site18: MakeSite, kept: Path
) -> None:
    here = aged(site18)
    db = here.connection
    require_done(retain(here))
    for name, statement in TAMPERED.items():
        with db.transaction(force_rollback=True):
            db.execute("ALTER TABLE batch_audit.audit_segment DISABLE TRIGGER ALL")
            db.execute(statement.encode())
            db.execute("""
                ALTER TABLE batch_audit.audit_segment ENABLE ALWAYS TRIGGER append_only;
                ALTER TABLE batch_audit.audit_segment ENABLE ALWAYS TRIGGER remove_once
            """)
            found = verify_audit_inside(db, kept)
            assert "segment" in {finding.kind for finding in found}, name
    # The bag: changed, and then gone.
    bag = bag_of(here)
    packed = next((bag / "data" / "records").iterdir())
    packed.write_bytes(packed.read_bytes()[:-1] + b"\0")
    for said in ("damaged", "cannot be read"):
        (finding,) = verified(db, here.settings, kept, everywhere=True).findings
        assert (finding.kind, said in finding.message) == ("segment", True)
        shutil.rmtree(bag, ignore_errors=True)


def verify_audit_inside(db: Connection, folder: Path) -> tuple[Any, ...]:
    from batch_pipelines.engine.audit.verify import examine  # noqa: PLC0415

    return examine(db, folder).findings


@pytest.mark.parametrize(
    "place", ["trail.written", "trail.sealed", "trail.archived", "trail.removed"]
)
def test_what_ends_in_the_middle_is_done_by_the_next_run(
    site18: MakeSite, kept: Path, place: str
) -> None:
    class Died(BaseException):
        pass

    def die(_: object) -> None:
        raise Died

    here = aged(site18)
    with armed(place, die), pytest.raises(Died):
        retain(here)
    found = verified(here.connection, here.settings, kept)
    assert (found.findings, found.entries > 26) == ((), True)
    done = retain(here)
    require_done(done)
    assert [m.state for m in done.months] == ["REMOVED"]
    assert verified(here.connection, here.settings, kept, everywhere=True).findings == ()


def test_the_bag_is_read_by_other_tools(site18: MakeSite, kept: Path) -> None:
    import bagit  # noqa: PLC0415
    import zstandard  # noqa: PLC0415

    here = aged(site18)
    require_done(retain(here))
    bag = bag_of(here)
    bagit.Bag(str(bag)).validate()
    packed = bag / "data" / "records" / "audit_event.jsonl.zst"
    lines = (
        zstandard.ZstdDecompressor().decompressobj().decompress(packed.read_bytes()).splitlines()
    )
    told = [json.loads(line) for line in lines]
    assert [each["seq"] for each in told] == list(range(1, 14))
    assert told[0]["action"] == "batch.ingest.started"
    sealed = json.loads((bag / "data" / "segment.json").read_text())
    assert (sealed["entries"], sealed["last_hash"]) == ("13", told[-1]["hash"])


def test_a_file_of_rules_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    file = tmp_path / "retention.yaml"
    file.write_text('audit_trail: {keep: 6 years, legal_source: "45 CFR 164.316(b)(2)(i)"}\n')
    (rule,) = read_site(file).audit_trail
    assert (rule.keep, rule.cut_off) == ("6 years", "month")
    assert read_site(None).audit_trail == ()
    twice = "audit_trail: []\naudit_trail: []"
    for text in ("audit_trail: {keep: 6 years}", "rows: []", "a: [", twice, "a: &a [*a]"):
        file.write_text(text)
        with pytest.raises(SettingsError, match="BATCH_PIPELINES_RETENTION"):
            read_site(file)
