"""A feed file says what it means or is told, with file, line and remedy, what is wrong with it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batch_pipelines.engine.errors import DeliveryError, FeedError
from batch_pipelines.engine.feed_files import find_feed, load_feed, load_feeds
from batch_pipelines.engine.feeds import PARTITION_KEY, Feed, check_key, is_key
from tests.support_engine import feed_of

if TYPE_CHECKING:
    from collections.abc import Callable

SMALLEST = """\
feed: flights
source:
  path: landing/flights/{batch}/*.csv
tables:
  - table: public.flights
"""
TWO_TABLES = """\
feed: reference
source:
  path: landing/{batch}/*
tables:
  - table: public.airlines
    files: airlines*
  - table: public.airports
    files: airports*
"""
ROOT = Path("/data")


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """Write a feed file."""

    def write(text: str) -> Path:
        path = tmp_path / "feed.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_smallest_feed_is_a_name_a_place_and_a_table(written: Callable[[str], Path]) -> None:
    feed = load_feed(written(SMALLEST))
    assert feed.feed == "flights"
    assert [(t.table, t.schema_name, t.name) for t in feed.tables] == [
        ("public.flights", "public", "flights")
    ]
    assert (feed.version, feed.identity, feed.ddl, feed.owners) == (1, "partition", None, ())
    assert feed.source.settle_seconds == 10


def test_everything_a_feed_can_say(written: Callable[[str], Path]) -> None:
    text = TWO_TABLES + (
        "version: 3\ndescription: Airlines.\nidentity: feed\nddl: sql/reference.sql\n"
        "owners: [team:flights, someone@example.org]\n"
    )
    feed = load_feed(written(text.replace("*\ntables", "*\n  settle_seconds: 0\ntables")))
    assert (feed.version, feed.identity, feed.ddl) == (3, "feed", "sql/reference.sql")
    assert feed.owners == ("team:flights", "someone@example.org")
    assert feed.source.settle_seconds == 0


def test_the_feeds_that_ship_can_be_read() -> None:
    feeds = load_feeds(Path(__file__).parents[2] / "feeds")
    assert list(feeds) == [
        "departures",
        "flight_reference",
        "flights",
        "inventory",
        "lab_results",
        "operations",
    ]


RULED = (
    SMALLEST
    + """\
    rules:
      - {name: late, range: {column: dep_delay, max: 1440}}
      - name: known
        in: {column: origin, values: [EWR, JFK]}
"""
)


def test_rules_of_a_table(written: Callable[[str], Path]) -> None:
    (table,) = load_feed(written(RULED)).tables
    assert [(rule.name, rule.kind) for rule in table.rules] == [("late", "range"), ("known", "in")]
    assert table.rules[0].range is not None
    assert (table.rules[0].range.min, table.rules[0].range.max) == (None, 1440)
    again = Feed.model_validate(load_feed(written(RULED)).model_dump())
    assert again.tables[0].rules == table.rules


@pytest.mark.parametrize(
    ("old", "new", "line", "why"),
    [
        ("known", "late", 6, "the name late stands twice"),
        ("late", "Late", 7, "must be a word of lower-case"),
        ("max: 1440", "most: 1440", 7, "`tables.0.rules.0.range.most` is not known; "),
        (", max: 1440", "", 7, "needs `min`, `max`, or both"),
        (
            "        in:",
            "        is:",
            9,
            "`tables.0.rules.1.is` is not known; known here: name, range, in, ",
        ),
        ("[EWR, JFK]", "[EWR, []]", 9, "must be a text, a number, a date, true or false"),
        ("[EWR, JFK]", "[]", 9, "needs at least one entry"),
        (
            "name: known\n",
            "name: known\n        expression: a > 1\n",
            8,
            "found `in` and `expression`",
        ),
        ("late, range: {column: dep_delay, max: 1440}", "late", 7, "found none"),
    ],
)
def test_a_wrong_rule_is_named_with_its_line(
    written: Callable[[str], Path], old: str, new: str, line: int, why: str
) -> None:
    assert RULED.count(old) == 1
    path = written(RULED.replace(old, new))
    with pytest.raises(FeedError) as error:
        load_feed(path)
    assert f"{path}:{line}: " in str(error.value)
    assert why in str(error.value)


def changed(old: str, new: str) -> str:
    assert SMALLEST.count(old) == 1
    return SMALLEST.replace(old, new)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        pytest.param("", ["1: `the file` must hold lines of the form"], id="an empty file"),
        pytest.param("flights", ["1: `the file` must hold lines of the form"], id="a word"),
        pytest.param("- feed: a", ["1: `the file` must hold lines of the form"], id="a list"),
        pytest.param(
            "feed: 'a\n", ["2: found unexpected end of stream. Check"], id="an open quote"
        ),
        pytest.param("feed: a\n\tx: b", ["2: found character '\\t'"], id="a tabulator"),
        pytest.param(
            changed("landing/flights/{batch}/*.csv", "{batch}/*.csv"),
            ["3: expected <block end>"],
            id="a brace without quotes",
        ),
        pytest.param(SMALLEST + "---\nfeed: b\n", ["6: but found another document"], id="two"),
        pytest.param(SMALLEST + "feed: b\n", ["6: `feed` stands twice; keep one."], id="doubled"),
        pytest.param(
            changed("  path", "  path: x\n  path"),
            ["4: `path` stands twice; keep one."],
            id="doubled below",
        ),
        pytest.param(
            changed("source:", "suorce:"),
            ["1: `source` is missing; add it.", "2: `suorce` is not known; did you mean `source`?"],
            id="a misspelt name",
        ),
        pytest.param(
            changed("  path:", "  pth:"),
            ["3: `source.pth` is not known; did you mean `path`?"],
            id="a misspelt name below",
        ),
        pytest.param(
            changed("  path: ", "  settle_seconds: 3 #"),
            ["2: `source`: must have one of `path`, the files' pattern, a `query`, and `batches`."],
            id="neither path nor query",
        ),
        pytest.param(
            SMALLEST + "    fils: '*'\n",
            ["6: `tables.0.fils` is not known; did you mean `files`?"],
            id="a misspelt name in a list",
        ),
        pytest.param(
            SMALLEST + "zzz: 1\n",
            ["6: `zzz` is not known; known here: feed, version, description, source, tables,"],
            id="a name like no other",
        ),
        pytest.param(
            SMALLEST + "1: 2\n", ["1: `1`: Keys should be strings."], id="a number for a name"
        ),
        pytest.param(
            changed("feed: flights", "feed: My Flights"),
            ["1: `feed` must be a word of lower-case letters"],
            id="a name with capitals and a space",
        ),
        pytest.param(
            changed("feed: flights", "feed: [a]"), ["1: `feed` must be text"], id="a list for text"
        ),
        pytest.param(
            changed("public.flights", "flights"),
            ["5: `tables.0.table` must be a table with its schema, as in `public.flights`."],
            id="a table without schema",
        ),
        pytest.param(
            changed("\n  - table: public.flights", " public.flights"),
            ["4: `tables` must be a list"],
            id="no list",
        ),
        pytest.param(
            changed("\n  - table: public.flights", " []"),
            ["4: `tables` needs at least one entry."],
            id="an empty list",
        ),
        pytest.param(
            TWO_TABLES.replace("    files: airports*\n", ""),
            ["4: `tables`: with more than one table each needs its own `files:` pattern."],
            id="two tables, one without a pattern",
        ),
        pytest.param(
            TWO_TABLES.replace("public.airports", "public.airlines"),
            ["4: `tables`: a table stands twice; one entry with a wider pattern does it."],
            id="a table twice",
        ),
        pytest.param(SMALLEST + "version: 0\n", ["6: `version`: Input should be"], id="version 0"),
        pytest.param(
            SMALLEST + "identity: row\n",
            ["6: `identity`: Input should be 'partition' or 'feed'."],
            id="an unknown identity",
        ),
        pytest.param(
            SMALLEST + "owners: [me]\n",
            ["6: `owners`: an owner is an e-mail address or team:NAME."],
            id="an owner without address",
        ),
        pytest.param(
            changed("*.csv", "*.csv\n  settle_seconds: -1"),
            ["4: `source.settle_seconds`: Input should be greater than or equal to 0."],
            id="a negative time",
        ),
        pytest.param(
            changed("*.csv", "*.csv\n  complete: _SUCCESS"),
            [
                "4: `source.complete`: must be settled, manifest, or {marker: NAME}, the name of a file"
            ],
            id="a marker without saying so",
        ),
        pytest.param(
            changed("*.csv", "*.csv\n  complete: {marker: '{batch}.done'}"),
            [
                "2: `source`: `complete.marker` stands in the folder of one delivery: leave out {batch}"
            ],
            id="a marker with a key in a folder with a key",
        ),
        pytest.param(
            changed("{batch}/*.csv", "{batch}.csv\n  complete: {marker: _SUCCESS}"),
            [
                "2: `source`: `complete.marker` must name the partition once by {batch}, without wild"
            ],
            id="a marker of all deliveries",
        ),
        pytest.param(
            changed("{batch}/*.csv", "{batch}.csv\n  complete: manifest"),
            ["2: `source`: `complete: manifest` takes a folder for each delivery, with {batch} in"],
            id="a manifest of all deliveries",
        ),
        pytest.param(
            changed("*.csv", "*.csv\n  gather: {files: 10}"),
            [
                "3: `source.path`: must not contain {batch}: with `gather` batches get keys of their own"
            ],
            id="gathered and named",
        ),
        pytest.param(
            changed("{batch}/*.csv", "*.csv\n  gather: {files: 10}\n  complete: manifest"),
            ["2: `source`: `gather` is for files of a `path`, which are complete once they have"],
            id="gathered with a manifest",
        ),
        pytest.param(
            TWO_TABLES.replace("{batch}/*", "*\n  gather: {files: 10}"),
            [
                "1: `the file`: `source.gather` is for one table that is written, or for lines that say"
            ],
            id="gathered for two tables",
        ),
    ],
)
def test_what_is_wrong_is_said_with_file_line_and_remedy(
    written: Callable[[str], Path], text: str, lines: list[str]
) -> None:
    path = written(text)
    with pytest.raises(FeedError) as error:
        load_feed(path)
    found = str(error.value).splitlines()
    assert len(found) == len(lines)
    for line, expected in zip(found, lines, strict=True):
        assert line.startswith(f"{path}:{expected}")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("landing/*.csv", "must contain {batch} exactly once"),
        ("", "must contain {batch} exactly once"),
        ("landing/{batch}/{batch}.csv", "must contain {batch} exactly once"),
        ("../landing/{batch}/*.csv", "must not contain '..'"),
        ("landing/{batch}*.csv", "must not have wildcards in '{batch}*.csv'"),
        ("landing/x?-{batch}/a.csv", "must not have wildcards in 'x?-{batch}'"),
        ("landing/*/{batch}/a.csv", "must not have wildcards in '*'"),
        ("landing/{batch}/[ab]/a.csv", "must not have wildcards in '[ab]'"),
        ("landing/**/{batch}/a.csv", "must not contain '**'"),
        ("landing/{batch}/**.csv", "must not contain '**'"),
        ("landing/{batch}/", "must end with the names of files"),
        ("file:///landing/{batch}/*.csv", "must be a path or begin with s3://, not file://"),
        ("gs://bucket/{batch}/*.csv", "must be a path or begin with s3://, not gs://"),
        ("S3://bucket/{batch}/*.csv", "must be a path or begin with s3://, not S3://"),
        ("s3://bucket", "must name the bucket alone behind s3://"),
        ("s3://{batch}/*.csv", "must name the bucket alone behind s3://"),
        ("s3://bu*/{batch}/*.csv", "must name the bucket alone behind s3://"),
        ("s3://bucket/{batch}/", "must end with the names of files"),
        ("s3://bucket//{batch}/*.csv", "must not contain '//'"),
        ("s3://bucket/./{batch}/*.csv", "must not contain '//' or '/./'"),
        ("s3://bucket/../{batch}/*.csv", "must not contain '..'"),
        ("s3://bucket/{batch}/**/*.csv", "must not contain '**'"),
        ("s3://bucket/x*/{batch}/*.csv", "must not have wildcards in 'x*'"),
    ],
)
def test_paths_that_could_not_lead_to_one_delivery_are_refused(
    written: Callable[[str], Path], path: str, reason: str
) -> None:
    with pytest.raises(FeedError) as error:
        load_feed(written(changed("landing/flights/{batch}/*.csv", f"'{path}'")))
    assert f":3: `source.path`: {reason}" in str(error.value)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("strategy: zip", "compress"),
        ("strategy: copy, level: 3", "`level` goes with `strategy: compress` alone"),
        ("level: 20", "less than or equal to 19"),
        ("to: 'file:///bags'", "must be a folder or begin with s3://, not file://"),
        ("to: 's3://key:secret@b/bags'", "must name the bucket behind s3://"),
        ("to: 's3://bucket//bags'", "must name the bucket behind s3://"),
        ("too: bags", "`archive.too` is not known; "),
    ],
)
def test_what_cannot_be_archived_so_is_refused(
    written: Callable[[str], Path], said: str, reason: str
) -> None:
    with pytest.raises(FeedError) as error:
        load_feed(written(SMALLEST + f"archive: {{{said}}}\n"))
    assert reason in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param(SMALLEST + "owners: &all [*all]\n", 6, id="a list"),
        pytest.param(changed("source:", "source: &all\n  more: *all"), 2, id="a mapping"),
        pytest.param("&all\nfeed: [a, *all]\n", 1, id="the file"),
    ],
)
def test_an_alias_of_what_it_stands_in_is_refused(
    written: Callable[[str], Path], text: str, line: int
) -> None:
    path = written(text)
    with pytest.raises(FeedError) as error:
        load_feed(path)
    assert str(error.value) == (
        f"{path}:{line}: what begins here holds an alias of itself; write the value out in its place."
    )


def test_an_alias_of_something_else_is_fine(written: Callable[[str], Path]) -> None:
    text = "description: &name flights\n" + changed("feed: flights", "feed: *name")
    assert load_feed(written(text)).feed == "flights"


def test_aliases_of_aliases_are_looked_at_once(written: Callable[[str], Path]) -> None:
    """Given a few lines that would be a thousand million when written out, they are refused soon."""
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{f'*a{n - 1}, ' * 10}]" for n in range(1, 10)]
    with pytest.raises(FeedError, match=r"feed\.yaml: stands for more than 100,000 values"):
        load_feed(written("\n".join(lines)))


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "feed.yaml"
    path.write_bytes(b"feed: \xff\n")
    with pytest.raises(FeedError, match=r"feed\.yaml: cannot be read as UTF-8 text"):
        load_feed(path)
    with pytest.raises(FeedError, match=r"none\.yaml: cannot be read"):
        load_feed(tmp_path / "none.yaml")


# All files of a folder


def test_feeds_come_by_name_and_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "z.yaml").write_text(SMALLEST)
    (tmp_path / "a.yml").write_text(TWO_TABLES)
    (tmp_path / "README.md").write_text("no feed")
    assert list(load_feeds(tmp_path)) == ["flights", "reference"]


def test_a_feed_is_not_named_like_a_job_that_is_there_already(tmp_path: Path) -> None:
    for name in ("flights", "flights_replay", "rollback", "hotel_replay"):
        (tmp_path / f"{name}.yaml").write_text(changed("feed: flights", f"feed: {name}"))
    with pytest.raises(FeedError) as error:
        load_feeds(tmp_path)
    assert str(error.value).splitlines() == [
        f"{tmp_path}/{name}.yaml:1: a feed cannot be named {name}: Dagster has another job of that "
        "name. Rename the feed."
        for name in ("flights_replay", "rollback")
    ]


def test_the_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SMALLEST)
    (tmp_path / "b.yaml").write_text(SMALLEST)
    (tmp_path / "c.yaml").write_text("feed: x\n")
    (tmp_path / "d.yaml").write_text("feed: [\n")
    with pytest.raises(FeedError) as error:
        load_feeds(tmp_path)
    message = str(error.value)
    assert f"{tmp_path}/b.yaml:1: feed flights stands in a.yaml too; rename one." in message
    assert f"{tmp_path}/c.yaml:1: `source` is missing; add it." in message
    assert f"{tmp_path}/d.yaml:2: expected the node content" in message


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=r"none: no such folder\. Set BATCH_PIPELINES_FEEDS"):
        load_feeds(tmp_path / "none")


def test_a_feed_is_found_by_name_or_the_nearest_is_suggested() -> None:
    feeds = {"flights": feed_of({"public.flights": "*"})}
    assert find_feed(feeds, "flights") is feeds["flights"]
    with pytest.raises(FeedError, match=r"no feed flihgts\. Did you mean flights\?"):
        find_feed(feeds, "flihgts")
    with pytest.raises(FeedError, match=r"no feed weather\. There are: flights\."):
        find_feed(feeds, "weather")
    with pytest.raises(FeedError, match=r"There are: none\."):
        find_feed({}, "flights")


# Files and tables


def test_each_file_fills_the_table_whose_pattern_it_matches(
    written: Callable[[str], Path],
) -> None:
    feed = load_feed(written(TWO_TABLES))
    assert feed.table_of("airlines_1.csv").table == "public.airlines"
    assert feed.table_of("airports.parquet").table == "public.airports"
    with pytest.raises(DeliveryError, match=r"planes\.csv: its name matches no table"):
        feed.table_of("planes.csv")
    with pytest.raises(DeliveryError, match=r"AIRLINES\.csv: its name matches no table"):
        feed.table_of("AIRLINES.csv")


def test_a_file_that_matches_two_tables_fills_none(written: Callable[[str], Path]) -> None:
    feed = load_feed(written(TWO_TABLES.replace("airlines*", "air*")))
    with pytest.raises(
        DeliveryError, match=r"airports\.csv: .* public\.airlines and public\.airports"
    ):
        feed.table_of("airports.csv")


def test_a_url_that_holds_credentials_is_refused_and_not_repeated(
    written: Callable[[str], Path],
) -> None:
    path = "s3://AKIASECRET:hidden@bucket/{batch}/*.csv"
    with pytest.raises(FeedError, match="credentials, endpoint and region come from") as error:
        load_feed(written(changed("landing/flights/{batch}/*.csv", f"'{path}'")))
    assert "AKIASECRET" not in str(error.value)
    assert "hidden" not in str(error.value)


# Partition keys

KEYS = st.from_regex(PARTITION_KEY, fullmatch=True).filter(lambda key: ".." not in key)
PATHS = st.sampled_from(
    [
        "landing/{batch}/*.csv",
        "landing/{batch}/part-?.csv",
        "landing/{batch}.csv",
        "landing/day={batch}/x/data.csv",
        "landing/a-{batch}-b/*",
        "/absolute/{batch}/*.csv",
        "s3://bucket/landing/{batch}/*.csv",
        "s3://bucket/{batch}.csv",
    ]
)


def key_of(feed: Feed, path: str) -> str | None:
    match = feed.source.key_pattern().match(path)
    return match[1] if match and is_key(match[1]) else None


@given(key=KEYS, path=PATHS)
def test_the_key_of_a_file_is_the_key_whose_pattern_it_matches(key: str, path: str) -> None:
    feed = feed_of({"public.t": "*"}, source={"path": path})
    pattern = feed.pattern(check_key(key), ROOT)
    assert pattern.startswith("s3://bucket/" if path.startswith("s3://") else "/")
    parts = [part.replace("{batch}", key) for part in feed.source.parts]
    assert pattern.endswith("/".join(parts))
    file = "/".join([*parts[:-1], parts[-1].replace("*", "some").replace("?", "1")])
    assert key_of(feed, file) == key
    assert key_of(feed, f"{file}/deeper") is None
    assert key_of(feed, f"/{file}") is None
    assert key_of(feed, "/".join(parts[:-1])) is None


BAD_CHARACTERS = st.sampled_from(list("\n\r\t\0 ,;:/\\'\"*?[]{}()<>|&$#@!%^~`é中٣"))
BAD_KEYS = (
    st.sampled_from(["", ".", "..", "...", "a..b", "-a", "_a", "=a", "+a", "a\n", "x" * 101])
    | st.builds("{}{}{}".format, st.text("abc1", max_size=5), BAD_CHARACTERS, st.text("abc1"))
    | st.builds("{}..{}".format, KEYS, KEYS)
    | st.builds("../{}".format, KEYS)
)


@given(key=BAD_KEYS)
def test_what_is_no_partition_key_is_refused(key: str) -> None:
    """A key is a folder's name, a word of a command line and a part of a path: nothing else."""
    with pytest.raises(DeliveryError, match="is not a partition key: expected 1 to 100 letters"):
        check_key(key)


@given(key=BAD_KEYS)
def test_a_folder_whose_name_is_no_key_is_passed_over(key: str) -> None:
    assume("/" not in key and "\0" not in key)
    feed = feed_of({"public.t": "*"})
    assert key_of(feed, f"landing/{key}/a.csv") is None


# For editors


def test_the_json_schema_tells_an_editor_what_may_stand_in_a_feed() -> None:
    schema = json.loads(json.dumps(Feed.model_json_schema()))
    assert schema["required"] == ["feed", "source", "tables"]
    parts = [schema, *schema["$defs"].values()]
    assert not any(part["additionalProperties"] for part in parts)
    for part in parts:
        for name, said in part["properties"].items():
            assert said.get("description") or "$ref" in said, name
    assert schema["properties"]["identity"]["enum"] == ["partition", "feed"]
    assert schema["properties"]["tables"]["anyOf"][0]["minItems"] == 1


CRITICAL = (
    SMALLEST
    + """\
    critical_when:
      - {name: late, range: {column: dep_delay, min: 1440}}
critical: {channels: duty, escalate_after: 15m}
"""
)


def test_who_is_told_of_what_is_critical(written: Callable[[str], Path]) -> None:
    feed = load_feed(written(CRITICAL))
    assert feed.has_critical
    assert (feed.critical.channels, feed.critical.escalates_after, feed.critical.told_singly) == (
        ("duty",), dt.timedelta(minutes=15), 20
    )  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("range: {column: dep_delay, min: 1440}", "unique: [dep_delay]", "unique"),
        (
            "15m",
            "soon",
            "a duration is a number of seconds, minutes, hours or days: 30s, 15m, 24h, 7d",
        ),
        ("duty", "duty, told_singly: 0", "greater than or equal to 1"),
        ("critical_when", "rules", "`critical` needs a `critical_when`"),
    ],
)
def test_what_is_critical_is_checked(
    written: Callable[[str], Path], old: str, new: str, why: str
) -> None:
    with pytest.raises(FeedError, match=why):
        load_feed(written(CRITICAL.replace(old, new)))


def test_what_applies_to_its_data_is_said_in_words(written: Callable[[str], Path]) -> None:
    assert load_feed(written(SMALLEST)).compliance.context == {}
    said = "compliance: {regulation: CLIA, data_classification: PHI, accreditation: CAP}\n"
    assert load_feed(written(SMALLEST + said)).compliance.context == {
        "regulation": ["CLIA"],
        "data_classification": "PHI",
        "accreditation": "CAP",
    }
    several = load_feed(written(SMALLEST + "compliance: {regulation: [HIPAA, 21 CFR 11]}\n"))
    assert several.compliance.regulation == ("HIPAA", "21 CFR 11")


@pytest.mark.parametrize(
    "said", ["regulation: [CLIA, clia]", 'regulation: "a\\nb"', "accreditation: ''", "law: GDPR"]
)
def test_what_is_no_word_of_compliance_is_refused(
    said: str, written: Callable[[str], Path]
) -> None:
    with pytest.raises(FeedError, match="compliance"):
        load_feed(written(SMALLEST + f"compliance: {{{said}}}\n"))
