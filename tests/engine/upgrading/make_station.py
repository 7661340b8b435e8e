"""Makes a station: a database in which the program's code of some revision has been at work.

It is run by hand, once, with a checkout of that revision, an empty database of PostgreSQL 15 (the
oldest, whose dump all newer ones read), and the folder in which its bags will say that they stand:

    cd CHECKOUT
    PYTHONPATH=. python .../make_station.py URL /srv/batch-pipelines-REVISION .../REVISION.tar.xz

What the code of that revision cannot do is left out, so it runs with all of them since the first.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.postgres.database import Database
from batch_pipelines.engine.postgres.migrate import revisions, upgrade
from batch_pipelines.engine.settings import Settings
from tests.support_engine import Site, do_stage, feed_of, new_id

DDL = """
CREATE TABLE parents (id int PRIMARY KEY, name text NOT NULL, import_batch_id uuid);
CREATE TABLE children (id int PRIMARY KEY, parent int NOT NULL REFERENCES parents,
    amount numeric(10, 2), at timestamptz, import_batch_id uuid);
CREATE TABLE stock (sku text PRIMARY KEY, size int, place text DEFAULT 'here', import_batch_id uuid);
CREATE TABLE waiting (id int PRIMARY KEY, name text, import_batch_id uuid);
CREATE TABLE legacy (id int PRIMARY KEY, name text);
CREATE TABLE jobs (job text PRIMARY KEY, feed text, state text, started timestamptz);
CREATE INDEX ON parents (import_batch_id);
CREATE INDEX ON children (import_batch_id);
CREATE INDEX ON stock (import_batch_id);
CREATE INDEX ON waiting (import_batch_id);
INSERT INTO stock (sku, size) VALUES ('a', 1), ('b', 2);
INSERT INTO parents (id, name) VALUES (1, 'by hand');
"""
REVISION = revisions()[-1]
_DUMP = "pg_dump", "--inserts", "--rows-per-insert=100", "--load-via-partition-root"
# What psql alone understands, and the owner, who is whoever opens the station.
_LEFT_OUT = re.compile(r"\\|.* OWNER TO postgres;$")
# pg_dump forgets it where it goes by way of a partitioned table.
_NUMBERED = re.compile(
    r"^(INSERT INTO batch_audit\.(?:crc32_audit|audit_event)(?: \(.*?\))?) VALUES"
)
ORDERS = {"public.parents": "p*", "public.children": "c*"}


def orders(number: int, name: str = "n") -> dict[str, str]:
    """A delivery; no two numbers have a key in common."""
    ids = range(number * 10, number * 10 + 5)
    children = [f"{i},{i},{i}.50,2024-05-01T12:00:0{i % 10}Z\n" for i in ids]
    return {
        "p.csv": "id,name\n" + "".join(f"{i},{name}{i}\n" for i in ids),
        "c.csv": "id,parent,amount,at\n" + "".join(children),
    }


def feed(**more: Any) -> Any:
    """A feed that this revision knows: what it does not know yet is left out."""
    tables = more.pop("tables")
    if REVISION < "0002":
        return feed_of(tables, **more)
    return feed_of(tables, **{"thresholds": {"rejected_rows": "50%"}, **more})


def died(site: Site, key: str, *stages: str) -> None:
    """Run stages and die."""
    pid = os.fork()
    if pid == 0:
        with site.work(key, new_id()) as (connection, work):
            for stage in stages:
                do_stage(stage, connection, work)  # type: ignore[arg-type]
            os._exit(0)
    os.waitpid(pid, 0)


def fails(site: Site, files: dict[str, str], key: str) -> None:
    """Load what cannot be loaded."""
    with suppress(BatchError):
        site.load(files, key)


def main(url: str, folder: Path, packed: Path) -> None:
    """Make it."""
    database = Database(url)
    upgrade(database)
    (folder / "feeds").mkdir(parents=True)
    settings = Settings(home=folder / "home", feeds=folder / "feeds")
    os.chdir(folder)
    with database.connect("test") as connection:
        connection.execute(DDL.encode())
        site = Site(database, settings, feed(tables=ORDERS), connection)
        courses(site)
        if REVISION >= "0003":
            upserts(site)
        if REVISION >= "0006":
            taken_back(site)
        if REVISION >= "0007":
            adopted(site)
        if REVISION >= "0014":
            waits(site)
        if REVISION >= "0021":
            held(site)
        if REVISION >= "0029":
            archived(site)
    dump = subprocess.run([*_DUMP, url], check=True, capture_output=True, text=True).stdout
    lines = [line for line in dump.splitlines() if not _LEFT_OUT.match(line)]
    lines = [_NUMBERED.sub(r"\1 OVERRIDING SYSTEM VALUE VALUES", line) for line in lines]
    (folder / "station.sql").write_text("\n".join(lines) + "\n")
    with tarfile.open(packed, "w:xz") as archive:
        for name in ("station.sql", "home", "landing", "feeds"):
            archive.add(folder / name, name, filter=_nobodys)


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def courses(site: Site) -> None:
    """Batches of every state that there has always been."""
    site.load(orders(1), "loaded")
    site.run("loaded")
    site.load(orders(2), "corrected")
    site.load(orders(2, "m"), "corrected")
    fails(site, {**orders(3), "c.csv": "id,parent,amount,at\n" + "1,999,x,y\n" * 9}, "failed")
    fails(site, {**orders(4), "c.csv.crc32c": "00000000"}, "damaged")
    site.deliver(orders(5), "died")
    died(site, "died", "ingest", "checksum")
    site.deliver(orders(6), "published")
    died(site, "published", "ingest", "checksum", "bulk_write")
    site.deliver(orders(7), "invalid")
    site.run("invalid", stages=["ingest", "checksum", "bulk_write"])
    site.sql("DELETE FROM children WHERE id = 70")
    with suppress(BatchError):
        site.run("invalid", stages=["validate"])
    if REVISION >= "0002":
        bad = orders(8)
        bad["c.csv"] += "89,900,1.00,2024-05-01T12:00:00Z\nx,y\n"
        site.load(bad, "partial")


def upserts(site: Site) -> None:
    """Two batches that write over each other and what was typed in by hand."""
    table = {"table": "public.stock", "files": "*", "write": "upsert"}
    site.feed = site.feed.model_validate(
        {**site.feed.model_dump(), "feed": "stock", "tables": [table]}
    )
    site.load({"s.csv": "sku,size\na,10\nc,30\n"}, "one")
    site.load({"s.csv": "sku,size,place\na,11,there\nd,40,there\n"}, "two")


def taken_back(site: Site) -> None:
    """A batch that was rolled back, and one whose rollback refers to what it superseded."""
    from tests.support_rollback import take_back  # noqa: PLC0415

    site.load({"s.csv": "sku,size\nb,20\ne,50\n"}, "back")
    take_back(site, site.history()[-1].batch_id)


def adopted(site: Site) -> None:
    """A table that was tracked."""
    from batch_pipelines.engine.adoption.track import track  # noqa: PLC0415

    site.sql("INSERT INTO legacy VALUES (1, 'old')")
    track(site.database, "public.legacy", by="a test")


def waits(site: Site) -> None:
    """Rows that wait for validation."""
    site.feed = feed(tables={"public.waiting": "*"}, feed="waits", publish="after_validation")
    site.load({"w.csv": "id,name\n1,one\n"}, "loaded")
    site.deliver({"w.csv": "id,name\n2,two\n3,three\n"}, "waits")
    site.run("waits", stages=["ingest", "checksum", "bulk_write"])


def held(site: Site) -> None:
    """A legal hold."""
    from batch_pipelines.engine.retention.holds import Scope, set_hold  # noqa: PLC0415

    set_hold(site.connection, Scope(feed="stock"), reason="a case", by="a test")


def archived(site: Site) -> None:
    """A batch whose rows are in the archive alone."""
    from tests.support_retention import POLICY, retain, with_rules  # noqa: PLC0415

    rows = feed(tables=ORDERS, feed="old")
    site.feed = with_rules(rows, rows=POLICY)
    site.load(orders(9), "archived")
    site.sql(
        "UPDATE batch_audit.import_history SET started_at = started_at - interval '200 days',"
        " published_at = published_at - interval '200 days',"
        " completed_at = completed_at - interval '200 days' WHERE feed = 'old'"
    )
    retain(site, 0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve(), Path(sys.argv[3]).resolve())
