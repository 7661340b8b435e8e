"""Parquet, Arrow IPC and ORC are read in one way: in order, in bounded pieces, whole or not at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batch_pipelines.engine.errors import BatchError, DeliveryError
from batch_pipelines.engine.formats import Format
from batch_pipelines.engine.intake import FORMATS
from batch_pipelines.engine.reading import arrow_reader, pieces
from batch_pipelines.engine.reading.columnar_again import names_again, read_again
from batch_pipelines.engine.reading.footers import columnar_records
from batch_pipelines.engine.reading.readers import read_chunks, read_raw
from batch_pipelines.engine.rejects import BAD_ENCODING, OUT_OF_RANGE
from tests.engine.reading.test_convert import BAD_UTF8
from tests.support_columnar import COLUMNAR, write_columnar
from tests.support_columns import column_of, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batch_pipelines.engine.reading.chunks import Chunk

TABLE = table_of(column_of("integer", "number"), column_of("text", "name"))
ARROW = ("arrow", "arrows", "feather")


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "BATCH_ROWS", 7)


def table(rows: int = 100, **more: pa.Array) -> pa.Table:
    numbers = range(1, rows + 1)
    names = pa.array([f"name {number}" for number in numbers], pa.string())
    return pa.table({"number": pa.array(numbers, pa.int64()), "name": names, **more})


def chunks_of(path: Path) -> Iterator[Chunk]:
    return read_chunks(path, FORMATS[path.suffix], TABLE)


def rows_of(chunks: list[Chunk]) -> list[tuple[object, ...]]:
    return [
        row
        for chunk in chunks
        for row in zip(*(array.to_pylist() for array in chunk.arrays), strict=True)
    ]


def records(path: Path) -> int:
    return columnar_records(path, FORMATS[path.suffix])


@pytest.mark.parametrize("suffix", COLUMNAR)
@pytest.mark.parametrize("large", [False, True])
def test_rows_come_in_order_in_pieces(
    tmp_path: Path, suffix: str, large: bool, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given record batches of any size, no piece is larger than it may be, and none is lost."""
    if large:
        monkeypatch.setattr(arrow_reader, "LARGE_BYTES", 0)
    path = tmp_path / "staged" / f"a.{suffix}"
    path.parent.mkdir()
    for content in (table(), table().select(["name", "number"]), table(0), table(1)):
        write_columnar(content, path, rows=31)
        chunks = list(chunks_of(path))
        assert rows_of(chunks) == [tuple(row.values()) for row in content.to_pylist()]
        assert all(0 < chunk.rows <= 7 for chunk in chunks)
        assert [c.first_record for c in chunks] == [
            1 + sum(c.rows for c in chunks[:n]) for n in range(len(chunks))
        ]
        assert records(path) == content.num_rows
    # What was put down for a while is gone.
    assert [each.name for each in tmp_path.iterdir()] == ["staged"]


@pytest.mark.parametrize("suffix", COLUMNAR)
def test_a_wrong_value_is_set_aside_under_its_own_number(
    tmp_path: Path, suffix: str, small_pieces: None
) -> None:
    path = tmp_path / f"a.{suffix}"
    content = table()
    numbers = [2**40 if number == 52 else number for number in range(1, 101)]
    content = content.set_column(0, "number", pa.array(numbers))
    write_columnar(content, path, rows=31)
    chunks = list(chunks_of(path))
    assert [n for n, _ in rows_of(chunks)] == [n for n in range(1, 101) if n != 52]
    (reject,) = (each for chunk in chunks for each in chunk.rejects)
    assert (reject.record, reject.line, reject.offset) == (52, None, None)
    assert reject.breaches[0].sqlstate == OUT_OF_RANGE
    assert json.loads(reject.raw) == {"number": 2**40, "name": "name 52"}
    (raw,) = read_raw(path, FORMATS[path.suffix], [52])
    assert raw == (None, None, reject.raw)


@pytest.mark.parametrize("suffix", COLUMNAR)
def test_what_is_not_utf8_is_set_aside_and_passed_by_the_second_reader(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    names = pa.concat_arrays([pa.array(["x"]), BAD_UTF8.slice(1), pa.array(["y"])])
    write_columnar(pa.table({"number": [1, 2, 3], "name": names}), path)
    chunks = list(chunks_of(path))
    assert rows_of(chunks) == [(1, "x"), (3, "y")]
    (reject,) = (each for chunk in chunks for each in chunk.rejects)
    assert reject.breaches[0].sqlstate == BAD_ENCODING
    assert reject.raw == b'{"number": 2, "name": "\xff\xfe"}'
    if suffix == "orc":
        found = read_again(path, "orc", [0, 1]).read_all().to_pylist()
        assert [row["c1"] for row in found] == ["x", None, "y"]


@pytest.mark.parametrize("suffix", ["parquet", *ARROW])
@pytest.mark.parametrize("large", [False, True])
def test_dictionaries_are_read(
    tmp_path: Path, suffix: str, large: bool, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        monkeypatch.setattr(arrow_reader, "LARGE_BYTES", 0)
    path = tmp_path / "staged" / f"a.{suffix}"
    path.parent.mkdir()
    names = pa.array([None if n % 5 == 0 else f"name {n % 3}" for n in range(100)])
    content = table().set_column(1, "name", names.dictionary_encode())
    write_columnar(content, path, rows=31)
    assert rows_of(list(chunks_of(path))) == list(
        zip(range(1, 101), names.to_pylist(), strict=True)
    )
    if suffix != "parquet":
        again = read_again(path, "arrow", [1]).read_all()
        assert again["c0" if "c0" in again.column_names else "c1"].to_pylist() == names.to_pylist()
        assert again["number"].to_pylist() == [*range(100)]


@pytest.mark.parametrize("suffix", ["arrow", "arrows", "orc"])
def test_the_second_reader_reads_some_columns_and_numbers_the_rows(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    content = table(20, other=pa.array([n / 2 for n in range(20)]))
    write_columnar(content, path, rows=6)
    file_format = FORMATS[path.suffix]
    assert names_again(path, file_format) == ["number", "name", "other"]
    found = read_again(path, file_format, [0, 2]).read_all()
    assert found.column_names == ["c0", "c2", "number"]
    assert found["c0"].to_pylist() == [*range(1, 21)]
    assert found["c2"].to_pylist() == [n / 2 for n in range(20)]
    assert found["number"].to_pylist() == [*range(20)]


# Files that are not whole.


@pytest.mark.parametrize("suffix", COLUMNAR)
def test_a_file_that_is_cut_off_is_refused_wherever_it_ends(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write_columnar(table(20), path, rows=6)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(DeliveryError, match=rf"^a\.{suffix}: .*Deliver it again\."):
            records(path)


@pytest.mark.parametrize("suffix", ARROW)
def test_what_goes_on_behind_its_end_is_refused(tmp_path: Path, suffix: str) -> None:
    """Given two streams in one file, rows of the second would be lost without a word."""
    path = tmp_path / f"a.{suffix}"
    write_columnar(table(20), path)
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(DeliveryError, match="goes on behind its end mark"):
        records(path)


@pytest.mark.parametrize("suffix", COLUMNAR)
@pytest.mark.parametrize("content", [b"", b"number,name\n1,a\n", b"FEA1" + bytes(80)])
def test_what_is_something_else_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    with pytest.raises(DeliveryError, match=r"not a whole (Arrow|ORC|Parquet) file"):
        records(path)
    with pytest.raises(DeliveryError, match=r"not a whole (Arrow|ORC|Parquet) file|Feather of"):
        list(chunks_of(path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
# Breaks the name of a column.
@example(suffix="parquet", dictionary=True, damage=[(0.546875, 128)])
@given(
    suffix=st.sampled_from(COLUMNAR),
    dictionary=st.booleans(),
    damage=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_file_is_refused_or_read_and_never_more(
    tmp_path: Path, suffix: str, dictionary: bool, damage: list[tuple[float, int]]
) -> None:
    """Given wrong bytes anywhere, also in offsets and lengths, an error of ours or rows come of it."""
    path = tmp_path / f"a.{suffix}"
    content = table(40)
    if dictionary and suffix != "orc":
        content = content.set_column(
            1, "name", content["name"].combine_chunks().dictionary_encode()
        )
    write_columnar(content, path, rows=25)
    damaged = bytearray(path.read_bytes())
    for place, value in damage:
        damaged[int(place * len(damaged))] = value
    path.write_bytes(damaged)
    for read in (records, lambda p: list(chunks_of(p))):
        try:
            read(path)
        except BatchError as error:
            assert f"a.{suffix}" in str(error)  # noqa: PT017


def test_a_time_that_arrow_cannot_read_from_orc_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.orc"
    end = pa.array([253_402_214_400], pa.timestamp("s"))
    write_columnar(pa.table({"number": end, "name": ["x"]}), path)
    with pytest.raises(DeliveryError, match=r"a\.orc: holds a timestamp before .* or after 2262"):
        list(chunks_of(path))


def test_two_columns_of_one_name_are_refused_in_orc(tmp_path: Path) -> None:
    path = tmp_path / "a.orc"
    arrays = [pa.array([1]), pa.array(["x"]), pa.array(["y"])]
    write_columnar(pa.table(arrays, names=["number", "x", "x"]), path)
    with pytest.raises(DeliveryError, match=r"a\.orc: two columns have the same name"):
        list(read_chunks(path, "orc", TABLE, Format(ignore_columns=("x",))))


def test_wide_rows_are_cut_into_more_pieces() -> None:
    with patch.object(pieces, "_PIECE_BYTES", 1000):
        wide = pa.record_batch({"a": ["x" * 100] * 50})
        assert max(piece.num_rows for piece in pieces.cut(wide)) <= 10
        # Each of them would be unpacked.
        coded = pa.record_batch({"a": pa.array(["x" * 100] * 50).dictionary_encode()})
        assert max(piece.num_rows for piece in pieces.cut(coded)) <= 10
        assert sum(piece.num_rows for piece in pieces.cut(coded)) == 50
