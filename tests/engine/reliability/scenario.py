"""What a scenario is, and the tables, feeds and deliveries that scenarios share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tests.support_engine import feed_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from batch_pipelines.engine.feeds import Feed
    from tests.support_engine import Site

DDL = """
CREATE TABLE parents (id int PRIMARY KEY, name text NOT NULL, size int, import_batch_id uuid);
CREATE TABLE children (id int PRIMARY KEY, parent int NOT NULL REFERENCES parents,
    amount numeric(10, 2), at timestamptz, import_batch_id uuid);
CREATE INDEX ON parents (import_batch_id);
CREATE INDEX ON children (import_batch_id);
CREATE INDEX ON children (parent);
INSERT INTO parents SELECT n, 'by hand', n FROM generate_series(1, 5) AS n;
"""
_ROWS = 40


def feed(**more: Any) -> Feed:
    """Make the feed: parents are upserted among rows typed in by hand, children are inserted."""
    return feed_of({"public.parents": "p*"}).model_validate(
        {
            "feed": "orders",
            "source": {"path": "landing/{batch}/*"},
            "tables": [
                {"table": "public.parents", "files": "p*", "write": "upsert"},
                {
                    "table": "public.children",
                    "files": "c*",
                    "critical_when": [{"name": "large", "expression": "amount > 70"}],
                },
            ],
            "thresholds": {"rejected_rows": "50%"},
            "audit": "row",
            "audit_event": "row",
            "validate_digests": True,
            **more,
        }
    )


def inserting() -> Feed:
    """Make a feed that inserts parents, too: a correction of what others refer to is a keyed diff."""
    tables = [
        {"table": "public.parents", "files": "p*"},
        {"table": "public.children", "files": "c*"},
    ]
    return feed(tables=tables)


def delivery(revision: int) -> dict[str, str]:
    """Make a delivery of which a few records cannot be loaded: their parent 900 is missing."""
    parents = range(3 + revision, 3 + revision + _ROWS // 2)
    children = [
        f"{n},{900 if n % 10 == 0 else 3 + revision + n % (_ROWS // 2)},{n * (1 + revision)}.25,"
        f"2024-05-01T12:00:{n % 60:02d}Z\n"
        for n in range(1 + revision, 1 + revision + _ROWS)
    ]
    half = len(children) // 2
    head = "id,parent,amount,at\n"
    return {
        "p.csv": "id,name,size\n" + "".join(f"{n},name {n} {revision},{n}\n" for n in parents),
        "c1.csv": head + "".join(children[:half]),
        "c2.csv": head + "".join(children[half:]),
    }


class Told(Protocol):
    """Is told what is being done."""

    stage: str


@dataclass(frozen=True)
class Scenario:
    """A course to be attacked.

    Attributes:
        name: Its name.
        feed: The feed.
        prepare: What has happened before.
        act: The course; run again it ends as if it had been run once. It gets the run's id.
        is_visible: Whether it changes the tables.
        resumes: Whether it is a run of stages, which goes on from the one that failed.
        also: A query whose answer changes together with the tables, or as they would.
        kept: Names what must not be lost, wherever it is. What is there before and afterwards is there
            at any moment between; and nothing is there that is in neither. None where all of it is in
            the tables.
    """

    name: str
    feed: Feed
    prepare: Callable[[Site], None]
    act: Callable[[Site, Told, str], None]
    is_visible: bool = True
    resumes: bool = False
    also: str = ""
    kept: Callable[[Site], frozenset[str]] | None = None
