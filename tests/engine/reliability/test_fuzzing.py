"""Files with random damage are loaded right, set aside, or refused by a sentence; never lost.

What is loaded and what is set aside add up to what an independent reader counts, or the load would have
failed; here it is checked besides that no row has come that the damage cannot explain.
"""

from __future__ import annotations

import bz2
import gzip
import io
import random
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.orc as po
import pyarrow.parquet as pq
import pytest
import zstandard

from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.ledger import proofs
from tests.support_engine import feed_of
from tests.support_soak import short_or_long

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.engine.conftest import MakeSite

DDL = """
CREATE TABLE t (id integer PRIMARY KEY, a text, b numeric(12, 3), c timestamptz, import_batch_id uuid);
CREATE INDEX ON t (import_batch_id);
"""
ROWS = 300
TEXT = "id,a,b,c\n" + "".join(
    f'{n},"text, ""{n}""\nand more",{n}.125,2024-01-{1 + n % 28:02d}T12:00:00Z\n'
    for n in range(ROWS)
)
JSON = "".join(
    f'{{"id": {n}, "a": "text \\u00e9 {n}", "b": {n}.125, "c": "2024-01-01T12:00:00Z"}}\n'
    for n in range(ROWS)
)


def _table() -> pa.Table:
    return pa.table(
        {
            "id": pa.array(range(ROWS), pa.int32()),
            "a": [None if n % 7 == 0 else f"text {n}" for n in range(ROWS)],
        }
    )


def _parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(_table(), sink, row_group_size=100, write_page_checksum=True)
    return sink.getvalue()


def _orc() -> bytes:
    sink = io.BytesIO()
    po.write_table(_table(), sink)
    return sink.getvalue()


def _arrow(writer: Callable[..., pa.RecordBatchStreamWriter]) -> bytes:
    sink = io.BytesIO()
    with writer(sink, _table().schema) as writing:
        writing.write_table(_table(), 100)
    return sink.getvalue()


FILES: dict[str, bytes] = {
    "f.csv": TEXT.encode(),
    "f.tsv": TEXT.replace(",", "\t").encode(),
    "f.jsonl": JSON.encode(),
    "f.csv.gz": gzip.compress(TEXT.encode()),
    "f.csv.bz2": bz2.compress(TEXT.encode()),
    "f.jsonl.zst": zstandard.compress(JSON.encode()),
    "f.parquet": _parquet(),
    "f.orc": _orc(),
    "f.arrow": _arrow(pa.ipc.new_file),
    "f.arrows": _arrow(pa.ipc.new_stream),
}


def damaged(content: bytes, dice: random.Random) -> bytes:
    """Flip bits, cut, repeat, drop or move a part, or overwrite one."""
    found = bytearray(content)
    for _ in range(dice.choice([1, 1, 1, 2, 5])):
        size = len(found)
        place, length = dice.randrange(size), dice.choice([1, 3, 17, 200, 1500])
        part = bytes(found[place : place + length])
        match dice.randrange(7):
            case 0:
                found[place] ^= 1 << dice.randrange(8)
            case 1:
                del found[max(place, 1) :]
            case 2:
                found[place:place] = part
            case 3 if size > length + 10:
                del found[place : place + length]
            case 4:
                found[place : place + length] = dice.randbytes(len(part))
            case 5:
                other = dice.randrange(size)
                found[other:other] = part
            case _:
                found[place : place + length] = bytes(len(part))
    return bytes(found) or b"\0"


@pytest.mark.parametrize("name", FILES)
@short_or_long("times", 3, 1000)
def test_a_damaged_file_is_never_lost_and_never_a_crash(
    site18: MakeSite, name: str, times: int
) -> None:
    here = site18(DDL)
    dice = random.Random(f"20261122 {name}")  # noqa: S311  # damage, not secrets
    outcomes = {"loaded": 0, "set aside": 0, "refused": 0}
    for number in range(times):
        here.feed = feed_of({"public.t": "*"}, thresholds={})
        content = damaged(FILES[name], dice)
        here.deliver({name: content})
        try:
            batch = here.run(force=True)
        except BatchError as refused:
            said = str(refused)
            assert said, (number, "no message")
            assert "Unexpected" not in said, (number, said)
            outcomes["refused"] += 1
            # What one reader can read and the other cannot is visible, and never called validated.
            unvalidated = "The rows are published but not validated" in said
            assert here.history()[-1].status == ("PUBLISHED" if unvalidated else "FAILED")
            continue
        (balance,) = proofs.tables(here.connection, batch.batch_id)
        assert balance.stored + balance.rejected == balance.source_records, number
        assert here.stamps() == ({batch.batch_id: balance.stored} if balance.stored else {}), number
        outcomes["set aside" if balance.rejected else "loaded"] += 1
    assert sum(outcomes.values()) == times
