"""Laws that hold for any deliveries: conservation, idempotence, correction, order, all or nothing."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from hypothesis import HealthCheck, event, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from batch_pipelines.engine.errors import BatchError
from batch_pipelines.engine.failpoints import armed
from batch_pipelines.engine.ledger import proofs
from batch_pipelines.engine.ledger.batches import IN_FORCE
from batch_pipelines.engine.ledger.stages import STAGES
from tests.support_engine import KEY, Site, feed_of
from tests.support_soak import short_or_long

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from batch_pipelines.engine.ledger.batches import Batch
    from tests.engine.conftest import OpenSite

    Fresh: TypeAlias = Callable[[str], AbstractContextManager[Site]]

# A parent is corrected by a keyed diff, since children refer to it; a child by delete and copy.
DDL = """
CREATE TABLE parents (id int PRIMARY KEY, name text, amount numeric(8, 2) DEFAULT 7,
    kind text NOT NULL DEFAULT 'plain', import_batch_id uuid);
CREATE TABLE children (id int PRIMARY KEY, parent int NOT NULL REFERENCES parents,
    note text DEFAULT 'none', size int CHECK (size > 0), import_batch_id uuid);
"""
BOTH = {"public.parents": "p*", "public.children": "c*"}
TABLES = {"with children": BOTH, "alone": {"public.children": "c*"}}
ALL = {"parents": ("id", "name", "amount", "kind"), "children": ("id", "parent", "note", "size")}
PUBLISH = STAGES[:3]
# A row that each child may refer to where the feed brings no parents.
OUTSIDE = "INSERT INTO parents (id) SELECT generate_series(1000, 1003)"

few = profile(
    deadline=None,
    derandomize=True,
    # An example is a database of its own and some imports, which takes its time.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

Row: TypeAlias = dict[str, Any]


class Delivery:
    """Rows of the tables a feed brings, and the columns it brings of them."""

    def __init__(self, tables: Mapping[str, list[Row]], columns: Mapping[str, list[str]]) -> None:
        self.tables, self.columns = tables, columns

    def __repr__(self) -> str:
        return f"Delivery({self.files()})"

    def files(self) -> dict[str, str]:
        """Write them as CSV; None is an empty field, an empty text a quoted one."""
        return {
            f"{table[0]}.csv": written(self.columns[table], rows)
            for table, rows in self.tables.items()
        }

    @property
    def records(self) -> int:
        """How many there are."""
        return sum(map(len, self.tables.values()))


def written(columns: list[str], rows: list[Row]) -> str:
    lines = [columns, *([row[name] for name in columns] for row in rows)]
    return "".join(",".join(map(field, line)) + "\n" for line in lines)


def field(value: object) -> str:
    if value is None:
        return ""
    return '"' + str(value).replace('"', '""') + '"' if isinstance(value, str) else str(value)


texts = st.text(st.sampled_from("ab ,\"\n'\\é0x"), max_size=5)
amounts = st.integers(-999_999, 999_999).map(lambda n: f"{n / 100:.2f}")
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": st.none() | texts,
    "amount": st.none() | amounts,
    "kind": texts,
    "note": st.none() | texts,
    "size": st.none() | st.integers(1, 5),
}


@st.composite
def rows_of(draw: st.DrawFn, columns: list[str], first: int, parents: list[int]) -> list[Row]:
    if "parent" in columns and not parents:
        return []
    ids = draw(st.lists(st.integers(first, first + 7), unique=True, max_size=6))
    others = [name for name in columns if name != "id"]
    refer = st.sampled_from(parents) if parents else st.nothing()
    return [
        {"id": n} | {name: draw(refer if name == "parent" else VALUES[name]) for name in others}
        for n in ids
    ]


@st.composite
def deliveries(draw: st.DrawFn, tables: str, first: int = 0, *, whole: bool = False) -> Delivery:
    """Make a delivery with ids from `first` on, `whole` with all columns."""
    brought = {name.removeprefix("public."): draw_columns(draw, name, whole=whole)
               for name in TABLES[tables]}  # fmt: skip
    found: dict[str, list[Row]] = {}
    parents = [*range(1000, 1004)]
    if "parents" in brought:
        found["parents"] = draw(rows_of(brought["parents"], first, []))
        parents = [row["id"] for row in found["parents"]]
    found["children"] = draw(rows_of(brought["children"], first, parents))
    return Delivery(found, brought)


def draw_columns(draw: st.DrawFn, table: str, *, whole: bool) -> list[str]:
    key, *others = ALL[table.removeprefix("public.")]
    needed = [key, *(name for name in others if name == "parent")]
    free = [name for name in others if name != "parent"]
    kept = free if whole else draw(st.lists(st.sampled_from(free), unique=True))
    return [*needed, *kept]


@pytest.fixture(scope="module")
def fresh(open_site: OpenSite) -> Fresh:
    def opened(tables: str) -> AbstractContextManager[Site]:
        ddl = DDL + OUTSIDE if tables == "alone" else DDL
        return open_site(ddl, feed_of(TABLES[tables]))

    return opened


def tables_of(site: Site) -> list[list[tuple[Any, ...]]]:
    """Rows without their stamp."""
    return [site.rows("parents"), site.rows("children")]


def load(site: Site, delivery: Delivery, key: str = KEY, *, force: bool = False) -> Batch:
    """Deliver and publish; what comes after publish changes no table."""
    site.deliver(delivery.files(), key)
    return site.run(key, stages=PUBLISH, force=force)


def untouched(site: Site) -> list[list[tuple[Any, ...]]]:
    """Rows with stamp, place and the transaction that wrote them: any write would show."""
    query = "SELECT ctid::text, xmin::text, t::text FROM {} t ORDER BY id"
    return [site.sql(query.format(table)) for table in ("parents", "children")]


def ids(rows: list[Row]) -> set[int]:
    return {row["id"] for row in rows}


@short_or_long("examples", 5, 80)
@pytest.mark.parametrize("tables", TABLES)
def test_records_are_conserved(fresh: Fresh, tables: str, examples: int) -> None:
    @profile(few, max_examples=examples)
    @given(st.lists(deliveries(tables), min_size=1, max_size=3))
    def law(given_: list[Delivery]) -> None:
        with fresh(tables) as site:
            before: dict[str, list[Row]] = {}
            for delivery in given_:
                batch = load(site, delivery, force=True)
                assert batch.source_records == batch.written_records == delivery.records
                balances = {
                    t.target_table: t for t in proofs.tables(site.connection, batch.batch_id)
                }
                for name, rows in delivery.tables.items():
                    b = balances[f"public.{name}"]
                    assert b.inserted + b.updated + b.unchanged == b.source_records == len(rows)
                    stamped = site.stamps(name)
                    assert stamped.pop(batch.batch_id, 0) == len(rows)
                    assert stamped in ({}, {None: 4})
                    if name == "parents":
                        old = ids(before.get(name, []))
                        assert b.updated + b.unchanged == len(old & ids(rows))
                        assert b.removed == len(old - ids(rows))
                before = dict(delivery.tables)

    law()


@short_or_long("examples", 4, 80)
@pytest.mark.parametrize("tables", TABLES)
def test_a_partition_run_again_changes_no_row(fresh: Fresh, tables: str, examples: int) -> None:
    @profile(few, max_examples=examples)
    @given(deliveries(tables), st.integers(1, 3))
    def law(delivery: Delivery, times: int) -> None:
        with fresh(tables) as site:
            batch = site.load(delivery.files())
            before = untouched(site)
            for _ in range(times):
                assert site.run().duplicate_of == batch.batch_id
                assert site.load(delivery.files()).duplicate_of == batch.batch_id
                assert untouched(site) == before

    law()


@short_or_long("examples", 5, 80)
@pytest.mark.parametrize("tables", TABLES)
def test_a_correction_equals_its_import_alone(fresh: Fresh, tables: str, examples: int) -> None:
    """Also where columns are absent from the first or the second delivery: they get their default."""

    @profile(few, max_examples=examples)
    @given(deliveries(tables), deliveries(tables), st.booleans())
    def law(first: Delivery, second: Delivery, again: bool) -> None:
        with fresh(tables) as alone:
            load(alone, second)
            expected = tables_of(alone)
        with fresh(tables) as site:
            load(site, first)
            load(site, second)
            assert tables_of(site) == expected
            if again:
                event("and back, and forth")
                load(site, first, force=True)
                load(site, second, force=True)
                assert tables_of(site) == expected

    law()


@short_or_long("examples", 3, 50)
@pytest.mark.parametrize("tables", TABLES)
def test_the_order_of_partitions_does_not_matter(fresh: Fresh, tables: str, examples: int) -> None:
    made = st.tuples(*(deliveries(tables, first) for first in (0, 100, 200)))

    @profile(few, max_examples=examples)
    @given(made, made, st.permutations(range(6)))
    def law(first: tuple[Delivery, ...], second: tuple[Delivery, ...], order: list[int]) -> None:
        # Numbers 0 to 2 are the first deliveries of three partitions, 3 to 5 their corrections.
        steps = [n % 3 for n in order]
        with fresh(tables) as site:
            for delivery, key in zip(second, "abc", strict=True):
                load(site, delivery, key)
            expected = tables_of(site)
        with fresh(tables) as site:
            loaded: set[int] = set()
            for n in steps:
                delivery = second[n] if n in loaded else first[n]
                load(site, delivery, "abc"[n], force=True)
                loaded.add(n)
            assert tables_of(site) == expected

    law()


BAD: dict[str, Callable[[Row, Row], Row]] = {
    "no number": lambda row, _: row | {"id": "one"},
    "no key": lambda row, _: row | {"id": None},
    "a key twice": lambda row, other: row | {"id": other["id"]},
    "no parent": lambda row, _: row | {"parent": 999_999},
    "a check": lambda row, _: row | {"size": 0},
    "another partition's key": lambda row, _: row | {"id": 500},
    "too large": lambda row, _: row | {"size": 2**31},
    "a field too many": lambda row, _: row | {"size": 1, "note": Raw("a,b")},
    "a quote not closed": lambda row, _: row | {"note": Raw('"')},
}


class Raw:
    """A field that is written as it stands."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


@short_or_long("examples", 9, 150)
@pytest.mark.parametrize("tables", TABLES)
def test_a_failed_delivery_leaves_the_tables_as_they_were(
    fresh: Fresh, tables: str, examples: int
) -> None:
    neighbour = Delivery(
        {
            name.removeprefix("public."): [
                {"id": 500, "name": "n", "amount": 1, "kind": "k", "parent": 500, "note": "n", "size": 1}
                | ({"parent": 1000} if tables == "alone" else {})
            ]
            for name in TABLES[tables]
        },
        {name.removeprefix("public."): [*ALL[name.removeprefix("public.")]] for name in TABLES[tables]},
    )  # fmt: skip
    with_rows = deliveries(tables, whole=True).filter(lambda d: bool(d.tables["children"]))

    @profile(few, max_examples=examples)
    @given(st.none() | deliveries(tables), with_rows, st.sampled_from(sorted(BAD)), st.data())
    def law(first: Delivery | None, broken: Delivery, bad: str, data: st.DataObject) -> None:
        rows = [*broken.tables["children"]]
        row = BAD[bad](rows[-1] | {"id": 50}, rows[0])
        rows.insert(data.draw(st.integers(0, len(rows)), label="place of the bad row"), row)
        event(bad)
        broken = Delivery({**broken.tables, "children": rows}, broken.columns)
        with fresh(tables) as site:
            load(site, neighbour, "neighbour")
            if first is not None:
                load(site, first)
            before = untouched(site)
            for _ in range(2):
                with pytest.raises(BatchError):
                    load(site, broken)
                assert site.newest().status == "FAILED"
                assert untouched(site) == before

    law()


class Killed(BaseException):
    """A run ends in the midst of its work."""


BEFORE = (
    "ingest.copied", "checksum.read", "bulk_write.parsed", "bulk_write.before_check",
    "bulk_write.before_fence", "bulk_write.before_commit",
)  # fmt: skip
AFTER = ("bulk_write.after_commit", "archive.written")
keys = st.sampled_from("ab")


class Partitions(RuleBasedStateMachine):
    """Two partitions beside a model of what is visible."""

    def __init__(self, fresh: Fresh, tables: str) -> None:
        super().__init__()
        self.tables, self.stack = tables, ExitStack()
        self.site = self.stack.enter_context(fresh(tables))
        self.landed: dict[str, tuple[Delivery, bool]] = {}
        self.visible: dict[str, Delivery] = {}

    def teardown(self) -> None:
        """Drop the database."""
        self.stack.close()

    @rule(key=keys, data=st.data())
    def deliver(self, key: str, data: st.DataObject) -> None:
        """Deliver something good."""
        delivery = data.draw(deliveries(self.tables, 100 * "ab".index(key), whole=True))
        self.landed[key] = delivery, True
        self.site.deliver(delivery.files(), key)

    @rule(key=keys)
    def spoil(self, key: str) -> None:
        """Break what lies in landing."""
        if key in self.landed:
            delivery, _ = self.landed[key]
            self.landed[key] = delivery, False
            files = delivery.files()
            files["c.csv"] += "not a number" + "," * (len(ALL["children"]) - 1) + "\n"
            self.site.deliver(files, key)

    @rule(key=keys)
    def run(self, key: str) -> None:
        """Run all stages."""
        delivery, good = self.landed.get(key, (None, False))
        if delivery is None or not good:
            with pytest.raises(BatchError):
                self.site.run(key)
        else:
            self.site.run(key)
            self.visible[key] = delivery

    @rule(key=keys, place=st.sampled_from(BEFORE + AFTER))
    def kill(self, key: str, place: str) -> None:
        """Run until a place, and no further."""

        def end(_: object) -> object:
            raise Killed

        old = self.site.sql("SELECT count(*) FROM batch_audit.import_history")
        with armed(place, end), suppress(BatchError, Killed):
            self.site.run(key)
        assert self.site.sql("SELECT count(*) FROM batch_audit.import_history") > old
        delivery, good = self.landed.get(key, (None, False))
        if delivery is not None and good and place in AFTER:
            self.visible[key] = delivery

    @invariant()
    def tables_are_the_model(self) -> None:
        """Compare rows, stamps and ledger with the model."""
        site = self.site
        in_force = {b.partition_key: b.batch_id for b in site.history() if b.status in IN_FORCE}
        assert set(in_force) == set(self.visible)
        assert len(in_force) == sum(b.status in IN_FORCE for b in site.history())
        assert [b.name for b in site.history() if b.status == "IN_PROGRESS"] == []
        for name in self.names():
            expected = {
                (row["id"], batch)
                for key, batch in in_force.items()
                for row in self.visible[key].tables[name]
            }
            query = f"SELECT id, import_batch_id::text FROM {name} WHERE id < 1000"
            assert set(site.sql(query)) == expected
            last = ALL[name][-1]
            values = {row["id"]: row[last] for d in self.visible.values() for row in d.tables[name]}
            assert dict(site.sql(f"SELECT id, {last} FROM {name} WHERE id < 1000")) == values

    def names(self) -> list[str]:
        """Tables the feed brings."""
        return [name.removeprefix("public.") for name in TABLES[self.tables]]


@short_or_long("examples", 4, 50)
@pytest.mark.parametrize("tables", TABLES)
def test_any_course_of_events_leaves_what_the_model_says(
    fresh: Fresh, tables: str, examples: int
) -> None:
    machine: Any = partial(Partitions, fresh, tables)
    run_state_machine_as_test(
        machine,
        settings=profile(few, max_examples=examples, stateful_step_count=12),
    )
