"""Whoever delivers means harm: names, archives, files and feeds that attack who reads them.

Each is refused by a sentence, or loaded as what it is. Nothing leaves its folder, and nothing of it is
ever run.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import resource
import zipfile
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from batch_pipelines.engine.errors import BatchError, DeliveryError, FeedError
from batch_pipelines.engine.feed_files import load_feed
from batch_pipelines.engine.landing.deliveries import find_delivery
from batch_pipelines.engine.ledger import files, values
from batch_pipelines.engine.ledger.reject_files import write_csv
from batch_pipelines.engine.reading import plain
from tests.engine.verification.support_verify import verify_table
from tests.support_engine import KEY, feed_of
from tests.support_rollback import upserting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.engine.conftest import MakeSite
    from tests.support_engine import Site

DDL = """
CREATE TABLE t (id integer PRIMARY KEY, a text, import_batch_id uuid);
CREATE INDEX ON t (import_batch_id);
CREATE TABLE victim (id integer);
INSERT INTO victim VALUES (1);
"""
INJECTED = "'); DROP TABLE victim; --"
NAMES = [
    INJECTED, 'a"b', "a;b", "a\nb", "a\rb", "a\tb", "%s %(x)s %", "{} {0} {table}", "\u202egnp.exe",
    "$(touch pwned)", "`touch pwned`", "-rf *", "..", " ", "\u200b", "a\\", "SELECT", "x" * 200,
    "\x01\x1b[31m", "É\u0301", "\N{PILE OF POO}",
]  # fmt: skip


def untouched(site: Site) -> None:
    assert site.sql("SELECT id FROM victim") == [(1,)]
    root = site.settings.root
    assert not [path for path in root.rglob("*") if path.name == "pwned"]
    assert {path.name for path in root.iterdir()} <= {"landing", "home", "feeds"}


def test_files_may_be_called_anything(site18: MakeSite) -> None:
    here = site18(DDL, thresholds={})
    named = {f"{name}.csv": f"id,a\n{n},b\nx,c\n" for n, name in enumerate(NAMES)}
    batch = here.load(named)
    assert here.stamps() == {batch.batch_id: len(NAMES)}
    assert {file.file_name for file in files.of_batch(here.connection, batch.batch_id)} == set(
        named
    )
    assert verify_table(here, batch).status == "SUCCESS"
    untouched(here)


def test_a_name_that_is_no_text_is_refused(site18: MakeSite) -> None:
    here = site18(DDL)
    here.deliver({"good.csv": "id,a\n1,b\n"})
    (here.landing() / "\udcff.csv").write_text("id,a\n2,b\n")
    with pytest.raises(DeliveryError, match="name"):
        here.run()
    assert here.stamps() == {}


@pytest.mark.parametrize(
    "key", ["..", ".", "", "a/b", "../../etc", "/etc", "a\0b", "x" * 5000, "a\nb", "-x", "*", "[a]"]
)
def test_a_partition_key_does_not_lead_elsewhere(tmp_path: Path, key: str) -> None:
    (tmp_path / "landing").mkdir()
    (tmp_path / "a.csv").write_text("id,a\n1,b\n")
    with pytest.raises(DeliveryError, match="is not a partition key") as refused:
        find_delivery(feed_of({"public.t": "*"}), key, tmp_path)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("publish", ["direct", "after_validation"])
@pytest.mark.parametrize("write", ["insert", "upsert"])
def test_columns_may_be_called_anything(site18: MakeSite, publish: str, write: str) -> None:
    names = [name[:60] for name in NAMES]
    columns = ", ".join('"{}" text'.format(name.replace('"', '""')) for name in names)
    odd = '"od""d; t%s{}"'
    here = site18(
        f"{DDL} CREATE TABLE {odd} (id integer PRIMARY KEY, {columns}, import_batch_id uuid);"
        f"INSERT INTO {odd} (id) VALUES (1)",
    )
    here.feed = upserting(
        here.feed, {"table": 'public.od"d; t%s{}', "write": write},
        publish=publish, validate_digests=True, audit="row",
    )  # fmt: skip
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["id", *names])
    for n in (1, 2, 3):
        rows.writerow([n + (write == "insert"), *(f"{INJECTED} {n}" for _ in names)])
    rows.writerow(["x", *names])
    batch = here.load({"f.csv": text.getvalue()})
    assert (batch.written_records, batch.rejected_records) == (3, 1)
    again = here.load({"f.csv": text.getvalue().replace("-- 2", "-- 4")})
    assert again.written_records == 3
    assert verify_table(here, again).status in {"SUCCESS", "PARTIAL_SUCCESS"}
    untouched(here)


def test_a_reject_runs_nothing_where_it_is_opened(site18: MakeSite, tmp_path: Path) -> None:
    here = site18(DDL, thresholds={})
    formulas = [
        "=1+1",
        "@SUM(A1)",
        "+1+x",
        "-1-x",
        "\t=1",
        "\r=1",
        "=cmd|' /C'!A1",
        "=HYPERLINK(A1)",
    ]
    text = io.StringIO()
    csv.writer(text).writerows([["id", "a"], ["1", "b"], *([v, v] for v in [*formulas, *NAMES])])
    batch = here.load({"=1+1.csv": text.getvalue()})
    assert batch.rejected_records == len(formulas) + len(NAMES)
    exported = tmp_path / "home" / "rejects.csv"
    with values.opened(here.connection, batch.batch_id, "export", "a test"):
        write_csv(here.connection, batch.batch_id, exported)
    with exported.open(newline="") as file:
        for row in csv.reader(file):
            assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    untouched(here)


def _zip(content: bytes, name: str = "a.csv") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return packed.getvalue()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "bz2": bz2.compress, "zip": _zip, "zst": zstandard.compress,
}  # fmt: skip


@pytest.mark.parametrize("kind", PACKERS)
def test_an_archive_that_unpacks_to_a_thousand_times_its_size_stops_at_its_limit(
    site18: MakeSite, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    bomb = PACKERS[kind](b"id,a\n" + b"1,b\n" * 1_000_000)
    assert len(bomb) * plain.RATIO < 3_000_000
    here = site18(DDL)
    monkeypatch.setattr(plain, "FREE_BYTES", 1_000_000)
    here.deliver({f"a.csv.{kind}": bomb})
    with pytest.raises(DeliveryError, match="unpacks to more than"):
        here.run()
    here.feed = here.feed.model_copy(
        update={"limits": here.feed.limits.model_copy(update={"bytes": 2_000_000})}
    )
    with pytest.raises(DeliveryError, match="2000000 bytes"):
        here.run()
    assert here.stamps() == {}


@pytest.mark.parametrize("name", ["../../pwned", "/tmp/pwned", "a.csv\0.exe", "..\\pwned"])  # noqa: S108
def test_the_name_inside_an_archive_leads_nowhere(site18: MakeSite, name: str) -> None:
    here = site18(DDL)
    here.deliver({"a.zip": _zip(b"id,a\n1,b\n", name), "b.csv.zip": _zip(b"id,a\n2,b\n", name)})
    try:
        here.run()
    except DeliveryError:
        assert here.stamps() == {}
    untouched(here)


def test_a_link_in_landing_shows_nothing_of_what_lies_elsewhere(
    site18: MakeSite, tmp_path: Path
) -> None:
    here = site18(DDL)
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "secret.csv").write_text("id,a\n1,secret\n")
    here.deliver({"good.csv": "id,a\n2,b\n"})
    (here.landing() / "link.csv").symlink_to(secret / "secret.csv")
    (here.landing().parent / "linked").symlink_to(secret)
    for key in (KEY, "linked"):
        with pytest.raises(DeliveryError, match="is a link that leads out of"):
            here.run(key)
    assert here.stamps() == {}


def outcome(site: Site) -> str:
    """Import, and give the status of the batch, or what the error says."""
    try:
        return site.run().status
    except BatchError as refused:
        return str(refused)


def peak_grows(act: Callable[[], object]) -> int:
    """Give by how many bytes the peak of memory grows."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    act()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


@pytest.mark.parametrize(
    ("content", "loaded"),
    [
        ("id,a\n1,\0\n2,b\n", 1),
        ("id,a\n1,b\n\0\0\0\n3,c\n", 2),
        ("id,a\n1," + "x" * 10_000_000, None),
        ("id,a\n" + "1" * 10_000_000 + "\n2,b\n", None),
        ("x" * 10_000_000, None),
        ('id,a\n1,"' + "x,y\n" * 20_000, None),
        (",".join(f"c{n}" for n in range(100_000)) + "\n", None),
        ("id,a\n1" + "," * 200_000 + "\n2,b\n", 1),
        ("id,a\n" + "," * 200_000 + "\n" + "2,b\n", 1),
        ("id,a\n" + "\n" * 1_000_000 + "2,b\n", 1),
        ("id,id,a,a\n1,1,b,b\n", None),
    ],
    ids=[
        "NUL", "NULs", "endless field", "endless id", "endless header", "open quote", "million columns",
        "million commas", "million nulls", "million lines", "doubled columns",
    ],
)  # fmt: skip
def test_csv_that_never_ends_is_refused_or_set_aside_within_bounds(
    site18: MakeSite, content: str, loaded: int | None
) -> None:
    here = site18(DDL, thresholds={})
    here.deliver({"f.csv": content})

    said: list[str] = []
    assert peak_grows(lambda: said.append(outcome(here))) < 1_500_000_000
    assert len(said[0]) < 2000
    assert not said[0].startswith("Unexpected")
    held = here.count("SELECT count(*) FROM t")
    if loaded is not None:
        assert held == loaded


def _parquet() -> bytes:
    sink = io.BytesIO()
    texts = [f"text {n}" for n in range(20_000)]
    table = pa.table({"id": pa.array(range(20_000), pa.int32()), "a": texts})
    pq.write_table(table, sink, row_group_size=5_000, write_page_checksum=True, compression="none")
    return sink.getvalue()


WHOLE = _parquet()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"PAR1", b"PAR1PAR1", WHOLE[:-4], WHOLE[:-9], WHOLE[: len(WHOLE) // 2],
        WHOLE[:-8] + (2**31 - 1).to_bytes(4, "little") + b"PAR1",
        WHOLE[:-8] + (8).to_bytes(4, "little") + b"PAR1",
        WHOLE[:1000] + bytes(2000) + WHOLE[3000:],
        WHOLE[:1000] + b"\xff" * 2000 + WHOLE[3000:],
        WHOLE + WHOLE, WHOLE[len(WHOLE) // 2 :],
        WHOLE.replace(b"text 1234", b"text 9999", 1),
        b"id,a\n1,b\n",
    ],
    ids=[
        "nothing", "magic", "magics", "no magic", "no footer", "half", "long footer", "short footer",
        "empty pages", "full pages", "twice", "tail", "another text", "csv",
    ],
)  # fmt: skip
def test_parquet_that_lies_is_refused(site18: MakeSite, content: bytes) -> None:
    here = site18(DDL, thresholds={})
    here.deliver({"f.parquet": content})
    said = outcome(here)
    if content == WHOLE + WHOLE:
        assert said == "SUCCESS"
        assert here.count("SELECT count(*) FROM t") == 20_000
    else:
        assert "f.parquet" in said
        assert here.stamps() == {}


_FEED = "feed: {}\nsource: {{path: 'landing/{{batch}}/*'}}\ntables: [{{table: public.t}}]\n"
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{now}: &{now} [{','.join([f'*{before}'] * 9)}]\n"
    for before, now in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "&a [*a]", "a: &a {b: *a}", "feed: &f\n  x: *f\n", LAUGHS, "[" * 2_000, "{a: " * 2_000,
        "- " * 2_000,
        "!!python/object/apply:os.system ['touch pwned']", "feed: !!binary aGk=", "feed: \0", "\0",
        "%YAML 9.9\n---\nfeed: x", "feed: " + "9" * 10_000, "feed: 2026-99-99", "? {a: 1}\n: b",
        "<<: [1]",
        "<<: *x", "", "null", "[]", "42", "feed: ~", "\ufeff", "feed: \ud83d",
        *(_FEED.format(repr(name)) for name in ("../x", "a/b", "..", INJECTED, "x" * 300, "")),
        _FEED.format("x").replace("landing/", "../../../etc/"),
    ],
    ids=lambda text: repr(text[:24]),
)  # fmt: skip
def test_a_feed_file_that_means_harm_is_refused_by_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "feed.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(FeedError) as refused:
        load_feed(path)
    assert str(path) in str(refused.value)
    assert len(str(refused.value)) < 20_000
    assert [each.name for each in tmp_path.iterdir()] == ["feed.yaml"]
