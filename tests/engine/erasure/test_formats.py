"""Whatever a delivery is written in, the person's records leave it, and all others stay."""

from __future__ import annotations

import bz2
import gzip
import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
import zstandard

from batch_pipelines.engine.archiving.bag import open_bag
from batch_pipelines.engine.erasure.course import RefusedErasureError
from batch_pipelines.engine.ledger import archives
from tests.engine.erasure.support import eraser, left_of, request, require_proven
from tests.engine.test_reprocessing import reprocess
from tests.support_engine import KEY

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.erasures import Place
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Content

DDL = """
CREATE TABLE visits (id int PRIMARY KEY, person bigint, note text, at timestamptz,
    import_batch_id uuid);
"""
PERSON = 47110815
WORD = "a note of theirs"
OWN = {3, 4, 9}


def rows(first: int) -> list[dict[str, object]]:
    """Eleven visits, three of them the person's."""
    return [
        {"id": first + n, "person": PERSON if n in OWN else n, "note": WORD if n in OWN else f"n {n}",
         "at": f"2026-01-01T12:00:{n:02}Z"}
        for n in range(1, 12)
    ]  # fmt: skip


def text(first: int) -> bytes:
    """The same as CSV: the number is not always written alike, and each record has two lines."""
    records = [
        f'{r["id"]},{"0" if r["id"] == first + 4 else ""}{r["person"]},"{r["note"]}\n",{r["at"]}\n'
        for r in rows(first)
    ]
    return "".join(["id,person,note,at\n", *records]).encode()


def table(first: int) -> pa.Table:
    """The same as Arrow has it."""
    found = pa.Table.from_pylist(rows(first))
    return found.set_column(3, "at", found["at"].cast(pa.timestamp("us", tz="UTC")))


DELIVERY: dict[str, Content] = {
    "a.csv": text(0),
    "b.csv.gz": gzip.compress(text(100)),
    "c.csv.zst": zstandard.compress(text(200)),
    "d.csv.bz2": bz2.compress(text(300)),
    "f.parquet": table(500),
}


LINES = "".join(json.dumps(row) + "\n" for row in rows(400))


def test_records_leave_files_of_each_format(site18: MakeSite) -> None:
    there = site18(DDL, {"public.visits": "*"})
    batch, lines = there.load(DELIVERY), there.load({"e.jsonl": LINES}, "lines")
    for key in (KEY, "lines"):
        there.deliver({}, key)
    (old,) = archives.of_batch(there.connection, batch.batch_id)
    done = eraser(there).erase(request(table="public.visits", key={"person": str(PERSON)}))
    assert [(p.kind, p.erased) for p in sorted(done.places, key=_going)] == [
        ("rows", 15), ("rows", 3), ("bag", 15), ("bag", 3),
    ]  # fmt: skip
    assert left_of(there, str(PERSON), WORD) == []
    (new,) = archives.of_batch(there.connection, batch.batch_id)
    assert (new.payload_files, new.tagmanifest_sha256) != (0, old.tagmanifest_sha256)
    with open_bag(there.connection, there.settings, batch.batch_id) as bag:
        left = bag.path("source/a.csv").read_bytes()
    records = text(0).split(b"Z\n")
    assert left == b"Z\n".join(r for n, r in enumerate(records, 1) if n not in OWN)
    again = reprocess(there, batch)
    assert (again.status, again.source_records, again.rejected_records) == ("SUCCESS", 40, 0)
    assert reprocess(there, lines, "lines").source_records == 8
    require_proven(there)


def _going(place: Place) -> tuple[bool, int]:
    return place.kind == "bag", -(place.erased or 0)


def test_what_cannot_be_cut_goes_as_a_whole_or_not_at_all(site18: MakeSite) -> None:
    there = site18(DDL, {"public.visits": "*"})
    batch = there.load({"v.orc": table(0)})
    there.deliver({})
    own = request(table="public.visits", key={"person": str(PERSON)})
    with pytest.raises(RefusedErasureError, match=r"cannot be cut out of v.orc \(ORC is not"):
        eraser(there).erase(own)
    assert there.count("SELECT count(*) FROM visits") == 11
    own = request(table="public.visits", key={"person": str(PERSON)}, drop_sources=True)
    done = eraser(there).erase(own)
    assert [(p.kind, p.erased, [*p.dropped]) for p in done.places] == [
        ("rows", 3, []), ("bag", 3, ["v.orc"]),
    ]  # fmt: skip
    assert left_of(there, str(PERSON), WORD) == []
    require_proven(there)
    with open_bag(there.connection, there.settings, batch.batch_id) as bag:
        assert not bag.has("source/v.orc")
