"""A laboratory one of whose patients asks to be erased, and a look into every byte that is left."""

from __future__ import annotations

import datetime as dt
import gzip
from typing import TYPE_CHECKING, Any

import bagit
import pyarrow.parquet as pq
import zstandard

from batch_pipelines.engine.archiving.verify import ArchiveVerifier
from batch_pipelines.engine.audit.verify import verify_audit
from batch_pipelines.engine.erasure.course import Eraser, Request
from tests.engine.verification.support_verify import verify
from tests.support_engine import new_id

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.conftest import MakeSite
    from tests.support_engine import Content, Site

DDL = """
CREATE TABLE results (
    accession text PRIMARY KEY, patient text NOT NULL, value numeric(6, 2) CHECK (value >= 0),
    taken date, import_batch_id uuid);
CREATE INDEX ON results (import_batch_id);
"""
PATIENT = "P-004711"
OWN = (PATIENT, "A-9001", "A-9002", "A-9003", "A-9010")
"""What tells of the patient: their number, and the keys of their results."""
HEAD = "accession,patient,value,taken\n"


def results(first: int, number: int, value: str = "5.25") -> str:
    """Results of other patients."""
    return "".join(
        f"A-{n:04},P-{n % 7:06},{value},2026-01-{1 + n % 28:02}\n"
        for n in range(first, first + number)
    )


FIRST = (
    HEAD + results(0, 20) + f"A-9001,{PATIENT},95.50,2026-01-05\n" + results(20, 10)
    + f"A-9002,{PATIENT},-1.00,2026-01-05\nA-9003,{PATIENT},x,2026-01-05\n"
    + "A-9004,P-000001,y,2026-01-05\nA-9005,P-000002,-2.00,2026-01-05\n" + results(30, 5)
)  # fmt: skip
CORRECTING = (
    HEAD + results(100, 5) + f"A-9001,{PATIENT},91.00,2026-01-06\n" + results(10, 5, "6.00")
)


def open_laboratory(site: MakeSite, **more: object) -> Site:
    """Make the laboratory: nothing is delivered yet."""
    there = site(DDL, {"public.results": "*.csv"}, thresholds={"rejected_rows": "50%"}, **more)
    table = {
        "table": "public.results", "files": "*", "write": "upsert",
        "critical_when": [{"name": "high", "expression": "value > 90"}],
    }  # fmt: skip
    there.feed = there.feed.model_validate(
        {**there.feed.model_dump(), "tables": [table], "audit": "row"}
    )
    return there


def fill(there: Site) -> None:
    """Have the patient in tables, quarantine, images, superseded rows and bags."""
    there.load({"r.csv": FIRST}, "one")
    there.load({"r.csv": CORRECTING}, "two")
    own = f"A-9010,{PATIENT},{{}},2026-01-07\n"
    there.load({"r.csv": HEAD + results(200, 5) + own.format(1)}, "three")
    there.load({"r.csv": HEAD + results(200, 6) + own.format(2)}, "three")
    for key in ("one", "two", "three"):
        # What a sender has in landing is the sender's.
        there.deliver({}, key)


def eraser(site: Site) -> Eraser:
    """Erase at once."""
    feeds = {site.feed.feed: site.feed}
    return Eraser(site.database, site.settings, feeds, new_id(), sleep=lambda _: None)


def request(**more: Any) -> Request:
    """Ask for the patient to be erased."""
    wanted = {
        "feed": "orders", "table": "public.results", "key": {"patient": PATIENT},
        "reason": "article 17", "requested_by": "the officer", **more,
    }  # fmt: skip
    return Request(**wanted)


def left_of(site: Site, *words: str) -> list[str]:
    """Look for words in every row of every table, and every byte of every file below home."""
    found = []
    tables = site.sql(
        "SELECT c.oid::regclass::text FROM pg_class AS c WHERE c.relkind = 'r'"
        " AND c.relnamespace::regnamespace::text NOT IN ('pg_catalog', 'information_schema')"
    )
    for (table,) in tables:
        for word in words:
            either = (f"%{word}%", f"%{word.encode().hex()}%")
            query = f"SELECT count(*) FROM {table} AS t WHERE t::text LIKE %s OR t::text LIKE %s"
            if site.count(query, *either):
                found.append(f"{table}: {word}")
    for path in site.settings.home.rglob("*"):
        if path.is_file():
            content = content_of(path)
            found += [f"{path}: {word}" for word in words if word.encode() in content]
    return found


def content_of(path: Path) -> bytes:
    """Read a file, what it is packed in undone."""
    content = path.read_bytes()
    if path.name.endswith(".parquet"):
        return repr(pq.read_table(path).to_pylist()).encode() + content
    if path.name.endswith(".zst"):
        content = zstandard.ZstdDecompressor().decompressobj().decompress(content)
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def require_proven(site: Site) -> None:
    """Prove all batches, all bags and the audit trail, by our own means and by BagIt's tool."""
    for batch in site.history():
        for table in verify(site, batch).tables:
            assert table.status == "SUCCESS", (batch.name, batch.status, table)
    verifier = ArchiveVerifier(
        site.settings, {site.feed.feed: site.feed}, lambda: dt.datetime.now(dt.UTC)
    )
    for found in verifier.of_many(site.connection, None, None):
        assert found.status == "VALID", found
    for tag in site.settings.home.rglob("bagit.txt"):
        bagit.Bag(str(tag.parent)).validate(processes=1)
    assert verify_audit(site.connection, site.settings.anchors_folder).findings == ()
    assert verify_audit(site.connection, site.settings.home / "archive").findings == ()


def patients(site: Site, *keys: str) -> int:
    """Count the patient's rows."""
    return site.count(
        "SELECT count(*) FROM results WHERE patient = %s OR accession = ANY(%s)",
        PATIENT, [*keys, *OWN[1:]],
    )  # fmt: skip


def deliver_and_load(site: Site, name: str, content: Content, key: str = "one") -> None:
    """Load one file, and clear landing."""
    site.load({name: content}, key)
    site.deliver({}, key)
