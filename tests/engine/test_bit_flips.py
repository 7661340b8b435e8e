"""Ten thousand bits flipped in staged files, and as many between parser and COPY: all are found."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from batch_pipelines.engine.digests import row_crc32c
from batch_pipelines.engine.errors import BatchError, DeliveryError, PublishError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ledger.stages import STAGES
from batch_pipelines.engine.wire_types import wire_type

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.postgres.database import Connection
    from tests.engine.conftest import MakeSite

FLIPS = 10_000
FILES = 1_000
DDL = "CREATE TABLE t (i integer, l bigint, f float8, s text, import_batch_id uuid)"
HEAD = "i,l,f,s\n"
HEADER_BYTES = 19  # of COPY's binary format


def line(n: int) -> str:
    return f"{n},{n * 7919},{n / 7},{n:06d}{'abcdefgh'[n % 8]}\n"


def flip(path: Path, at: int, bit: int) -> None:
    """Flip one bit of a file, where it is."""
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def test_every_flip_in_a_staged_file_is_found_by_its_checksum(site18: MakeSite) -> None:
    """Given files of which each has one bit flipped, again and again, each is found each time."""
    here = site18(DDL)
    here.deliver({f"{n:03d}.csv": HEAD + line(n) + line(n + 1) for n in range(FILES)})
    batch = here.run(stages=["ingest"])
    staged = sorted((here.settings.staging / batch.batch_id / "source").iterdir())
    chance = random.Random(1)  # noqa: S311  # the same flips in every run
    for path in staged:
        path.chmod(0o600)
    for _ in range(FLIPS // FILES):
        places = {
            path: (chance.randrange(path.stat().st_size), chance.randrange(8)) for path in staged
        }
        for path, place in places.items():
            flip(path, *place)
        with pytest.raises(DeliveryError):
            here.run(stages=["checksum"])
        for path, place in places.items():
            flip(path, *place)
    found = here.sql(
        "SELECT entity_id, count(*) FROM batch_audit.crc32_audit WHERE status = 'invalid'"
        " AND entity_type = 'file' AND expected_source = 'ingest' GROUP BY 1 ORDER BY 1"
    )
    assert found == [(path.name, FLIPS // FILES) for path in staged]
    assert here.count("SELECT count(*) FROM t") == 0
    # Of whole files none is found to be damaged.
    here.run(stages=STAGES[1:3])
    assert here.count("SELECT count(*) FROM t") == 2 * FILES


class FlippingParser:
    """Flips a bit of one value in each row on its way to COPY; knows the digests of the right rows."""

    def __init__(self) -> None:
        self.right: list[np.ndarray[Any, np.dtype[np.uint32]]] = []
        self._chance = np.random.default_rng(1)

    def __call__(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Pass rows on, with a bit flipped in each."""
        own = [rows[name] for name in ("i", "l", "f", "s")]
        types = [wire_type(oid, -1) for oid in (23, 20, 701, 25)]
        self.right.append(row_crc32c([kind for kind in types if kind], own))
        place = np.arange(rows.num_rows) % len(own)
        flipped = [self._flip(column, place == n) for n, column in enumerate(own)]
        return pa.RecordBatch.from_arrays([*flipped, rows["import_batch_id"]], schema=rows.schema)

    def _flip(self, column: pa.Array, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> pa.Array:
        if column.type == pa.string():
            # One of the lower bits of the last letter: what comes out is a letter or a sign, too.
            letters = [text.encode() for text in column.to_pylist()]
            bits = self._chance.integers(0, 5, len(letters)).tolist()
            texts = [
                (text[:-1] + bytes([text[-1] ^ 1 << bit]) if own else text).decode()
                for text, bit, own in zip(letters, bits, chosen.tolist(), strict=True)
            ]
            return pa.array(texts, pa.string())
        values = column.to_numpy().copy()
        bits_of = values.view(np.uint32 if values.itemsize == 4 else np.uint64)
        which = self._chance.integers(0, 8 * values.itemsize, len(values), dtype=bits_of.dtype)
        bits_of[chosen] ^= np.left_shift(bits_of.dtype.type(1), which[chosen])
        return pa.array(values, column.type)


def test_every_flip_between_parser_and_copy_is_found_before_the_commit(site18: MakeSite) -> None:
    """Given ten thousand rows with a flipped bit each, when digests are taken, all of them differ."""
    here = site18(DDL)
    here.deliver({"f.csv": HEAD + "".join(line(n) for n in range(FLIPS))})
    batch = here.run(stages=STAGES[:2])
    flipping, found = FlippingParser(), []

    def look(connection: Connection) -> Connection:
        rows = connection.execute(
            "SELECT pg_catalog.crc32c(record_send(ROW(i, l, f, s))) FROM t ORDER BY ctid"
        ).fetchall()
        stored = np.array([crc for (crc,) in rows], np.uint32)
        found.append(int((stored != np.concatenate(flipping.right)).sum()))
        return connection

    with (
        armed("bulk_write.parsed", flipping),
        armed("bulk_write.before_check", look),
        pytest.raises(PublishError, match="the digests of the stored rows differ"),
    ):
        here.run(stages=["bulk_write"])
    assert found == [FLIPS]
    assert here.count("SELECT count(*) FROM t") == 0
    assert here.newest().batch_id == batch.batch_id
    assert here.run(stages=["bulk_write"]).status == "PUBLISHED"


class Passed(Exception):  # noqa: N818  # no error: it says how far a try came
    """A publish transaction has passed its proof."""


def test_a_flip_anywhere_in_what_is_sent_is_never_committed(site18: MakeSite) -> None:
    """Given one bit flipped in the stream of COPY, be it of a length, a value or the stamp."""
    here = site18(DDL)
    here.deliver({"f.csv": HEAD + "".join(line(n) for n in range(20))})
    here.run(stages=STAGES[:2])
    chance = random.Random(2)  # noqa: S311  # the same flips in every run
    right = [(n, n * 7919, n / 7, f"{n:06d}{'abcdefgh'[n % 8]}") for n in range(20)]
    refused = 0

    def passed(connection: Connection) -> Connection:
        # A second try without damage may come so far; what it stored is looked at.
        rows = connection.execute("SELECT i, l, f, s FROM t ORDER BY i").fetchall()
        assert rows == right
        raise Passed

    for _ in range(40):
        damaged = False

        def damage(encoded: bytes) -> bytes:
            nonlocal damaged
            if damaged or len(encoded) <= HEADER_BYTES:
                return encoded
            damaged = True
            content = bytearray(encoded)
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            return bytes(content)

        with (
            armed("bulk_write.encoded", damage),
            armed("bulk_write.before_fence", passed),
            pytest.raises((BatchError, Passed)) as ended,
        ):
            here.run(stages=["bulk_write"])
        refused += ended.type is not Passed
        assert here.count("SELECT count(*) FROM t") == 0
    assert refused > 20
