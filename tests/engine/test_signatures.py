"""Signatures: what tells two of them apart, and what a difference means."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from batch_pipelines.engine.contract import Contract
from batch_pipelines.engine.signatures import (
    FeedSignature,
    SignedColumn,
    Terms,
    Version,
    compare,
    merged,
    refusal,
    signable,
)
from batch_pipelines.engine.type_families import is_harmless, sql_type
from tests.support_columns import column_of, table_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.signatures import Comparison

NAMES = st.text(max_size=4)
COLUMNS = st.builds(SignedColumn, NAMES, st.none() | NAMES, NAMES, NAMES)
SIGNATURES = st.lists(COLUMNS, max_size=5, unique_by=lambda column: column.target)
OTHERS = {"target": NAMES, "target_type": st.none() | NAMES, "name": NAMES, "type": NAMES}


@profile(max_examples=200)
@given(columns=SIGNATURES, data=st.data())
def test_the_hash_does_not_see_the_order_of_columns(
    columns: list[SignedColumn], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(columns))
    assert FeedSignature((*shuffled,)).hash == FeedSignature((*columns,)).hash
    assert FeedSignature((*shuffled,)) == FeedSignature((*columns,))


@profile(max_examples=300)
@given(one=SIGNATURES, other=SIGNATURES)
def test_the_hash_is_that_of_no_other_signature(
    one: list[SignedColumn], other: list[SignedColumn]
) -> None:
    same = FeedSignature((*one,)).hash == FeedSignature((*other,)).hash
    assert same == (set(one) == set(other))


@profile(max_examples=300)
@given(columns=SIGNATURES.filter(bool), data=st.data())
def test_the_hash_sees_every_change_of_a_column(
    columns: list[SignedColumn], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(columns) - 1))
    what = data.draw(st.sampled_from([*OTHERS, "gone"]))
    if what == "gone":
        others = columns[:place] + columns[place + 1 :]
    else:
        before = getattr(columns[place], what)
        to: Any = data.draw(OTHERS[what].filter(lambda value: value != before))
        changed = replace(columns[place], **{what: to})
        others = [*columns[:place], changed, *columns[place + 1 :]]
    assert FeedSignature((*others,)).hash != FeedSignature((*columns,)).hash


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (("int32", "bigint"), ("int64", "bigint")),
        (("int64", "bigint"), ("int32", "bigint")),
        (("int64", "integer"), ("int16", "integer")),
        (("int32", "numeric(12,2)"), ("decimal128(12, 2)", "numeric(12,2)")),
        (("decimal128(5, 2)", "numeric"), ("decimal128(38, 2)", "numeric")),
        (("uint8", "smallint"), ("int16", "smallint")),
        (("float", "double precision"), ("double", "double precision")),
        (("null", "date"), ("date32[day]", "date")),
        (("date32[day]", "date"), ("null", "date")),
        (("timestamp[ms]", "timestamp without time zone"),
         ("timestamp[us]", "timestamp without time zone")),
        (("timestamp[us, tz=UTC]", "timestamp with time zone"),
         ("timestamp[ms, tz=Europe/Berlin]", "timestamp with time zone")),
        (("time32[s]", "time(3) without time zone"), ("time32[ms]", "time(3) without time zone")),
        (("int64", "bigint"), ("int32 | int64", "bigint")),
        (("int32 | int64", "integer"), ("int64", "integer")),
        (("text", "integer"), ("text", "bigint")),
        (("text", "character varying(5)"), ("text", "character varying(9)")),
        (("text", "character varying(5)"), ("text", "text")),
        (("text", "numeric(10,2)"), ("text", "numeric(12,2)")),
        (("text", "bigint"), ("int64", "bigint")),
        (("int64", "bigint"), ("text", "bigint")),
        (("int64", "bigint"), ("int64", "numeric(20,0)")),
    ],
)  # fmt: skip
def test_what_fits_is_harmless(before: tuple[str, str], now: tuple[str, str]) -> None:
    assert is_harmless(before, now)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (("int32", "integer"), ("int64", "integer")),
        (("int32", "integer"), ("uint32", "integer")),
        (("int64", "bigint"), ("string", "bigint")),
        (("int64", "bigint"), ("double", "bigint")),
        (("double", "double precision"), ("int64", "double precision")),
        (("float", "real"), ("double", "real")),
        (("decimal128(10, 2)", "numeric(10,2)"), ("decimal128(10, 3)", "numeric(10,2)")),
        (("timestamp[us]", "timestamp without time zone"),
         ("timestamp[ns]", "timestamp without time zone")),
        (("timestamp[us]", "timestamp without time zone"),
         ("timestamp[us, tz=UTC]", "timestamp without time zone")),
        (("date32[day]", "date"), ("timestamp[us]", "date")),
        (("int64", "bigint"), ("int64 | string", "bigint")),
        (("text", "bigint"), ("text", "integer")),
        (("text", "integer"), ("text", "date")),
        (("text", "json"), ("text", "jsonb")),
        (("text", "character varying(9)"), ("text", "character varying(5)")),
        (("text", "bigint"), ("string", "bigint")),
        (("list<element: int64>", "text"), ("list<element: int32>", "text")),
    ],
)  # fmt: skip
def test_what_does_not_fit_or_is_of_another_family_is_not_harmless(
    before: tuple[str, str], now: tuple[str, str]
) -> None:
    assert not is_harmless(before, now)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("int64", "bigint"), ("uint64", "numeric(20,0)"), ("decimal128(9, 2)", "numeric(9, 2)"),
        ("timestamp[ns, tz=UTC]", "timestamptz"), ("time64[us]", "time"), ("bool", "boolean"),
        ("string", "text"), ("text", "text"), ("fixed_size_binary[16]", "bytea"),
        ("list<element: int64>", "text"), ("date32[day]", "date"), ("double", "double precision"),
    ],
)  # fmt: skip
def test_a_column_for_each_type_is_named(given: str, wanted: str) -> None:
    assert sql_type(given) == wanted


TABLE = table_of(
    column_of("integer", "id", not_null=True),
    column_of("integer", "a"),
    replace(column_of("integer", "b", not_null=True), has_default=True),
)


def brought(*columns: str, kind: str = "int32") -> FeedSignature:
    known = {each.name: each.type_name for each in TABLE.columns}
    return FeedSignature(tuple(SignedColumn(c, known.get(c), c, kind) for c in columns))


def compared(before: Sequence[str], now: Sequence[str], **contract: str) -> Comparison:
    terms = Terms(Contract.model_validate(contract), Version(3, brought(*before)))
    return compare(TABLE, brought(*now), terms)


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        ("id a", "a id", "same"),
        ("id", "id a", "compatible"),
        ("id a b", "id", "compatible"),
        ("id a", "a", "breaking"),
        ("id", "id x", "breaking"),
        ("id a", "id b x", "breaking"),
    ],
)
def test_the_worst_change_is_the_verdict(before: str, now: str, verdict: str) -> None:
    assert compared(before.split(), now.split()).verdict == verdict


def test_a_first_delivery_is_compatible_unless_the_table_has_no_place_for_it() -> None:
    assert compare(TABLE, brought("id"), Terms()).verdict == "compatible"
    assert compare(TABLE, brought("id"), Terms()).changes == ()
    assert compare(TABLE, brought("id", "x"), Terms()).verdict == "breaking"


def test_what_is_not_taken_on_leaves_the_version_as_it_is() -> None:
    ignoring = compared(["id", "a"], ["id", "b", "x"], extra_column="ignore")
    assert ignoring.taken == brought("id", "b")
    assert ignoring.left_out == {"x"}
    first = compare(TABLE, brought("id", "x"), Terms(Contract(extra_column="ignore")))
    assert first.taken == brought("id")


def test_what_the_feed_itself_ignores_is_not_missing_for_its_sender() -> None:
    terms = Terms(Contract(missing_column="freeze"), Version(1, brought("id", "a")))
    assert compare(TABLE, brought("id"), terms).frozen
    assert not compare(TABLE, brought("id"), terms, passed_over={"a"}).frozen


def test_what_the_table_has_become_is_no_breach_of_the_sender() -> None:
    was = FeedSignature((SignedColumn("a", "smallint", "a", "int32"),))
    terms = Terms(Contract(changed_type="freeze"), Version(1, was))
    comparison = compare(TABLE, brought("a"), terms)
    assert [(c.kind, c.verdict, c.policy) for c in comparison.changes] == [
        ("retyped", "compatible", "evolve")
    ]


def test_a_needed_column_cannot_be_left_out_for_its_type() -> None:
    terms = Terms(Contract(changed_type="ignore"), Version(1, brought("id", "a", kind="int16")))
    comparison = compare(TABLE, brought("id", "a"), terms)
    assert {c.column: c.policy for c in comparison.changes} == {"id": "freeze", "a": "ignore"}
    said = refusal(comparison, "a.parquet")
    assert said is not None
    assert "'id' cannot be left out: the table needs a value there." in said


def test_a_refusal_names_columns_remedy_and_what_may_be_a_rename() -> None:
    comparison = compared(
        ["id", "a"], ["id", "aa", "b"], extra_column="freeze", missing_column="freeze"
    )
    assert refusal(comparison, "a.csv") == (
        "a.csv: the feed's contract freezes version 3 of its signature for public.t: column 'a' is "
        "missing (it was int32 -> integer); column 'aa' is extra (int32 -> no column); column 'b' is "
        "extra (int32 -> integer). Deliver it as before, or take the change on with `contract: "
        "{extra_column: evolve, missing_column: evolve}` in the feed. If it was renamed, write "
        "`format: {columns: {aa: a}}`."
    )
    assert refusal(compared(["id", "a"], ["id", "b"]), "a.csv") is None


def test_another_name_for_a_column_is_a_change_that_harms_nobody() -> None:
    terms = Terms(Contract(extra_column="freeze"), Version(1, brought("id", "a")))
    now = FeedSignature((*brought("id").columns, SignedColumn("a", "integer", "Nr.", "int32")))
    (change,) = compare(TABLE, now, terms).changes
    assert (change.kind, change.before, change.after, change.verdict, change.policy) == (
        "renamed", "int32 -> integer", "Nr.: int32 -> integer", "compatible", "evolve",
    )  # fmt: skip


def test_a_column_of_two_types_has_both() -> None:
    one, other = (SignedColumn("a", "bigint", "a", kind) for kind in ("int64", "int32"))
    assert merged([{"a": one}, {"a": other}, {}]).columns == (replace(one, type="int32 | int64"),)


@given(st.text())
def test_a_name_is_kept_as_postgresql_can_keep_it(name: str) -> None:
    assert "\0" not in signable(name)
    signable(name + "\ud800").encode()
