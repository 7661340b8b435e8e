"""In any dialect both readers find the same records, in whatever pieces, and all of them are read."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.formats import Format
from batch_pipelines.engine.reading import blocks, count
from batch_pipelines.engine.reading.count import CsvScan
from batch_pipelines.engine.reading.readers import read_chunks, read_raw
from tests.support_columns import column_of, table_of

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = table_of(column_of("text", "a"), column_of("text", "b"))
SHARED_FOLDER = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FORMS = st.builds(
    Format,
    delimiter=st.sampled_from([",", ";", "\t", "^"]),
    quote=st.sampled_from(['"', "'", None]),
    escape=st.sampled_from(["\\", None]),
    preamble=st.integers(0, 2),
    header=st.sampled_from([True, ("a", "b")]),
)
PIECES = st.sampled_from(
    [
        b"a",
        b";",
        b",",
        b"'",
        b'"',
        b"\\",
        b"\\\\",
        b"\r",
        b"\n",
        b"\r\n",
        b" ",
        b"\xff",
        b"\xc3\xa9",
    ]
)


def written(form: Format, content: bytes) -> bytes:
    delimiter, *_ = form.signs("csv")
    start = b"'\"\n" * form.preamble + (b"a,b\n" if form.header is True else b"")
    return (start + content).replace(b",", delimiter)


@SHARED_FOLDER
@given(
    form=FORMS,
    pieces=st.lists(PIECES, max_size=30),
    size=st.integers(1, 60),
    longest=st.sampled_from([4, 9, 1000]),
)
def test_all_find_the_same_records(
    tmp_path: Path, form: Format, pieces: list[bytes], size: int, longest: int
) -> None:
    content = written(form, b"".join(pieces))
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with patch.object(count, "LONGEST_QUOTED", longest):
        scan = CsvScan(form)
        for piece in [content[:3], *(content[p : p + size] for p in range(3, len(content), size))]:
            scan.feed(piece)
        total = scan.records("a.csv")
    with patch.object(blocks, "BLOCK_BYTES", size), patch.object(blocks, "LONGEST", longest):
        try:
            chunks = list(read_chunks(path, "csv", TEXTS, form))
        except DeliveryError as error:
            assert "a record is longer than" in str(error)  # noqa: PT017
            return
        numbers = sorted(
            number
            for chunk in chunks
            for number in [*chunk.records.tolist(), *(each.record for each in chunk.rejects)]
        )
        raw = list(read_raw(path, "csv", numbers, form))
    assert numbers == [*range(1, total + 1)]
    for line, offset, record in raw:
        assert offset is not None
        assert content[offset:].startswith(record)
        assert line == len(content[:offset].splitlines()) + 1
    rejects = [reject for chunk in chunks for reject in chunk.rejects]
    assert all(raw[each.record - 1] == (each.line, each.offset, each.raw) for each in rejects)


@pytest.mark.parametrize(
    ("form", "content", "expected"),
    [
        (Format(escape="\\"), b'a,b\n"x\\"y",x\\,y\n', [('x"y', "x,y")]),
        (Format(escape="\\"), b"a,b\nx\\\ny,\\\\\n", [("x\ny", "\\")]),
        (Format(escape="\\"), b"a,b\n1,x\n2,y\\", [("1", "x")]),
        (Format(escape="\\"), b'a,b\r\n1,x\\\r\n2,"y\\\r\n"\r\n', [("2", "y\r\n")]),
        (Format(escape="\\"), b'a,b\n"x""y",1\n2,3\n', [("2", "3")]),
        (Format(quote=None), b'a,b\n"x,y"\n', [('"x', 'y"')]),
        (Format(quote="'", delimiter="|"), b"'a'|b\n'x''|'|\"\n", [("x'|", '"')]),
        (Format(header=("b", "a")), b"1,2\n", [("1", "2")]),
        (Format(preamble=2), b"1\r\n\na,b\n1,2\n", [("1", "2")]),
    ],
)
def test_known_files(
    tmp_path: Path, form: Format, content: bytes, expected: list[tuple[str, ...]]
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    found = [
        row
        for chunk in read_chunks(path, "csv", TEXTS, form)
        for row in zip(*(array.to_pylist() for array in chunk.arrays), strict=True)
    ]
    assert found == expected
