"""What a report of a feed consists of, and its JSON."""

from __future__ import annotations

import datetime as dt  # noqa: TC003
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from batch_pipelines.engine.ledger.pauses import Pause
    from batch_pipelines.engine.reports.trends import RecentBatch
    from batch_pipelines.engine.rerun.failed import Failed

Unit = Literal["hour", "day", "week", "month", "year"]


@dataclass(frozen=True)
class Totals:
    """What batches come to.

    Attributes:
        batches: How many there are.
        ended: Those that are neither in progress, nor not validated yet, nor duplicates.
        whole: Those that succeeded with all of their records.
        partial: Those that succeeded with records or files set aside.
        failed: Those that failed, or whose validation did.
        records: Records of their sources.
        written: Of these, written.
        rejected: Of these, set aside.
        bytes: What was read.
        timed_records: Records of those whose bulk_write was timed.
        timed_seconds: What that took.
    """

    batches: int
    ended: int
    whole: int
    partial: int
    failed: int
    records: int
    written: int
    rejected: int
    bytes: int
    timed_records: int
    timed_seconds: float

    @property
    def succeeded(self) -> int:
        """Batches that succeeded, in part or as a whole."""
        return self.whole + self.partial

    @property
    def success_percent(self) -> float | None:
        """Which share of those that ended succeeded; None where none has ended."""
        return 100 * self.succeeded / self.ended if self.ended else None

    @property
    def rejected_percent(self) -> float | None:
        """Which share of the records was set aside; None where there are none."""
        return 100 * self.rejected / self.records if self.records else None

    @property
    def records_per_second(self) -> float | None:
        """How fast bulk_write was, over all of them; None where nothing was timed."""
        return self.timed_records / self.timed_seconds if self.timed_seconds else None


@dataclass(frozen=True)
class Period(Totals):
    """What the batches that began in one hour, day, week, month or year come to.

    Attributes:
        begins: When it begins, on the clocks of the report's time zone.
    """

    begins: dt.datetime


@dataclass(frozen=True)
class StateCount:
    """How many batches are in a state, by why they failed."""

    status: str
    cause: str | None
    batches: int
    newest: dt.datetime


@dataclass(frozen=True)
class FailedBatch:
    """A batch that failed, or whose validation did, and why."""

    batch_id: str
    partition_key: str
    attempt: int
    status: str
    started_at: dt.datetime
    cause: str | None
    error_details: str | None


@dataclass(frozen=True)
class ReasonCount:
    """How many records were set aside for a reason first of all, and in how many batches."""

    target_table: str
    column_name: str | None
    sqlstate: str | None
    constraint_name: str | None
    message: str
    records: int
    batches: int
    loaded_since: int
    newest: dt.datetime


@dataclass(frozen=True)
class FeedFacts:
    """All that is reported of a feed over a time.

    `since` is None where the time has no begin, and `until` is its end, not included. `unit` is what a
    period is, None without any batch. `batches` leaves duplicates out. `paused`, `standing` (partitions
    that stand failed) and `open_alerts` are those of now.
    """

    made_at: dt.datetime
    made_by: str
    feed: str
    description: str
    since: dt.datetime | None
    until: dt.datetime
    timezone: str
    unit: Unit | None
    periods: tuple[Period, ...]
    batches: tuple[RecentBatch, ...]
    failures: tuple[FailedBatch, ...]
    states: tuple[StateCount, ...]
    reasons: tuple[ReasonCount, ...]
    paused: Pause | None
    standing: tuple[Failed, ...]
    open_alerts: int

    @property
    def total(self) -> Totals:
        """What all of its batches come to."""
        summed = {
            each.name: sum(getattr(period, each.name) for period in self.periods)
            for each in fields(Totals)
        }
        return Totals(**summed)
