"""Row digests equal PostgreSQL's, for every type, and see what sums alone would not."""

from __future__ import annotations

import struct
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import crc32c
import numpy as np
import pgpq
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from batch_pipelines.engine.digests import RowDigest, crc, row_crc32c
from batch_pipelines.engine.digests import sql as digest_sql
from batch_pipelines.engine.wire_types import WireType, wire_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import psycopg

pytestmark = pytest.mark.versions


def listed(oid: int, typmod: int = -1) -> WireType:
    found = wire_type(oid, typmod)
    assert found is not None
    return found


def numeric(precision: int, scale: int) -> WireType:
    return listed(1700, (precision << 16 | scale & 0x7FF) + 4)


BOOL, BYTEA, TEXT, VARCHAR, UUID = (listed(oid) for oid in (16, 17, 25, 1043, 2950))
INT2, INT4, INT8, FLOAT4, FLOAT8 = (listed(oid) for oid in (21, 23, 20, 700, 701))
DATE, TIME, TIMESTAMP, TIMESTAMPTZ = (listed(oid) for oid in (1082, 1083, 1114, 1184))

DAYS_TO_2000 = 10_957
MICROSECONDS_TO_2000 = 946_684_800_000_000
A_DAY = 86_400_000_000


# The obvious encoder: one value after the other, by the protocol's description.


def send_numeric(scale: int, value: Decimal) -> bytes:
    whole, _, fraction = f"{value.copy_abs():.{scale}f}".partition(".")
    whole = whole.zfill(-(-len(whole) // 4) * 4)
    fraction = fraction.ljust(-(-len(fraction) // 4) * 4, "0")
    digits = [
        int((whole + fraction)[place : place + 4]) for place in range(0, len(whole + fraction), 4)
    ]
    weight = len(whole) // 4 - 1
    while digits and digits[0] == 0:
        del digits[0]
        weight -= 1
    while digits and digits[-1] == 0:
        del digits[-1]
    head = (len(digits), weight if digits else 0, 0x4000 if value < 0 else 0, scale)
    return struct.pack(f">hhHh{len(digits)}h", *head, *digits)


SENDERS: dict[int, Callable[[Any], bytes]] = {
    16: partial(struct.pack, ">?"),
    17: bytes,
    20: partial(struct.pack, ">q"),
    21: partial(struct.pack, ">h"),
    23: partial(struct.pack, ">i"),
    25: str.encode,
    700: partial(struct.pack, ">f"),
    701: partial(struct.pack, ">d"),
    1043: str.encode,
    1082: lambda days: struct.pack(">i", days - DAYS_TO_2000),
    1083: partial(struct.pack, ">q"),
    1114: lambda microseconds: struct.pack(">q", microseconds - MICROSECONDS_TO_2000),
    1184: lambda microseconds: struct.pack(">q", microseconds - MICROSECONDS_TO_2000),
    2950: bytes,
}


def sender_of(wire: WireType) -> Callable[[Any], bytes]:
    return partial(send_numeric, wire.arrow.scale) if wire.oid == 1700 else SENDERS[wire.oid]


def record_send(types: Sequence[WireType], row: Sequence[Any]) -> bytes:
    sent = struct.pack(">i", len(types))
    for each, value in zip(types, row, strict=True):
        if value is None:
            sent += struct.pack(">ii", each.oid, -1)
            continue
        data = sender_of(each)(value)
        sent += struct.pack(">ii", each.oid, len(data)) + data
    return sent


def expected(types: Sequence[WireType], rows: Sequence[Sequence[Any]]) -> list[int]:
    return [crc32c.crc32c(record_send(types, row)) for row in rows]


def columns_of(types: Sequence[WireType], rows: Sequence[Sequence[Any]]) -> list[pa.Array]:
    values = zip(*rows, strict=True) if rows else [[] for _ in types]
    return [pa.array(list(each), listed.arrow) for each, listed in zip(values, types, strict=True)]


# Values: many near each other, some at the limits of the type in PostgreSQL and Arrow.


def integers(bits: int) -> st.SearchStrategy[int]:
    limit = 1 << bits - 1
    return (
        st.integers(-3, 3) | st.integers(-limit, limit - 1) | st.sampled_from([-limit, limit - 1])
    )


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    limit = 10**precision - 1
    unscaled = st.integers(-limit, limit) | st.sampled_from(
        [0, 1, -1, limit, -limit, 10 ** (precision // 2), 10 ** (precision - 1)]
    )
    return unscaled.map(lambda value: Decimal(f"{value}E-{scale}"))


LONG = ["long " * 13, "Ω" * 33, "é" + "x" * 4096]
TEXTS = st.text("aZ0 \x7fäß€中😀\u0301", max_size=40) | st.sampled_from(["", "AA", "N14228", *LONG])
# PostgreSQL begins on 4714-11-24 BC; Arrow's microseconds, from 1970, end in the year 294247.
FIRST_INSTANT, LAST_INSTANT = -210_866_803_200_000_000, 9_223_371_331_199_999_999
INSTANTS = st.integers(FIRST_INSTANT, LAST_INSTANT) | st.integers(
    MICROSECONDS_TO_2000 - 5, MICROSECONDS_TO_2000 + 5
)
VALUES: dict[WireType, st.SearchStrategy[Any]] = {
    BOOL: st.booleans(),
    BYTEA: st.binary(max_size=20) | st.sampled_from([b"", bytes(64), bytes(65)]),
    INT8: integers(64),
    INT2: integers(16),
    INT4: integers(32),
    TEXT: TEXTS,
    FLOAT4: st.floats(width=32),
    FLOAT8: st.floats(),
    VARCHAR: TEXTS,
    DATE: st.integers(-2_440_588, 2_145_031_948) | st.integers(DAYS_TO_2000 - 5, DAYS_TO_2000 + 5),
    TIME: st.integers(0, A_DAY - 1) | st.integers(0, 5),
    TIMESTAMP: INSTANTS,
    TIMESTAMPTZ: INSTANTS,
    UUID: st.binary(min_size=16, max_size=16),
    **{
        numeric(*modifier): decimals(*modifier)
        for modifier in ((1, 0), (4, 4), (10, 2), (18, 17), (19, 0), (38, 0), (38, 19), (38, 38))
    },
}


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[WireType], list[tuple[Any, ...]]]:
    types = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=6))
    row = st.tuples(*(st.none() | VALUES[each] | VALUES[each] for each in types))
    return types, draw(st.lists(row, max_size=50))


# CRC32C

ISCSI_READ = bytes.fromhex(
    "01c000000000000000000000000000001400000000000400"
    "000000140000001828000000000000000200000000000000"
)


@pytest.mark.parametrize(
    ("message", "known"),
    [
        pytest.param(b"123456789", 0xE3069283, id="the check value"),
        pytest.param(bytes(32), 0x8A9136AA, id="RFC 3720 B.4: zeros"),
        pytest.param(b"\xff" * 32, 0x62A8AB43, id="RFC 3720 B.4: ones"),
        pytest.param(bytes(range(32)), 0x46DD794E, id="RFC 3720 B.4: ascending"),
        pytest.param(bytes(reversed(range(32))), 0x113FDB5C, id="RFC 3720 B.4: descending"),
        pytest.param(ISCSI_READ, 0xD9963A56, id="RFC 3720 B.4: iSCSI read"),
    ],
)
def test_known_answers_of_crc32c(message: bytes, known: int) -> None:
    assert crc.state_of(message, crc.ALL_ONES) ^ crc.ALL_ONES == known
    # The same bytes as integers in tables, which know nothing of the crc32c package.
    words = [message[max(end - 8, 0) : end] for end in range(len(message), 0, -8)]
    states = crc.shift(np.array([crc.ALL_ONES], np.uint32), len(message))
    for place, word in enumerate(words):
        value = np.frombuffer(word.rjust(8, b"\0"), ">i8").astype(np.int64)
        crc.add_integers(states, value, 8 * place)
    assert states[0] ^ crc.ALL_ONES == known


@given(
    states=st.lists(st.integers(0, crc.ALL_ONES), min_size=1, max_size=20),
    amount=st.integers(0, 3000),
)
def test_shifting_adds_zero_bytes_and_takes_them_away_again(states: list[int], amount: int) -> None:
    array = np.array(states, np.uint32)
    moved = crc.shift(array, amount)
    assert moved.tolist() == [crc.state_of(bytes(amount), state) for state in states]
    assert crc.shift(moved, -amount).tolist() == states


@given(first=st.binary(max_size=40), second=st.binary(max_size=40))
def test_the_checksums_of_two_messages_give_that_of_both(first: bytes, second: bytes) -> None:
    parts = crc32c.crc32c(first), crc32c.crc32c(second)
    assert crc.joined(*parts, len(second)) == crc32c.crc32c(first + second)


@given(pairs=st.lists(st.tuples(st.integers(0, crc.ALL_ONES), st.integers(-900, 900)), max_size=20))
def test_shifting_each_state_by_its_own_amount(pairs: list[tuple[int, int]]) -> None:
    states = np.array([state for state, _ in pairs], np.uint32)
    amounts = np.array([amount for _, amount in pairs], np.int32)
    one_by_one = [
        int(crc.shift(states[place : place + 1], int(amount))[0])
        for place, amount in enumerate(amounts)
    ]
    assert crc.shift_each(states, amounts).tolist() == one_by_one


# Rows


def test_known_answer_of_postgresql() -> None:
    """Given a row whose digest PostgreSQL 18.4 told us, when it is computed here, it is the same.

    SELECT to_hex(crc32c(record_send(ROW(2013::int2, 'Ωmega'::text, NULL::int4,
    12.50::numeric(10,2), true, '2013-01-01 05:00+00'::timestamptz)))).
    """
    types = [INT2, TEXT, INT4, numeric(10, 2), BOOL, TIMESTAMPTZ]
    row = (2013, "Ωmega", None, Decimal("12.50"), True, 1_357_016_400_000_000)
    assert row_crc32c(types, columns_of(types, [row])).tolist() == [0x6412E285]


@given(batch=batches(), before=st.integers(0, 9), after=st.integers(0, 9))
def test_rows_of_every_type_equal_the_obvious_encoder(
    batch: tuple[list[WireType], list[tuple[Any, ...]]], before: int, after: int
) -> None:
    types, rows = batch
    around = rows[:1] * before, rows[-1:] * after
    columns = columns_of(types, [*around[0], *rows, *around[1]])
    slices = [column.slice(len(around[0]), len(rows)) for column in columns]
    digests = row_crc32c(types, slices)
    assert digests.dtype == np.uint32
    assert digests.tolist() == expected(types, rows)


def test_large_batches_equal_the_obvious_encoder() -> None:
    """Given more rows than a block, with values near, far, repeated and NULL, then all agree."""
    random = np.random.default_rng(20_130_101)

    def row(number: int) -> dict[str, tuple[WireType, Any]]:
        return {
            "near, some NULL": (INT4, None if number % 7 == 0 else number % 1900 - 60),
            "always the same": (INT2, 2013),
            "far": (INT8, int(random.integers(-(2**62), 2**62))),
            "equally long": (TEXT, "AA"),
            "short": (TEXT, None if number % 11 == 0 else f"N{number % 5000}"),
            "long, few": (TEXT, f"one of a few, but long {number % 3} " * 3),
            "long, many": (VARCHAR, f"always another one and long {number} " * 2),
            "amount": (numeric(12, 3), Decimal(number % 3000) / 8),
            "hour": (TIMESTAMPTZ, 1_357_016_400_000_000 + number // 10 * 3_600_000_000),
            "day": (DATE, 15_706 + number // 900),
            "a block of NULL": (BOOL, None if number < 20_000 else number % 2 == 0),
            "two words": (UUID, random.bytes(16)),
        }

    batch = [row(number).values() for number in range(40_000)]
    types = [each for each, _ in batch[0]]
    rows = [[value for _, value in row] for row in batch]
    assert row_crc32c(types, columns_of(types, rows)).tolist() == expected(types, rows)


def test_bytes_under_a_null_do_not_count() -> None:
    """Given a NULL that still has bytes in Arrow's memory, when digested, it is like any NULL."""
    validity, offsets = pa.py_buffer(b"\x05"), pa.py_buffer(np.array([0, 2, 4, 6], np.int32))
    text = pa.Array.from_buffers(pa.string(), 3, [validity, offsets, pa.py_buffer(b"AAXXBB")])
    number = pa.Array.from_buffers(
        pa.int32(), 3, [validity, pa.py_buffer(np.array([1, 99_999, 2], np.int32))]
    )
    amount = pa.Array.from_buffers(
        pa.decimal128(4, 2), 3, [validity, pa.py_buffer(np.array([[150, 0], [-1, 7], [1, 0]]))]
    )
    types = [TEXT, INT4, numeric(4, 2)]
    rows = [("AA", 1, Decimal("1.50")), (None, None, None), ("BB", 2, Decimal("0.01"))]
    assert row_crc32c(types, [text, number, amount]).tolist() == expected(types, rows)


@pytest.mark.parametrize(
    ("types", "columns", "error", "message"),
    [
        pytest.param([], [], ValueError, "at least one column", id="no column"),
        pytest.param([INT4], [], ValueError, "each of 1 types, found 0", id="a column missing"),
        pytest.param(
            [INT4],
            [pa.array([1])],
            TypeError,
            "array of int32, found .* of int64",
            id="another type",
        ),
        pytest.param(
            [INT8], [pa.chunked_array([[1]])], TypeError, "found ChunkedArray", id="chunks"
        ),
        pytest.param(
            [INT8, INT8],
            [pa.array([1]), pa.array([1, 2])],
            ValueError,
            "Column 2 has 2 rows where the first has 1",
            id="different lengths",
        ),
    ],
)
def test_columns_that_do_not_fit_are_refused(
    types: list[WireType], columns: list[Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        row_crc32c(types, columns)


# Sums


@given(
    crcs=st.lists(st.integers(0, crc.ALL_ONES) | st.sampled_from([0, crc.ALL_ONES]), max_size=50)
)
def test_sums_are_exact_and_add_up(crcs: list[int]) -> None:
    digest = RowDigest.of(np.array(crcs, np.uint32))
    assert digest == RowDigest(len(crcs), sum(crcs), sum((each - 2**31) ** 2 for each in crcs))
    parts = (RowDigest.of(np.array(part, np.uint32)) for part in (crcs[:7], crcs[7:]))
    assert sum(parts, RowDigest.zero()) == digest


def test_sums_do_not_overflow() -> None:
    rows = 1 << 20
    assert RowDigest.of(np.zeros(rows, np.uint32)) == RowDigest(rows, 0, rows << 62)


def test_the_moment_sees_an_exchange_that_the_sum_does_not() -> None:
    """Given two rows, when they exchange a field of equal width, the digest changes.

    The rows were found by trying: about one such exchange in ten thousand leaves the sum the same.
    """
    types = [INT4, INT4]
    one, other = (8222, 1446), (40, 2253)

    def digest(*rows: tuple[int, int]) -> RowDigest:
        return RowDigest.of(row_crc32c(types, columns_of(types, rows)))

    right = digest(one, other)
    exchanged = digest((one[0], other[1]), (other[0], one[1]))
    assert exchanged.total == right.total
    assert exchanged.moment != right.moment


def test_equal_rows_do_not_cancel() -> None:
    twice = RowDigest.of(row_crc32c([TEXT], [pa.array(["same", "same"])]))
    four_times = RowDigest.of(row_crc32c([TEXT], [pa.array(["same"] * 4)]))
    assert four_times == twice + twice
    assert twice != RowDigest.zero()


# Types


@pytest.mark.parametrize(
    ("oid", "typmod"),
    [
        pytest.param(1700, -1, id="numeric without precision"),
        pytest.param(1700, (39 << 16 | 2) + 4, id="numeric(39,2)"),
        pytest.param(1700, (5 << 16 | -2 & 0x7FF) + 4, id="numeric(5,-2)"),
        pytest.param(1700, (3 << 16 | 5) + 4, id="numeric(3,5)"),
        pytest.param(1042, 14, id="char(10)"),
        pytest.param(114, -1, id="json"),
        pytest.param(3802, -1, id="jsonb"),
        pytest.param(1186, -1, id="interval"),
        pytest.param(1266, -1, id="time with time zone"),
        pytest.param(1007, -1, id="integer[]"),
        pytest.param(16_385, -1, id="a user's own"),
    ],
)
def test_types_outside_the_list_load_as_text(oid: int, typmod: int) -> None:
    assert wire_type(oid, typmod) is None


@pytest.mark.parametrize(("precision", "scale"), [(1, 0), (10, 2), (38, 38)])
def test_numeric_comes_as_a_decimal_of_its_precision(precision: int, scale: int) -> None:
    found = numeric(precision, scale)
    assert found.arrow == pa.decimal128(precision, scale)
    assert found.name == f"numeric({precision},{scale})"


def test_a_length_does_not_change_a_text() -> None:
    assert wire_type(1043, 14) == VARCHAR


# PostgreSQL

TABLE = sql.Identifier("digested")
COLUMNS = [f"100% {each.name}" for each in VALUES]  # names that need quotes, with a percent sign
INT8_COLUMN = COLUMNS[list(VALUES).index(INT8)]
THIS_BATCH = sql.SQL("batch = {}").format(sql.Literal("this one"))
EXTREMES: dict[int, Sequence[Any]] = {
    16: (True, False),
    17: (b"", b"\x00\xff" * 50),
    20: (-(2**63), 2**63 - 1),
    21: (-(2**15), 2**15 - 1),
    23: (-(2**31), 2**31 - 1),
    25: ("", "Ωmega 😀" * 20),
    700: (float("-inf"), -0.0),
    701: (float("nan"), 5e-324),
    1043: ("a", "é"),
    1082: (-2_440_588, 2_145_031_948),
    1083: (0, A_DAY),
    1114: (FIRST_INSTANT, LAST_INSTANT),
    1184: (FIRST_INSTANT, LAST_INSTANT),
    2950: (bytes(16), b"\xff" * 16),
}


def extremes(of: WireType) -> Sequence[Any]:
    if of.oid != 1700:
        return EXTREMES[of.oid]
    limit = 10**of.arrow.precision - 1
    return tuple(Decimal(f"{value}E-{of.arrow.scale}") for value in (limit, -limit, 0, 1))


def rows_at_the_limits() -> list[tuple[Any, ...]]:
    choices = {each: [None, *extremes(each)] for each in VALUES}
    return [
        tuple(
            choices[each][(number + place) % len(choices[each])]
            for place, each in enumerate(VALUES)
        )
        for number in range(60)
    ]


@pytest.fixture(params=["as the server does it", "read back, as before PostgreSQL 18"])
def connected(
    request: pytest.FixtureRequest, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[psycopg.Connection[Any]]:
    """A connection with an empty table that has a column of every type, and one for the batch."""
    if request.param.startswith("read back"):
        monkeypatch.setattr(digest_sql, "HAS_CRC32C", 10**9)
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(each.name))
        for name, each in zip(COLUMNS, VALUES, strict=True)
    )
    db.execute(sql.SQL("CREATE TEMPORARY TABLE {} ({}, batch text)").format(TABLE, columns))
    yield db
    db.execute(sql.SQL("DROP TABLE {}").format(TABLE))


def copy_in(connection: psycopg.Connection[Any], batch: str, columns: Sequence[pa.Array]) -> None:
    data = pa.record_batch([*columns, pa.array([batch] * len(columns[0]))], [*COLUMNS, "batch"])
    encoder = pgpq.ArrowToPostgresBinaryEncoder(data.schema)
    with (
        connection.cursor() as cursor,
        cursor.copy(sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(TABLE)) as copy,
    ):
        copy.write(encoder.write_header())
        copy.write(encoder.write_batch(data))
        copy.write(encoder.finish())


def test_the_table_has_the_digest_of_what_was_sent(connected: psycopg.Connection[Any]) -> None:
    """Given rows at the limits of every type, when a batch of them is copied in, digests agree."""
    types, rows = list(VALUES), rows_at_the_limits()
    columns = columns_of(types, rows)
    copy_in(connected, "this one", columns)
    copy_in(connected, "another", columns_of(types, rows[:5]))
    found = digest_sql.table_digest(connected, TABLE, COLUMNS, THIS_BATCH)
    assert found == RowDigest.of(row_crc32c(types, columns))


@pytest.mark.parametrize("place", range(len(VALUES)), ids=lambda place: list(VALUES)[place].name)
def test_a_single_column_is_a_row_too(connected: psycopg.Connection[Any], place: int) -> None:
    types = list(VALUES)
    columns = columns_of(types, rows_at_the_limits())
    copy_in(connected, "this one", columns)
    found = digest_sql.table_digest(connected, TABLE, [COLUMNS[place]], THIS_BATCH)
    assert found == RowDigest.of(row_crc32c([types[place]], [columns[place]]))


def test_a_changed_value_changes_the_table_digest(connected: psycopg.Connection[Any]) -> None:
    """Given a batch in the table, when a value is replaced there, the digests differ."""
    types = list(VALUES)
    columns = columns_of(types, rows_at_the_limits())
    copy_in(connected, "this one", columns)
    connected.execute(
        sql.SQL("UPDATE {table} SET {column} = -{column}").format(
            table=TABLE, column=sql.Identifier(COLUMNS[types.index(numeric(10, 2))])
        )
    )
    found = digest_sql.table_digest(connected, TABLE, COLUMNS, THIS_BATCH)
    sent = RowDigest.of(row_crc32c(types, columns))
    assert found.rows == sent.rows
    assert found != sent


def test_expressions_stand_for_types_outside_the_list(connected: psycopg.Connection[Any]) -> None:
    columns = columns_of(list(VALUES), rows_at_the_limits())
    copy_in(connected, "this one", columns)
    as_text = sql.SQL("{}::pg_catalog.text").format(sql.Identifier(INT8_COLUMN))
    found = digest_sql.table_digest(connected, TABLE, [as_text], THIS_BATCH)
    text = columns[list(VALUES).index(INT8)].cast(pa.string())
    assert found == RowDigest.of(row_crc32c([TEXT], [text]))


def test_the_server_sends_each_row_once(connected: psycopg.Connection[Any]) -> None:
    """Given a column that tells when it is read, when its rows are digested, it tells once each."""
    connected.execute(
        """
        CREATE FUNCTION pg_temp.telling(value bigint) RETURNS bigint STABLE LANGUAGE plpgsql
        AS $$ BEGIN RAISE NOTICE 'read'; RETURN value; END $$
        """
    )
    copy_in(connected, "this one", columns_of(list(VALUES), rows_at_the_limits()))
    told: list[str | None] = []
    connected.add_notice_handler(lambda notice: told.append(notice.message_primary))
    telling = sql.SQL("pg_temp.telling({})").format(sql.Identifier(INT8_COLUMN))
    found = digest_sql.table_digest(connected, TABLE, [telling], THIS_BATCH)
    connected.execute("DROP FUNCTION pg_temp.telling")
    assert told == ["read"] * found.rows


def test_no_rows_add_up_to_nothing(connected: psycopg.Connection[Any]) -> None:
    found = digest_sql.table_digest(connected, TABLE, COLUMNS, THIS_BATCH)
    assert found == RowDigest.zero()


def test_more_rows_than_are_read_back_at_once(
    connected: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_sql, "_READ_BACK_ROWS", 7)
    columns = columns_of(list(VALUES), rows_at_the_limits())
    copy_in(connected, "this one", columns)
    found = digest_sql.table_digest(connected, TABLE, COLUMNS, THIS_BATCH)
    assert found == RowDigest.of(row_crc32c(list(VALUES), columns))


def test_a_table_digest_without_columns_is_refused(connected: psycopg.Connection[Any]) -> None:
    with pytest.raises(ValueError, match="at least one column"):
        digest_sql.table_digest(connected, TABLE, [], THIS_BATCH)


def test_a_connection_that_converts_text_is_refused(connected: psycopg.Connection[Any]) -> None:
    connected.execute("SET client_encoding TO latin1")
    try:
        with pytest.raises(ValueError, match="converts text to iso8859-1"):
            digest_sql.table_digest(connected, TABLE, COLUMNS, THIS_BATCH)
    finally:
        connected.execute("RESET client_encoding")
