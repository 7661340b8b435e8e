"""What a feed says of how its files are written is how they are read, by all who read them."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import itertools
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_pipelines.engine.errors import BatchError, DeliveryError, FeedError, ThresholdError
from batch_pipelines.engine.feed_files import load_feed
from batch_pipelines.engine.reading import plain
from batch_pipelines.engine.rehearsal import rehearse
from tests.engine.test_replay import replay
from tests.support_columnar import COLUMNAR
from tests.support_engine import feed_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = "CREATE TABLE t (id int PRIMARY KEY, a text, b text, import_batch_id uuid)"
EXAMPLES = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture,
    ],
)  # fmt: skip


def zipped(*contents: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"part{number}.csv", content)
    return packed.getvalue()


PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor().compress,
    ".zip": zipped,
}


def use(site: Site, form: Mapping[str, object], **more: object) -> Site:
    """Change a site's feed."""
    site.feed = feed_of({"public.t": "*"}, format=form, **more)
    return site


def loaded(site: Site, **files: bytes | str) -> list[tuple[Any, ...]]:
    """Load files, of which no record may be set aside; return all rows."""
    named = {name.replace("__", "."): content for name, content in files.items()}
    batch = site.load(named, force=True)
    assert (batch.status, batch.rejected_records) == ("SUCCESS", 0)
    return site.sql("SELECT * FROM t ORDER BY 1")


def values(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [row[:-1] for row in rows]


# Round trips.


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[dict[str, object], str, bytes, list[list[str | None]]]:
    """What the feed says, a file's name, the file as Python's csv module writes it, and its rows."""
    delimiter = draw(st.sampled_from([None, ";", "|", "\t", "^", "]", "~"]))
    quote = draw(st.sampled_from(['"', "'", None]))
    escape = draw(st.sampled_from([None, "\\"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16",
                                     "utf-16-be", "utf-32", "cp932", "cp037"]))  # fmt: skip
    end = draw(st.sampled_from(["\n", "\r\n"])) if encoding != "cp037" else "\n"
    kind = "tsv" if draw(st.booleans()) else "csv"
    letters = "ab\\;,|^]~'\"\t x\N{LATIN SMALL LETTER E WITH ACUTE}\N{CJK UNIFIED IDEOGRAPH-4E2D}"
    letters += "" if quote is None and escape is None else end
    letters = "".join(c for c in letters if c.encode(encoding, "ignore").decode(encoding) == c)
    sign = delimiter or ("\t" if kind == "tsv" else ",")
    if quote is None and escape is None:
        letters = letters.replace(sign, "")
    rows = [
        [str(number), *texts]
        for number, texts in enumerate(
            draw(st.lists(st.tuples(*[st.text(letters, max_size=6)] * 2), max_size=8))
        )
    ]
    preamble, header = draw(st.integers(0, 3)), draw(st.booleans())
    always = quote is not None and draw(st.booleans())
    written = io.StringIO(newline="")
    written.write(f"it's {quote} not{sign} for you{end}" * preamble)
    writer = csv.writer(
        written, delimiter=sign, quotechar=quote, escapechar=escape, doublequote=escape is None,
        quoting=csv.QUOTE_ALL if always else csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        lineterminator=end,
    )  # fmt: skip
    writer.writerows([["id", "a", "b"], *rows] if header else rows)
    empty = draw(st.sampled_from(["null", "text"]))
    form: dict[str, object] = {
        "quote": quote, "escape": escape, "encoding": encoding, "empty": empty,
        "preamble": preamble, "header": True if header else ["id", "a", "b"],
    }  # fmt: skip
    if delimiter is not None:
        form["delimiter"] = delimiter
    nothing = "" if always or empty == "text" else None
    suffix = draw(st.sampled_from([*PACK]))
    content = PACK[suffix](written.getvalue().encode(encoding))
    wanted = [[value or nothing for value in row] for row in rows]
    return form, f"a.{kind}{suffix}", content, wanted


def test_what_python_writes_in_any_dialect_is_loaded(site18: MakeSite) -> None:
    here, numbers = site18(DDL), itertools.count()

    @EXAMPLES
    @given(delivery=deliveries())
    def check(delivery: tuple[dict[str, object], str, bytes, list[list[str | None]]]) -> None:
        form, name, content, rows = delivery
        here.sql("TRUNCATE t")
        batch = use(here, form).load({name: content}, f"k{next(numbers)}", force=True)
        assert (batch.status, batch.rejected_records) == ("SUCCESS", 0)
        found = here.sql("SELECT id::text, a, b FROM t ORDER BY id")
        assert [list(row) for row in found] == rows

    check()


# Compression.


@pytest.mark.parametrize("suffix", [suffix for suffix in PACK if suffix])
@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_compressed_files_are_loaded(site18: MakeSite, suffix: str, kind: str) -> None:
    here = site18(DDL, thresholds={})
    text = "id,a,b\n1,x,y\nx,,\n3,p,q\n".replace(",", "," if kind == "csv" else "\t")
    batch = here.load({f"a.{kind}{suffix}": PACK[suffix](text.encode())})
    assert (batch.written_records, batch.rejected_records) == (2, 1)
    assert batch.status == "PARTIAL_SUCCESS"
    # Lines and offsets are those of the text.
    (reject,) = here.sql("SELECT line_number, byte_offset, raw FROM batch_audit.import_reject")
    assert reject[:2] == (3, text.index("x", 10))
    assert bytes(reject[2]) == text.splitlines(keepends=True)[2].encode()
    assert not here.settings.staging.exists() or not [*here.settings.staging.rglob("plain")]


def test_a_zip_file_is_of_the_kind_of_what_is_in_it(site18: MakeSite) -> None:
    here = site18(DDL)
    assert len(loaded(here, a__zip=zipped(b"id,a\n1,x\n"))) == 1
    with pytest.raises(DeliveryError, match=r"a\.zip: holds 2 files"):
        here.load({"a.zip": zipped(b"id,a\n1,x\n", b"id,a\n2,x\n")})
    with pytest.raises(DeliveryError, match=r"a\.csv\.zip: holds 2 files"):
        here.load({"a.csv.zip": zipped(b"id,a\n1,x\n", b"id,a\n2,x\n")})
    with pytest.raises(DeliveryError, match=r"a\.zip: not a whole zip file"):
        here.load({"a.zip": zipped(b"id,a\n1,x\n")[:-9]})


@pytest.mark.parametrize("suffix", [suffix for suffix in PACK if suffix])
@pytest.mark.parametrize("damage", ["cut", "more", "other"])
def test_a_damaged_file_is_refused_before_anything_is_written(
    site18: MakeSite, suffix: str, damage: str
) -> None:
    here = site18(DDL)
    lines = "".join(f"{n},{n * 7919 % 1000},x\n" for n in range(5000))
    whole = PACK[suffix](b"id,a,b\n" + lines.encode())
    content = {"cut": whole[:-6], "more": whole + b"more", "other": b"id,a,b\n1,x,y\n"}[damage]
    if (suffix, damage) == (".zip", "more"):
        assert len(loaded(here, **{f"a__csv{suffix.replace('.', '__')}": content})) == 5000
        return
    with pytest.raises(DeliveryError, match=rf"a\.csv\{suffix}: not a whole \w+ file"):
        here.load({f"a.csv{suffix}": content})
    assert here.rows() == []


def test_a_bomb_is_refused(site18: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    here, bomb = site18(DDL), gzip.compress(b"id,a\n" + b"1,x\n" * 1_000_000)
    monkeypatch.setattr(plain, "FREE_BYTES", 1_000_000)
    with pytest.raises(DeliveryError, match=r"a\.csv\.gz: unpacks to more than 1000000 bytes, of "):
        here.load({"a.csv.gz": bomb})
    use(here, {}, limits={"bytes": 2_000_000})
    # Together they may be so large, unpacked.
    part = gzip.compress(b"id,a\n" + b"1,x\n" * 300_000)
    with pytest.raises(DeliveryError, match=r"b\.csv\.gz: unpacks to more than the 799995 bytes"):
        here.load({"a.csv.gz": part, "b.csv.gz": part})
    with here.work() as (connection, work), pytest.raises(DeliveryError, match=r"b\.csv\.gz: un"):
        rehearse(connection, work)
    assert here.rows() == []


def test_columnar_files_are_not_packed_again(site18: MakeSite) -> None:
    here = site18(DDL)
    for suffix, kind in {"parquet": "Parquet", "feather": "Arrow", "orc": "ORC"}.items():
        with pytest.raises(DeliveryError, match=f"{kind} is compressed inside"):
            here.load({f"a.{suffix}.gz": b""})
    with pytest.raises(DeliveryError, match=r"format '\.gz' is not known|format '' is not known"):
        here.load({"a.gz": b""})


# Encodings.


def test_bytes_that_the_encoding_does_not_have_are_rejects_of_their_records(
    site18: MakeSite,
) -> None:
    here = use(site18(DDL), {"encoding": "cp1252"}, thresholds={})
    # Of these two bytes, which cp1252 does not have, UTF-8 could make one character.
    content = "id,a\n1,é€\n2,".encode("cp1252") + b"\x81\n3,\x8d\x9d\xc2\x81\n4,ok\n"
    batch = here.load({"a.csv": content})
    assert (batch.status, batch.rejected_records) == ("PARTIAL_SUCCESS", 2)
    assert here.sql("SELECT id, a FROM t ORDER BY 1") == [(1, "é€"), (4, "ok")]
    found = here.sql(
        "SELECT record_number, sqlstate, raw FROM batch_audit.import_reject ORDER BY 1"
    )
    assert [row[:2] for row in found] == [(2, "22021"), (3, "22021")]
    assert bytes(found[0][2]) == b"2," + "\udc81".encode("utf-8", "surrogatepass") + b"\n"


@pytest.mark.parametrize("damage", [b"\x00\xd8", b"\xff\xdf"])
def test_a_lone_surrogate_is_a_reject(site18: MakeSite, damage: bytes) -> None:
    here = use(site18(DDL), {"encoding": "utf-16-le"}, thresholds={})
    before, after = ("id,a\n1,x".encode("utf-16-le"), "\n2,y\n".encode("utf-16-le"))
    batch = here.load({"a.csv": before + damage + after})
    assert (batch.written_records, batch.rejected_records) == (1, 1)


@pytest.mark.parametrize("told", ["utf-8", "cp1252"])
@pytest.mark.parametrize("real", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_the_encoding(site18: MakeSite, told: str, real: str) -> None:
    here = use(site18(DDL), {"encoding": told})
    assert values(loaded(here, a__csv="id,a,b\n1,é,中\n".encode(real))) == [(1, "é", "中")]


# Header, preamble, names.


def test_columns_are_renamed_and_left_out(site18: MakeSite) -> None:
    form = {"columns": {"Nr.": "id", "Ort": "a"}, "ignore_columns": ["", "x"]}
    here = use(site18(DDL), form)
    text = b"Nr.,x,Ort,x,\n1,\xff,here,,\n2,b,,c,\n"
    assert values(loaded(here, a__csv=text)) == [(1, "here", None), (2, None, None)]
    table = pa.table({"Nr.": [3], "x": ["?"], "Ort": ["there"]})
    for suffix in COLUMNAR:
        batch = here.load({f"a.{suffix}": table}, force=True)
        assert batch.status == "SUCCESS"
        assert here.sql("SELECT id, a FROM t") == [(3, "there")]
    with pytest.raises(FeedError, match=r"leave no column|column 'id' is absent"):
        use(here, {"ignore_columns": ["id", "a"]}).load({"a.csv": "id,a\n1,x\n"}, force=True)


def test_a_preamble_is_passed_over_whatever_stands_in_it(site18: MakeSite) -> None:
    here = use(site18(DDL, thresholds={}), {"preamble": 3}, thresholds={})
    text = '\ufeff"a report\n\n,,,"\r\nid,a\n1,x\nx,\n2,y\n'
    batch = here.load({"a.csv": text})
    assert (batch.written_records, batch.rejected_records) == (2, 1)
    assert here.sql("SELECT line_number FROM batch_audit.import_reject") == [(6,)]
    use(here, {"preamble": 3, "header": ["id", "a"]})
    assert values(loaded(here, a__csv="1\n2\n3\n1,x\n")) == [(1, "x", None)]


# Null words, numbers, dates.


def test_null_words_are_nulls_where_they_are_not_quoted(site18: MakeSite) -> None:
    ddl = "CREATE TABLE t (id int, a text, b date, c numeric(9,2), import_batch_id uuid)"
    here = use(site18(ddl), {"null_words": ["NULL", "\\N"]})
    text = 'id,a,b,c\n1,NULL,\\N,NULL\n2,"NULL","2024-01-02",\n3,,,\n4,"",NULL,1.5\n\\N,null,,\n'
    found = [(row[0], row[1]) for row in loaded(here, a__csv=text)]
    assert found == [(1, None), (2, "NULL"), (3, None), (4, ""), (None, "null")]
    use(here, {"null_words": ["NULL"], "empty": "text"})
    found = [(row[0], row[1]) for row in loaded(here, a__csv="id,a,b,c\n1,,,\n2,NULL,,NULL\n")]
    assert found == [(1, ""), (2, None)]


@pytest.mark.parametrize("quote", ['"', None])
def test_dumps_with_an_escape_say_null_with_it(site18: MakeSite, quote: str | None) -> None:
    """Given text dumps as databases write them, an escaped letter is the null word or a reject."""
    form = {"null_words": ["\\N", "NULL"], "escape": "\\", "quote": quote, "empty": "text"}
    here = use(site18(DDL, thresholds={}), form, thresholds={})
    good = "id\ta\tb\n1\t\\N\t\\\\N\n2\tNULL\t\n3\tx\\\ty\t\\N\n4\tone\\\ntwo\t\x1aN\n5\t\\\\\tN\n"
    bad = "6\ta\\nb\tx\n7\tx\\N\ty\n8\t\\Nx\t\n9\tx\\\t\\N\n10\t\\0\tx\n"
    batch = here.load({"a.tsv": good + bad})
    assert (batch.status, batch.written_records, batch.rejected_records) == (
        "PARTIAL_SUCCESS", 5, 5,
    )  # fmt: skip
    assert here.sql("SELECT id, a, b FROM t ORDER BY id") == [
        (1, None, "\\N"), (2, None, ""), (3, "x\ty", None), (4, "one\ntwo", "\x1aN"), (5, "\\", "N"),
    ]  # fmt: skip
    found = here.sql(
        "SELECT record_number, sqlstate, raw FROM batch_audit.import_reject ORDER BY 1"
    )
    assert [row[:2] for row in found] == [(number, "22P04") for number in range(6, 11)]
    assert b"".join(bytes(row[2]) for row in found).decode() == bad


def test_in_quotes_an_escaped_letter_is_no_null_word(site18: MakeSite) -> None:
    here = use(site18(DDL, thresholds={}), {"null_words": ["\\N"], "escape": "\\"}, thresholds={})
    text = 'id,a,b\n1,"x\\",y",\\N\n2,"x,\\N,y",z\n3,"\\\\N","\\N"\n4,\\N,"a\nb"\n\\N,x,y\n'
    batch = here.load({"a.csv": text})
    assert (batch.written_records, batch.rejected_records) == (2, 3)
    assert here.sql("SELECT id, a, b FROM t ORDER BY id") == [(1, 'x",y', None), (4, None, "a\nb")]


def test_empty_by_column_stands_beside_null_words(site18: MakeSite) -> None:
    here = use(site18(DDL), {"null_words": ["NULL"], "empty": {"a": "text"}})
    text = 'id,a,b\n1,,\n2,NULL,NULL\n3,"",""\n4,"NULL","NULL"\n5,x,y\n'
    assert values(loaded(here, a__csv=text)) == [
        (1, "", None), (2, None, None), (3, "", ""), (4, "NULL", "NULL"), (5, "x", "y"),
    ]  # fmt: skip


def test_each_of_several_tables_has_its_own_header(site18: MakeSite) -> None:
    ddl = DDL + "; CREATE TABLE u (k int, v text, import_batch_id uuid)"
    here = site18(ddl, thresholds={})
    tables = [
        {"table": "public.t", "files": "t*", "header": ["id", "a"]},
        {"table": "public.u", "files": "u*"},
    ]
    here.feed = here.feed.model_validate(
        {**here.feed.model_dump(), "tables": tables, "thresholds": {}}
    )
    batch = here.load({"t.csv": "1,x\n2\n3,z\n", "u.csv": "k,v\n1,y\n"})
    assert (batch.source_records, batch.written_records, batch.rejected_records) == (4, 3, 1)
    assert here.sql("SELECT id, a FROM t ORDER BY id") == [(1, "x"), (3, "z")]
    assert here.sql("SELECT k, v FROM u") == [(1, "y")]
    here.deliver({"t.csv": "1,x\n", "u.csv": "k,v\n1,y\n2,z\n"})
    with here.work() as (connection, work):
        assert sum(b.source_records for b in rehearse(connection, work).balances) == 3


def test_what_an_empty_field_means_is_said_by_column(site18: MakeSite) -> None:
    here = use(site18(DDL), {"empty": {"a": "text"}})
    found = values(loaded(here, a__csv='id,b,a\n1,,\n2,"",""\n3,x,y\n'))
    assert found == [(1, "", None), (2, "", ""), (3, "y", "x")]


@pytest.mark.parametrize("empty", ["null", "text"])
def test_of_a_single_column_an_empty_line_is_no_record(site18: MakeSite, empty: str) -> None:
    here = site18("CREATE TABLE t (a char(3), import_batch_id uuid)")
    use(here, {"null_words": ["NULL"], "empty": empty})
    found = loaded(here, a__csv='a\nx\n\nNULL\n""\n')
    assert sorted(values(found), key=str) == [("   ",), ("x  ",), (None,)]


def test_a_decimal_comma_and_patterns_of_time(site18: MakeSite) -> None:
    ddl = """CREATE TABLE t (n numeric(10,2), f float8, g numeric, d date, s timestamp,
        z text, import_batch_id uuid)"""
    form = {
        "delimiter": ";",
        "decimal": ",",
        "dates": "%d.%m.%Y",
        "timestamps": "%d.%m.%y %H:%M:%S",
    }
    here = use(site18(ddl, thresholds={}), form, thresholds={})
    good = "n;f;g;d;s;z\n1,5;-2,25;7,125;1.2.2024;31.12.69 01:02:03;a,b.c\n;;;;;\n"
    batch = here.load({"a.csv": good})
    assert batch.status == "SUCCESS"
    found = here.sql(
        "SELECT n::text, f::text, g::text, d::text, s::text, z FROM t WHERE n IS NOT NULL"
    )
    assert found == [("1.50", "-2.25", "7.125", "2024-02-01", "1969-12-31 01:02:03", "a,b.c")]
    bad = (
        "1.5;;;;;\n;1.5;;;;\n;;1.5;;;\n;;;30.02.2024;;\n;;;2024-02-01;;\n;;;;2024-02-01 00:00:00;\n"
    )
    batch = here.load({"a.csv": good + bad}, force=True)
    assert (batch.status, batch.rejected_records) == ("PARTIAL_SUCCESS", 6)


@pytest.mark.parametrize(
    ("pattern", "text", "wanted"),
    [
        ("%Y-%m-%dT%H:%M:%S.%f%z", "2024-01-02T03:04:05.25+0130", "2024-01-02 01:34:05.25+00"),
        ("%Y-%m-%dT%H:%M:%S%z", "2024-01-02T03:04:05Z", "2024-01-02 03:04:05+00"),
        ("%Y-%m-%dT%H:%M:%S%z", "2024-01-02T03:04:05-05:00", "2024-01-02 08:04:05+00"),
        ("%d %b %Y %H:%M %z", "03 Jan 2024 05:06 +0000", "2024-01-03 05:06:00+00"),
        ("%Y%m%d%H%M%z", "202401030506+0000", "2024-01-03 05:06:00+00"),
    ],
)
def test_moments(site18: MakeSite, pattern: str, text: str, wanted: str) -> None:
    here = site18("CREATE TABLE t (d timestamptz, n int, import_batch_id uuid)")
    use(here, {"timestamps": pattern})
    assert loaded(here, a__csv=f"d,n\n{text},1\n")
    assert here.sql("SELECT (d AT TIME ZONE 'UTC')::text || '+00' FROM t") == [(wanted,)]


# What is not said is reported.


@pytest.mark.parametrize(
    ("name", "content", "told", "remedy"),
    [
        ("a.csv", b"id;a;b\n1;x;y\n", {}, "the delimiter ';': write `format: {delimiter: ';'}`"),
        ("a.csv", b"id\ta\n", {}, "the delimiter '\\t': write `format: {delimiter: \"\\t\"}`"),
        ("a.tsv", b"id,a\n", {}, "the delimiter ',': write `format: {delimiter: ','}`"),
        ("a.csv.gz", gzip.compress(b"id|a\n", mtime=0), {}, "the delimiter '|'"),
        ("a.csv", "id;ä\n".encode("cp1252"), {"columns": {"ä": "a"}}, "the encoding 'cp1252' and"),
        ("a.csv", "id,a\n1,x\n".encode("utf-16-le"), {}, "the encoding 'utf-16-le': write"),
        ("a.csv", b"a report\n\nid,a\n1,x\n", {}, "the preamble 1: write `format: {preamble: 1}`"),
    ],
)
def test_a_header_that_fits_otherwise_is_reported(
    site18: MakeSite, name: str, content: bytes, told: dict[str, object], remedy: str
) -> None:
    here = use(site18(DDL), told)
    with pytest.raises(FeedError) as error:
        here.load({name: content})
    assert f"{name}: its columns fit public.t with " in str(error.value)
    assert remedy in str(error.value)


def test_what_the_feed_says_is_not_guessed_otherwise(site18: MakeSite) -> None:
    here = use(site18(DDL), {"delimiter": ",", "encoding": "utf-8"})
    with pytest.raises(FeedError, match=r"column 'id;a;b' is not in public\.t"):
        here.load({"a.csv": "id;a;b\n1;x;y\n"})
    with pytest.raises(BatchError, match=r"a\.csv:1: the header is not UTF-8 CSV"):
        here.load({"a.csv": "id,ä\n".encode("latin-1")})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("delimiter: ab", "must be one sign of ASCII"),
        ("delimiter: é", "must be one sign of ASCII"),
        ("quote: ','", "must be different signs"),
        ("escape: '#'", "must be none (a quote in a field is doubled) or a backslash"),
        ("encoding: utf-9", "there is no encoding 'utf-9'"),
        ("encoding: base64", "there is no encoding 'base64'"),
        ("header: false", "must be true, or the list of the columns' names"),
        ("preamble: -1", "greater than or equal to 0"),
        ("null_words: [' ']", "each must be a word"),
        ("empty: maybe", "must be null or text"),
        ("decimal: x", "must be '.' or ','"),
        ("dates: '%d.%m'", "must have a year"),
        ("dates: '%d.%m.%Y %H'", "a date has no time of day"),
        ("timestamps: '%c'", "%c is not known here"),
        ("delimeter: ';'", "did you mean `delimiter`"),
    ],
)
def test_a_wrong_format_is_told_with_its_line(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(
        f"feed: f\nsource: {{path: 'f/{{batch}}/*'}}\ntables: [{{table: public.t}}]\n"
        f"format:\n  {line}\n"
    )
    with pytest.raises(FeedError) as error:
        load_feed(path)
    assert problem in str(error.value)
    assert str(error.value).startswith((f"{path}:5:", f"{path}:4:"))


def test_yaml_has_words_of_its_own_for_some_of_it(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(
        "feed: f\nsource: {path: 'f/{batch}/*'}\ntables: [{table: public.t}]\n"
        "format: {delimiter: \\t, quote: none, escape: '\\', empty: {a: null, b: text}}\n"
    )
    form = load_feed(path).format
    assert (form.delimiter, form.quote, form.escape) == ("\t", None, "\\")
    assert form.empty == {"a": "null", "b": "text"}


# Replay.


def test_records_are_replayed_with_a_mended_format_from_the_bag(site18: MakeSite) -> None:
    here = site18(DDL, thresholds={})
    content = gzip.compress("nr,a\nNULL,é\n-,x\n3,y\n".encode("cp1252"))
    told: dict[str, object] = {"columns": {"nr": "id"}, "encoding": "cp1252"}
    first = use(here, told, thresholds={}).load({"a.csv.gz": content})
    assert first.rejected_records == 2
    shutil.rmtree(here.settings.staging, ignore_errors=True)
    here.sql("ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ALTER id DROP NOT NULL")
    use(here, told | {"null_words": ["NULL", "-"]}, thresholds={})
    assert replay(here).rejected_records == 0
    found = here.sql("SELECT id, a FROM t")
    assert sorted(found, key=str) == [(3, "y"), (None, "x"), (None, "é")]


def test_a_format_that_moves_records_is_not_for_a_replay(site18: MakeSite) -> None:
    here = site18(DDL, thresholds={})
    here.load({"a.csv": "id,a\n1,x\n?,y\n3,z\n"})
    # Here they stay where they are, and there is nothing else to say of them.
    use(here, {"preamble": 1, "header": ["id", "a"]}, thresholds={})
    with pytest.raises(ThresholdError, match="1 of 1 records cannot be loaded"):
        replay(here)
    use(here, {"preamble": 2, "header": ["id", "a"]}, thresholds={})
    with pytest.raises(FeedError, match=r"`format:` was changed since it was loaded"):
        replay(here)
    assert here.sql("SELECT id FROM t ORDER BY 1") == [(1,), (3,)]
