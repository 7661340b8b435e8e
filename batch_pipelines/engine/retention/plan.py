"""The plan: what would go, by which rule, and what keeps it. It changes nothing.

The same look is taken again inside the transaction that deletes: see `why_kept`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, LiteralString

from psycopg import sql as pg
from psycopg.rows import class_row

from batch_pipelines.engine.catalog import is_stamped, read_table
from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.feed_parts.retention import CLASSES, DataClass, SiteRetention
from batch_pipelines.engine.ledger import proofs
from batch_pipelines.engine.ledger.batches import IN_FORCE
from batch_pipelines.engine.retention import holds, sql
from batch_pipelines.engine.retention.rules import Term, terms_of

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Mapping, Sequence

    from batch_pipelines.engine.catalog import TableInfo
    from batch_pipelines.engine.feed_parts.retention import Regulation
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Connection

_VALIDATED = frozenset({"SUCCESS", "PARTIAL_SUCCESS"})


@dataclass(frozen=True)
class Found:
    """One class of data of one batch that a rule of its feed's own would let go.

    Attributes:
        batch_id: The batch.
        feed: Its feed.
        partition_key: Its partition.
        status: Its state.
        data_class: What of it.
        rule: The rule that holds longest: period and what it counts from.
        legal_source: Who says so.
        due_at: Since when, or from when on, it may go.
        records: Rows; of bags their files.
        bytes: Their size; of rows of tables an estimate.
        kept_by: What keeps it; with nothing it goes.
    """

    batch_id: str
    feed: str
    partition_key: str
    status: str
    data_class: DataClass
    rule: str
    legal_source: str
    due_at: dt.datetime
    records: int
    bytes: int
    kept_by: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Feed and partition key."""
        return f"{self.feed}/{self.partition_key}"

    @property
    def goes(self) -> bool:
        """Whether nothing keeps it."""
        return not self.kept_by


@dataclass(frozen=True)
class _Row:
    batch_id: str
    feed: str
    partition_key: str
    status: str
    rule: str
    legal_source: str
    due_at: dt.datetime
    records: int
    bytes: int


@dataclass(frozen=True)
class Planner:
    """Finds what is due.

    Attributes:
        feeds: The feeds by name; of one whose file is gone everything is kept.
        regulations: Those that every feed is under.
        now: The moment that everything is judged by.
        site: Rules of what is no single feed's.
    """

    feeds: Mapping[str, Feed]
    regulations: Sequence[Regulation]
    now: dt.datetime
    site: SiteRetention = field(default_factory=SiteRetention)

    def plan(self, connection: Connection, feed: str | None = None) -> tuple[Found, ...]:
        """List what a rule would let go, those first whose time was over first.

        Args:
            connection: A connection.
            feed: Only of this feed, if given.

        Returns:
            What goes, and what something keeps; what is not due at all is not listed.

        Raises:
            FeedError: There is no such feed.
        """
        if feed is not None and feed not in self.feeds:
            message = f"There is no feed {feed}. `batch-pipelines feeds list` lists them."
            raise FeedError(message)
        chosen = [each for name, each in self.feeds.items() if feed in {None, name}]
        found = [
            item
            for each in chosen
            for data_class in CLASSES
            for item in self._due(connection, each, data_class, None)
        ]
        place = {name: number for number, name in enumerate(CLASSES)}
        found.sort(key=lambda item: (item.due_at, item.batch_id, place[item.data_class]))
        return tuple(
            replace(item, kept_by=tuple(self.why_kept(connection, item))) for item in found
        )

    def again(self, connection: Connection, item: Found) -> Found:
        """Look again at what was found to go, as inside the transaction that deletes it.

        Args:
            connection: A connection, inside a transaction.
            item: What was found.

        Returns:
            What it is now; `kept_by` says what keeps it, also where it is not due any more, or gone.
        """
        feed = self.feeds[item.feed]
        for now in self._due(connection, feed, item.data_class, item.batch_id):
            return replace(now, kept_by=tuple(self.why_kept(connection, now)))
        return replace(item, kept_by=("it is gone already, or no rule lets it go any more",))

    def why_kept(self, connection: Connection, item: Found) -> Iterator[str]:
        """Say what keeps something whose time may be over.

        Args:
            connection: A connection.
            item: What was found.

        Yields:
            Each reason, as a phrase.
        """
        for hold in holds.over(connection, item.batch_id):
            yield str(hold)
        if item.due_at > self.now:
            yield f"longer rule: {item.rule}, {item.legal_source}, until {item.due_at:%Y-%m-%d}"
        wanted = {"batch_id": item.batch_id, "now": self.now}
        match item.data_class:
            case "rows":
                yield from _keeping_rows(connection, item, wanted, self._images_stay(item))
            case "before_images":
                yield from _keeping_images(connection, wanted)
            case "ledger":
                yield from _keeping_ledger(connection, item, wanted)
            case "quarantine" | "bags":
                if item.status in IN_FORCE - _VALIDATED:
                    yield f"not validated: the batch is {item.status}"
        if item.data_class == "bags":
            yield from _coming_back(connection, wanted)

    def _images_stay(self, item: Found) -> str:
        """Say so where no rule lets images go, for then this may be kept for ever."""
        if self.feeds[item.feed].retention.rules("before_images"):
            return ""
        return "; its images stay for ever, as the feed has no retention rule for `before_images`"

    def _due(
        self, connection: Connection, feed: Feed, data_class: DataClass, batch_id: str | None
    ) -> Iterator[Found]:
        terms = [t for t in terms_of(feed, self.regulations) if t.data_class == data_class]
        if not terms:
            return
        wanted = {
            "keep": [term.keep for term in terms],
            "cut_off": [term.cut_off for term in terms],
            "text": [_text(term) for term in terms],
            "legal_source": [term.legal_source for term in terms],
            "own": [term.own for term in terms],
            "feed": feed.feed,
            "batch_id": batch_id,
            "now": self.now,
        }
        with connection.cursor(row_factory=class_row(_Row)) as cursor:
            for row in cursor.execute(sql.DUE[data_class], wanted).fetchall():
                yield Found(data_class=data_class, **row.__dict__)


def referring(connection: Connection, batch_id: str) -> Iterator[str]:
    """Say which rows that stay refer to rows of a batch.

    Args:
        connection: A connection.
        batch_id: The batch.

    Yields:
        A phrase for each foreign key that holds rows back.
    """
    batch = pg.SQL("{}::uuid").format(pg.Literal(batch_id))
    for name in (table.target_table for table in proofs.tables(connection, batch_id)):
        if not is_stamped(connection, name):
            continue
        for key in (table := read_table(connection, None, name)).children:
            count = _number(connection, _referring(connection, table, key, batch))
            if count:
                child = ".".join(key.child)
                yield f"{count:,} rows of {child} that stay refer to its rows in {name} ({key.name})"


def _referring(
    connection: Connection, table: TableInfo, key: Any, batch: pg.Composed
) -> pg.Composed:
    stamped = is_stamped(connection, ".".join(key.child))
    staying = sql.STAYING.format(stamp=sql.STAMP_NAME, batch=batch) if stamped else pg.SQL("true")
    same = pg.SQL(" AND ").join(
        pg.SQL("c.{} = t.{}").format(pg.Identifier(child), pg.Identifier(parent))
        for child, parent in zip(key.child_columns, key.parent_columns, strict=True)
    )
    return sql.REFERRING.format(
        child=pg.Identifier(*key.child), table=table.identifier, stamp=sql.STAMP_NAME, batch=batch,
        staying=staying, same=same,
    )  # fmt: skip


def _keeping_rows(
    connection: Connection, item: Found, wanted: Mapping[str, object], advice: str
) -> Iterator[str]:
    if item.status not in _VALIDATED:
        yield f"not validated: the batch is {item.status}"
        return
    if _first(connection, sql.NOT_ARCHIVED, wanted)[0]:
        yield "its delivery is not archived yet"
    for by, until in connection.execute(sql.RESTORED, wanted).fetchall():
        yield f"restored by {by}, to stay until {until:%Y-%m-%d}"
    for batch_id, count in connection.execute(sql.OVERWRITTEN, wanted).fetchall():
        yield (
            f"later batch depends: {batch_id} has overwritten {count:,} of its rows, which its "
            f"rollback brings back{advice}"
        )
    yield from referring(connection, item.batch_id)


def _keeping_images(connection: Connection, wanted: Mapping[str, object]) -> Iterator[str]:
    for (batch_id,) in connection.execute(sql.WHOSE_IMAGES, wanted).fetchall():
        for hold in holds.over(connection, batch_id):
            yield f"they are rows of batch {batch_id}, which is under {hold}"
    for (until,) in connection.execute(sql.PROMISED, wanted).fetchall():
        yield f"the batch can be rolled back until {until:%Y-%m-%d}, as its feed says"
    yield from _coming_back(connection, wanted)
    for (batch_id,) in connection.execute(sql.LED_TO, wanted).fetchall():
        yield f"later batch depends: the rollback of {batch_id} goes back to them"


def _keeping_ledger(
    connection: Connection, item: Found, wanted: Mapping[str, object]
) -> Iterator[str]:
    if item.status in IN_FORCE and proofs.tables(connection, item.batch_id):
        yield "the batch is in force: its rows are proven by it"
    elif item.status in _VALIDATED and _first(connection, sql.NOT_ARCHIVED, wanted)[0]:
        yield "its delivery is not archived yet"
    yield from _coming_back(connection, wanted)


def _coming_back(connection: Connection, wanted: Mapping[str, object]) -> Iterator[str]:
    for (batch_id,) in connection.execute(sql.COMES_BACK, wanted).fetchall():
        yield f"later batch depends: {batch_id} superseded it, and can be rolled back"


def _text(term: Term) -> str:
    return f"{term.keep} from {term.cut_off}"


def _first(
    connection: Connection, query: LiteralString, wanted: Mapping[str, object]
) -> tuple[Any, ...]:
    return connection.execute(query, wanted).fetchone() or (None,)


def _number(connection: Connection, query: pg.Composed) -> int:
    row = connection.execute(query).fetchone()
    return 0 if row is None else int(row[0])
