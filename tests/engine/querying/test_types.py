"""Every type of another database arrives exactly, or is refused with the column's name."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.querying.values import to_array
from tests.support_engine import new_id

if TYPE_CHECKING:
    from tests.engine.querying.conftest import MakeQuerySite, Other
    from tests.support_engine import Site

COLUMNS = """
    id bigint PRIMARY KEY, b boolean, i2 smallint, i4 integer, i8 bigint, n numeric, n2 numeric(14, 3),
    f4 real, f8 double precision, t text, v varchar(12), c char(5), by bytea, d date, ti time,
    ts timestamp, tz timestamptz, u uuid, j json, jb jsonb, ia integer[], ta text[], iv interval
"""
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
).map(json.dumps)
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False)
INSTANTS = st.datetimes()
ROW = st.tuples(
    *[
        st.none() | values
        for values in (
            st.booleans(),
            st.integers(-(2**15), 2**15 - 1),
            st.integers(-(2**31), 2**31 - 1),
            st.integers(-(2**63), 2**63 - 1),
            DECIMALS.filter(lambda d: abs(d.adjusted()) < 40),
            st.decimals(-(10**10), 10**10, places=3),
            st.floats(width=32),
            st.floats(),
            TEXT,
            TEXT,
            TEXT.map(lambda text: text[:5]),
            st.binary(max_size=9),
            st.dates(),
            st.times(),
            INSTANTS,
            INSTANTS.map(lambda t: t.replace(tzinfo=dt.UTC)),
            st.uuids(),
            JSON,
            JSON.filter(lambda text: "\\u0000" not in text),
            st.lists(st.integers(-9, 9), max_size=3),
            st.lists(TEXT, max_size=3),
            st.timedeltas(dt.timedelta(days=-9), dt.timedelta(days=9)),
        )
    ]
)
EXAMPLES = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture,
    ],
)  # fmt: skip


def test_every_type_of_postgresql_arrives_as_it_was(
    postgres: Other, query_site: MakeQuerySite
) -> None:
    postgres.sql(f"CREATE TABLE o ({COLUMNS})")
    site = query_site(
        f"CREATE TABLE t ({COLUMNS}, import_batch_id uuid)",
        {"table": "public.o", "key": ["id"], "rows": 3},
    )
    names = [line.split()[0] for line in COLUMNS.replace("(14, 3)", "").split(",")]
    seen = "SELECT " + ", ".join(f"{name}::text" for name in names) + " FROM {} ORDER BY id"

    @EXAMPLES
    @given(rows=st.lists(ROW, max_size=8))
    def check(rows: list[tuple[Any, ...]]) -> None:
        postgres.sql("TRUNCATE o")
        marks = ", ".join(["%s"] * len(names))
        with psycopg.connect(postgres.url) as connection, connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO o VALUES ({marks})".encode(),
                [(number, *row) for number, row in enumerate(rows)],
            )
        batch = site.run(new_id(), force=True)
        assert (batch.status, batch.rejected_records) == ("SUCCESS", 0)
        assert site.sql(seen.format("t")) == postgres.sql(seen.format("o"))
        site.sql("TRUNCATE t")

    check()


def read(site: Site) -> list[tuple[Any, ...]]:
    """Import the whole, which must all be right; return the rows."""
    batch = site.run(new_id())
    assert (batch.status, batch.rejected_records) == ("SUCCESS", 0)
    return [row[:-1] for row in site.sql("SELECT * FROM t ORDER BY 1")]


def test_what_has_no_place_in_a_type_is_set_aside_and_not_lost(
    postgres: Other, query_site: MakeQuerySite
) -> None:
    postgres.sql("CREATE TABLE o (id integer PRIMARY KEY, d date, n numeric)")
    postgres.sql(
        "INSERT INTO o VALUES (1, 'infinity', 1), (2, '0044-03-15 BC', 2), (3, '2024-02-29', 'NaN'), "
        "(4, '2024-02-29', 1e-30), (5, '2024-02-29', 12345678901234567890123456789012345.678)"
    )
    site = query_site(
        "CREATE TABLE t (id integer PRIMARY KEY, d date, n numeric(38, 3), import_batch_id uuid)",
        {"table": "o", "key": ["id"]},
        thresholds={},
    )
    batch = site.run("all")
    assert (batch.status, batch.rejected_records) == ("PARTIAL_SUCCESS", 4)
    assert [row[0] for row in site.sql("SELECT id FROM t")] == [5]
    kept = site.sql("SELECT raw FROM batch_audit.import_reject ORDER BY record_number")
    assert [json.loads(bytes(raw))["id"] for (raw,) in kept] == [1, 2, 3, 4]


@pytest.mark.parametrize("rows_of_a_range", [1, 3])
def test_a_column_of_sqlite_may_hold_a_type_a_row(
    sqlite: Other, query_site: MakeQuerySite, rows_of_a_range: int
) -> None:
    sqlite.sql(
        "CREATE TABLE o (id INTEGER PRIMARY KEY, v, big, d, f REAL, by BLOB, empty, yes BOOLEAN)"
    )
    rows = [
        (1, 1, 2**63 - 1, "2024-02-29", 0.1, b"\0x", None, 1),
        (2, 0.1, -(2**63), None, -0.0, b"", None, 0),
        (3, "x", None, "1999-12-31", 1e308, None, None, None),
    ]
    for row in rows:
        sqlite.sql("INSERT INTO o VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *row)
    site = query_site(
        "CREATE TABLE t (id integer PRIMARY KEY, v text, big bigint, d date, f double precision, "
        "by bytea, empty integer, yes boolean, import_batch_id uuid)",
        # What the rows of a column become must not depend on which are read together.
        {"table": "o", "key": ["id"], "rows": rows_of_a_range},
    )
    day, last = dt.date(2024, 2, 29), dt.date(1999, 12, 31)
    assert read(site) == [
        (1, "1", 2**63 - 1, day, 0.1, b"\0x", None, True),
        (2, "0.1", -(2**63), None, -0.0, b"", None, False),
        (3, "x", None, last, 1e308, None, None, None),
    ]


def test_a_column_that_cannot_be_kept_is_named(sqlite: Other, query_site: MakeQuerySite) -> None:
    sqlite.sql("CREATE TABLE o (id INTEGER PRIMARY KEY, v)")
    sqlite.sql("INSERT INTO o VALUES (1, 'secret'), (2, x'00')")
    site = query_site("CREATE TABLE t (id integer, v text)", {"table": "o", "key": ["id"]})
    with pytest.raises(
        DeliveryError, match="Column v has values of the kind bytes and str"
    ) as error:
        site.run("all")
    assert "secret" not in str(error.value)
    assert site.newest("all").status == "FAILED"


KINDS: list[st.SearchStrategy[Any]] = [
    st.booleans(), st.integers(), st.floats(), TEXT, st.binary(), st.dates(), st.times(), INSTANTS,
    INSTANTS.map(lambda instant: instant.replace(tzinfo=dt.UTC)),
]  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_values_are_kept_in_an_array(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    values = data.draw(st.lists(st.none() | kind, max_size=5))
    array = to_array(values, "v")
    back = array.to_pylist()
    if pa.types.is_string(array.type):
        back = [None if t is None else type(v)(t) for v, t in zip(values, back, strict=True)]
    # The repr tells -0.0 and nan; that of an instant names its zone.
    assert back == values or repr(back) == repr(values)


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([Decimal("1E+3"), None], ["1000", None]),
        ([Decimal("-0.000"), 7], ["-0.000", "7"]),
        ([2**63, 1], [str(2**63), "1"]),
        ([1, 0.1, "x"], ["1", "0.1", "x"]),
        ([uuid.UUID(int=5)], ["00000000-0000-0000-0000-000000000005"]),
        ([dt.time(1, 2, tzinfo=dt.UTC)], ["01:02:00+00:00"]),
    ],
)
def test_what_no_type_holds_is_written_out(values: list[Any], kept: list[str | None]) -> None:
    array = to_array(values, "v")
    assert (array.type, array.to_pylist()) == (pa.string(), kept)


def test_numbers_of_a_column_without_a_type_are_written_out() -> None:
    array = to_array([1, None], "v", untyped=True)
    assert (array.type, array.to_pylist()) == (pa.string(), ["1", None])
    assert to_array([b"x"], "v", untyped=True).type == pa.binary()


def test_a_real_is_the_real_that_it_was() -> None:
    assert to_array([1.1], "v", real=True).cast(pa.float64()).to_pylist() == [1.100000023841858]


@pytest.mark.parametrize(
    "values",
    [
        [True, 1],
        [b"x", "x"],
        [{}],
        [dt.timedelta(1)],
        [dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, tzinfo=dt.UTC)],  # noqa: DTZ001  # the point
        [dt.date(2024, 1, 1), dt.datetime(2024, 1, 1)],  # noqa: DTZ001
    ],
)
def test_what_cannot_be_kept_is_refused(values: list[Any]) -> None:
    with pytest.raises(DeliveryError, match=r"^Column v has .* Cast it to text in the SELECT\.$"):
        to_array(values, "v")
