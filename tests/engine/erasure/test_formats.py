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
from tests.engine.erasure.support import eraser, left_of, request, require_proven
from tests.engine.test_reprocessing import reprocess
from tests.support_rollback import take_back

if TYPE_CHECKING:
    from tests.engine.conftest import MakeSite
    from tests.support_engine import Content

DDL = """
CREATE TABLE visits (id int PRIMARY KEY, person bigint, note text, at timestamptz,
    import_batch_id uuid);
"""
PERSON = 47110815
WORD = "a note of theirs"
ROWS = [
    {"id": n, "person": PERSON if n in {3, 4, 9} else n, "note": WORD if n in {3, 4, 9} else f"n {n}",
     "at": f"2026-01-01T12:00:{n:02}Z"}
    for n in range(1, 12)
]  # fmt: skip
TEXT = "id,person,note,at\n" + "".join(
    # Written in another way each time, and over two lines.
    f'{r["id"]},{"0" if r["id"] == 4 else ""}{r["person"]},"{r["note"]}\n",{r["at"]}\n'
    for r in ROWS
)
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
TABLE = pa.Table.from_pylist(ROWS).set_column(
    3, "at", pa.array([r["at"] for r in ROWS]).cast(pa.timestamp("us", tz="UTC"))
)
DELIVERIES: dict[str, Content] = {
    "v.csv": TEXT,
    "v.csv.gz": gzip.compress(TEXT.encode()),
    "v.csv.zst": zstandard.compress(TEXT.encode()),
    "v.csv.bz2": bz2.compress(TEXT.encode()),
    "v.jsonl": LINES,
    "v.parquet": TABLE,
}


def test_records_leave_files_of_each_format(site18: MakeSite) -> None:
    there = site18(DDL, {"public.visits": "*"})
    for name, content in DELIVERIES.items():
        batch = there.load({name: content}, name)
        there.deliver({}, name)
        with open_bag(there.connection, there.settings, batch.batch_id) as bag:
            assert bag.has(f"source/{name}")
        done = eraser(there).erase(request(table="public.visits", key={"person": str(PERSON)}))
        assert [(p.kind, p.erased) for p in done.places] == [("rows", 3), ("bag", 3)], name
        assert left_of(there, str(PERSON), WORD) == [], name
        again = reprocess(there, batch, name)
        assert (again.status, again.source_records) == ("SUCCESS", 8), name
        require_proven(there)
        take_back(there, again.batch_id)
        take_back(there, batch.batch_id)


def test_what_cannot_be_cut_goes_as_a_whole_or_not_at_all(site18: MakeSite) -> None:
    there = site18(DDL, {"public.visits": "*"})
    batch = there.load({"v.orc": TABLE})
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
