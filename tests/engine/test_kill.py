"""A run killed anywhere leaves nothing half-visible, and the same import run again completes at once."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from batch_pipelines.engine.ledger.batches import IN_FORCE
from batch_pipelines.engine.postgres.lease import acquire
from tests.support_engine import KEY, Site, feed_of, new_id
from tests.support_process import At, importing
from tests.support_soak import short_or_long

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite, OpenSite

DDL = """
CREATE TABLE parents (id int PRIMARY KEY, name text NOT NULL, import_batch_id uuid);
CREATE TABLE children (id int PRIMARY KEY, parent int NOT NULL REFERENCES parents,
    amount numeric(10, 2), at timestamptz, import_batch_id uuid);
CREATE INDEX ON parents (import_batch_id);
CREATE INDEX ON children (import_batch_id);
CREATE INDEX ON children (parent);
"""
TABLES = {"public.parents": "p*", "public.children": "c*"}
PARENTS, CHILDREN, FILES = 1_000, 9_000, 5

# What is visible and what the ledger says of it, as one statement: one snapshot.
SEEN = """
SELECT (SELECT jsonb_object_agg(s, n) FROM
           (SELECT coalesce(import_batch_id::text, '') s, count(*) n FROM parents GROUP BY 1) AS p),
       (SELECT jsonb_object_agg(s, n) FROM
           (SELECT coalesce(import_batch_id::text, '') s, count(*) n FROM children GROUP BY 1) AS c),
       (SELECT array_agg(batch_id::text) FROM batch_audit.import_history WHERE status = ANY(%s))
"""
CONTENT = """
SELECT md5(string_agg((to_jsonb(t) - 'import_batch_id')::text, ',' ORDER BY id)) FROM {} AS t
"""
PUBLISHING = [
    At("bulk_write.parsed", FILES - 1),
    At("bulk_write.before_check"),
    At("bulk_write.before_fence"),
    At("bulk_write.before_commit"),
    At("bulk_write.after_commit"),
]
PLACES = [
    At("ingest.copied", 1),
    At("ingest.copied", FILES),
    At("checksum.read", 3),
    *PUBLISHING,
    At("archive.written"),
    At("archive.sealed"),
]


def delivery(revision: int) -> dict[str, str]:
    """Make 10,000 records; between revisions some go, some come and some change."""
    first = 1 + revision * 10
    parents = range(first, first + PARENTS)
    lines = [
        f"{n},{first + n % PARENTS},{(n + revision * (n % 7)) / 8:.2f},2024-05-01T12:00:{n % 60:02d}Z\n"
        for n in range(first, first + CHILDREN)
    ]
    size = CHILDREN // FILES
    return {
        "p.csv": "id,name\n" + "".join(f"{n},name {n * (1 + revision)}\n" for n in parents),
        **{
            f"c{n}.csv": "id,parent,amount,at\n" + "".join(lines[n * size : (n + 1) * size])
            for n in range(FILES)
        },
    }


DELIVERIES = [delivery(0), delivery(1)]


def content(site: Site) -> list[Any]:
    return [site.sql(CONTENT.format(table))[0][0] for table in ("parents", "children")]


@pytest.fixture(scope="module")
def undisturbed(open_site: OpenSite) -> list[list[Any]]:
    """Content of the tables after each delivery was imported alone, in peace."""
    found = []
    for files in DELIVERIES:
        with open_site(DDL, feed_of(TABLES)) as site:
            assert site.load(files).status == "SUCCESS"
            found.append(content(site))
    assert found[0] != found[1]
    return found


def seen(site: Site) -> str | None:
    """Check that the tables and the ledger agree, and tell which batch is visible."""
    ((parents, children, in_force),) = site.sql(SEEN, list(IN_FORCE))
    if in_force is None:
        assert (parents, children) == (None, None)
        return None
    (batch,) = in_force
    assert (parents, children) == ({batch: PARENTS}, {batch: CHILDREN})
    return str(batch)


def run_again(site: Site, revision: int, undisturbed: list[list[Any]]) -> None:
    """Run the same import at once, and check that nothing of the dead run is left."""
    run = new_id()
    ended = site.run(run_id=run)
    visible = seen(site)
    assert visible is not None
    assert content(site) == undisturbed[revision]
    # A run that died after publish is finished by the new one, if archiving was left.
    assert visible in {run, ended.batch_id, ended.duplicate_of}
    assert [b.status for b in site.history() if b.batch_id == visible] == ["SUCCESS"]
    assert [b.batch_id for b in site.history() if b.status == "IN_PROGRESS"] == []
    assert [path.name for path in site.settings.staging.iterdir()] == []
    assert list((site.settings.home / "archive").rglob(".*")) == []
    assert site.count("SELECT count(*) FROM batch_audit.batch_lease WHERE released_at IS NULL") == 0
    with acquire(site.database, site.feed.feed, KEY, new_id(), seconds=60) as lease:
        assert lease.before is not None
        assert (lease.before.run_id, lease.before.died) == (run, False)


@pytest.mark.parametrize("at", PLACES, ids=lambda at: f"{at.place}-{at.times}")
def test_a_first_import_killed_at_a_place(
    site18: MakeSite, undisturbed: list[list[Any]], at: At
) -> None:
    site = site18(DDL, TABLES)
    site.deliver(DELIVERIES[0])
    run = new_id()
    with importing(site, run, at=at) as child:
        assert child.outcome() is None
        published = at.place in {"bulk_write.after_commit", "archive.written", "archive.sealed"}
        assert seen(site) == (run if published else None)
        run_again(site, 0, undisturbed)


def test_a_correction_killed_at_each_place_of_its_publish(
    site18: MakeSite, undisturbed: list[list[Any]]
) -> None:
    site = site18(DDL, TABLES)
    before: str | None = site.load(DELIVERIES[0]).batch_id
    for number, at in enumerate(PUBLISHING, 1):
        revision = number % 2
        site.deliver(DELIVERIES[revision])
        run = new_id()
        with importing(site, run, at=at) as child:
            assert child.outcome() is None
            published = at.place == "bulk_write.after_commit"
            assert seen(site) == (run if published else before)
            run_again(site, revision, undisturbed)
        before = seen(site)


@short_or_long("times", 5, 100)
def test_a_correction_killed_at_any_moment(
    site18: MakeSite, undisturbed: list[list[Any]], times: int
) -> None:
    site = site18(DDL, TABLES)
    site.deliver(DELIVERIES[0])
    began = time.monotonic()
    with importing(site, new_id()) as child:
        assert child.outcome() == ("done", "SUCCESS")
    whole = time.monotonic() - began
    dice = random.Random(20240501)  # noqa: S311  # moments, not secrets
    killed = 0
    for number in range(1, times + 1):
        revision = number % 2
        before = seen(site)
        site.deliver(DELIVERIES[revision])
        run = new_id()
        with importing(site, run) as child:
            time.sleep(dice.uniform(0, whole))
            child.process.kill()
            killed += child.outcome() is None
            assert seen(site) in {before, run}
            run_again(site, revision, undisturbed)
    assert killed
