"""No cell of an odd CSV file arrives wrong without a word: a record is right, or set aside.

What is right is said by the rule of records in `oracle`, and by Python's csv module where a file is well
formed. And the second reader finds the same in what is left, so that no odd file is called wrong.
"""

from __future__ import annotations

import csv
import hashlib
import io
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_pipelines.engine.formats import Format
from batch_pipelines.engine.ledger.files import ImportFile
from batch_pipelines.engine.ledger.rejects import LeftOut
from batch_pipelines.engine.reading import blocks
from batch_pipelines.engine.reading.plain import readable
from batch_pipelines.engine.reading.readers import read_chunks
from batch_pipelines.engine.reading.second_reader import SecondReader
from batch_pipelines.engine.writing.source import table_source
from tests.engine.reading import oracle
from tests.support_columns import column_of, table_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from batch_pipelines.engine.catalog import TableInfo

TEXTS = table_of(*(column_of("text", name) for name in "abc"))
ONE = table_of(column_of("text", "a"))
EXAMPLES = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ODD = [
    b"", b"a", b" ", b'""', b'"q,"', b'"x\r\ny"', b'"\r"', b'"a""b"', b'a"b', b'"un', b'"a" ', b' "a"',
    b"x" * 300, b"\0", b"\xff", "é\u2028\x85".encode(), b"\xef\xbb\xbf", b"NULL", b'"NULL"', b"\\", b"'",
    b"# no comment", b"\x1a", b"\t",
]  # fmt: skip
ENDS = [[b"\n"], [b"\r\n"], [b"\r"], [b"\n", b"\r\n"], [b"\n", b"\r", b"\r\n", b"\n\n", b",\n"]]
LETTERS = st.text("a\",\n\r \t;'\\#é中\u2028\x85\x1a", max_size=9)
Rows = dict[int, tuple[str | None, ...] | None]


@st.composite
def odd(draw: st.DrawFn, width: int = 3) -> bytes:
    """A file with a right header, and whatever programs and people make of the rest."""
    ends = st.sampled_from(draw(st.sampled_from(ENDS)))
    ragged = st.sampled_from([width] * 12 + [width - 1, width + 1])
    content = b",".join([b"a", b"b", b"c"][:width]) + draw(ends)[-2:].lstrip(b",")
    for _ in range(draw(st.integers(0, 12))):
        fields = [draw(st.sampled_from(ODD)) for _ in range(draw(ragged))]
        content += b",".join(fields) + draw(ends)
    if draw(st.booleans()):
        content = content.rstrip(b"\r\n")
    return (b"\xef\xbb\xbf" if draw(st.booleans()) else b"") + content


def read(path: Path, table: TableInfo, form: Format) -> tuple[Rows, list[tuple[int, int, int]]]:
    """Read a file; give each record, None where it is set aside, and the places of those."""
    found: Rows = {}
    out = []
    for chunk in read_chunks(path, "csv", table, form):
        values = zip(*(array.to_pylist() for array in chunk.arrays), strict=True)
        found |= dict(zip(chunk.records.tolist(), values, strict=True))
        for reject in chunk.rejects:
            found[reject.record] = None
            assert reject.offset is not None
            out.append((reject.record, reject.offset, len(reject.raw)))
    return dict(sorted(found.items())), out


def right(fields: tuple[bytes, ...] | None, width: int) -> tuple[str | None, ...] | None:
    """Say what a record is as text, None where it is not to be loaded."""
    if fields is None or len(fields) != width:
        return None
    try:
        values = [None if v is None else v.decode() for v in map(oracle.value, fields)]
    except UnicodeDecodeError:
        return None
    return None if any("\0" in value for value in values if value) else tuple(values)


@EXAMPLES
@given(
    content=odd() | oracle.CONTENTS.map(b"a,b,c\n".__add__), size=st.sampled_from([7, 60, 10**6])
)
def test_each_record_is_right_or_set_aside(tmp_path: Path, content: bytes, size: int) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with patch.object(blocks, "BLOCK_BYTES", size):
        found, _ = read(path, TEXTS, Format())
    records = oracle.records(content.removeprefix(b"\xef\xbb\xbf"))[1:]
    assert found == {n: right(record.fields, 3) for n, record in enumerate(records, 1)}


@EXAMPLES
@given(
    rows=st.lists(
        st.tuples(*[st.text("a\",\n\r \t;'\\#é中\u2028\x85\x1a", max_size=9)] * 3), max_size=9
    ),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    always=st.booleans(),
)
def test_what_is_well_formed_is_what_python_reads(
    tmp_path: Path, rows: list[tuple[str, ...]], end: str, encoding: str, always: bool
) -> None:
    written = io.StringIO(newline="")
    csv.writer(
        written, lineterminator=end, quoting=csv.QUOTE_ALL if always else csv.QUOTE_MINIMAL
    ).writerows([("a", "b", "c"), *rows])
    folder = tmp_path / str(len(list(tmp_path.iterdir()))) / "source"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_bytes(written.getvalue().encode(encoding))
    form = Format(empty="text")
    file = ImportFile("a.csv", "public.t", 0, "csv", None, 0, "", None, None)
    found, _ = read(readable(folder, file, form), TEXTS, form)
    # A CR that the writer leaves without quotes is a line end to this reader, too.
    expected = [row for row in csv.reader(io.StringIO(written.getvalue(), newline="")) if row]
    assert list(found.values()) == [
        tuple(r) if len(r) == len("abc") else None for r in expected[1:]
    ]


FORMS = [
    Format(), Format(null_words=("NULL",)), Format(null_words=("NULL",), empty={"a": "text"}),
    Format(empty="text"), Format(quote=None), Format(quote=None, escape="\\"),
    Format(escape="\\", null_words=("\\N", "NULL")),
]  # fmt: skip


@settings(EXAMPLES, max_examples=60)
@given(
    form=st.sampled_from(FORMS),
    content=st.tuples(st.just(ONE), odd(1)) | st.tuples(st.just(TEXTS), odd(3)),
    escaped=st.sampled_from([b"a", b"\\,", b"\\\\", b"\\N", b"\\\n", b"\\n"]),
)
def test_the_second_reader_finds_the_same(
    tmp_path: Path, form: Format, content: tuple[TableInfo, bytes], escaped: bytes
) -> None:
    table, text = content
    head, mark, body = text.partition(b"\r" if b"\n" not in text.split(b"\r")[0] else b"\n")
    folder = tmp_path / "source"
    folder.mkdir(exist_ok=True)
    (folder / "a.csv").write_bytes(
        head + mark + (body.replace(b"a", escaped) if form.escape else body)
    )
    found, out = read(folder / "a.csv", table, form)
    file = ImportFile("a.csv", "public.t", 0, "csv", None, 0, "", None, None)
    source = table_source(table, [file], folder, form)
    places = np.array(out, np.int64).reshape(-1, 3).T
    with SecondReader(source, {"a.csv": LeftOut(*places)} if out else {}) as reader:
        assert reader.records() == sum(row is not None for row in found.values())
        seen = {name: (s.values, s.total, s.bounds) for name, s in reader.aggregates().items()}
    rows = [row for row in found.values() if row is not None]
    assert seen == aggregates(table, rows)


def aggregates(
    table: TableInfo, rows: list[tuple[str | None, ...]]
) -> Mapping[str, tuple[int, str | None, str | None]]:
    wanted: dict[str, tuple[int, str | None, str | None]] = {}
    for place, column in enumerate(table.columns):
        values = [value.encode() for row in rows if (value := row[place]) is not None]
        if values:
            bounds = hashlib.sha256(min(values) + b"\0" + max(values)).hexdigest()[:12]
            wanted[column.name] = (len(values), str(sum(map(len, values))), bounds)
        else:
            wanted[column.name] = (0, None, None)
    return wanted


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_lone_return_between_others_is_a_line_end_to_both(tmp_path: Path, end: bytes) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a.csv").write_bytes(b"a" + end + b'x\r y\r"p\rq"\r z' + end + b"w")
    found, _ = read(folder / "a.csv", ONE, Format())
    assert list(found.values()) == [("x",), (" y",), ("p\rq",), (" z",), ("w",)]
    file = ImportFile("a.csv", "public.t", 0, "csv", None, 0, "", None, None)
    with SecondReader(table_source(ONE, [file], folder)) as reader:
        assert reader.aggregates()["a"].total == str(1 + 2 + 3 + 2 + 1)
