"""How the batches of a feed are watched: which measures, their levels, and what a breach does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import pydantic

from batch_pipelines.engine.feed_parts.part import Part
from batch_pipelines.engine.feed_parts.telling import (
    SECONDS,
    Telling,
    one_or_many,
    parse_duration,
)

if TYPE_CHECKING:
    import datetime as dt

Action = Literal["alert", "pause", "roll_back"]
MEASURES = (
    "failed_in_a_row",
    "invalid_checksums",
    "rejected_rows",
    "throughput_drop",
    "schema_variation",
    "late_deliveries",
)

_WINDOW = re.compile(r"(?P<number>[1-9][0-9]{0,4}) *(?P<unit>batch|batches|s|m|h|d)")
_ALL = 100.0

Share = Annotated[str, pydantic.StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?%$")]


@dataclass(frozen=True)
class Levels:
    """Levels of a measure as numbers; shares are in percent.

    Attributes:
        warn: From here on it is `warn`; None where nothing is.
        breach: From here on it is `breach`; None where nothing is.
        unit: What is written behind a value.
    """

    warn: float | None
    breach: float | None
    unit: str = ""


class Counts(Part):
    """Levels of a measure that counts.

    Attributes:
        warn: From here on it is told.
        breach: From here on the feed's `on_breach` is done, too.
    """

    warn: int | None = pydantic.Field(default=None, ge=1, description="from here on it is told")
    breach: int | None = pydantic.Field(
        default=None, ge=1, description="from here on `on_breach` is done"
    )

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> Counts:
        _check_order(self.levels)
        return self

    @property
    def levels(self) -> Levels:
        """The levels as numbers."""
        return Levels(self.warn, self.breach)


class Shares(Part):
    """Levels of a measure that is a share.

    Attributes:
        warn: From here on it is told.
        breach: From here on the feed's `on_breach` is done, too.
    """

    warn: Share | None = pydantic.Field(default=None, description="such as 1%")
    breach: Share | None = pydantic.Field(default=None, description="such as 5%")

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> Shares:
        for share in (self.warn, self.breach):
            if share is not None and not 0 < _percent(share) <= _ALL:
                message = "a share is above 0% and at most 100%"
                raise ValueError(message)
        _check_order(self.levels)
        return self

    @property
    def levels(self) -> Levels:
        """The levels in percent."""
        warn, breach = (None if s is None else _percent(s) for s in (self.warn, self.breach))
        return Levels(warn, breach, "%")


def _check_order(levels: Levels) -> None:
    warn, breach = levels.warn, levels.breach
    if warn is None and breach is None:
        message = "it needs `warn`, `breach` or both; to leave the measure out, write null"
        raise ValueError(message)
    if warn is not None and breach is not None and warn > breach:
        message = "`warn` is above `breach`"
        raise ValueError(message)


def _percent(share: str) -> float:
    return float(share.removesuffix("%"))


class Monitor(Telling):
    """How batches are watched.

    Attributes:
        over: Which batches count: the last ones, as in `20 batches`, or those of a time, as in `24h`.
        failed_in_a_row: Batches that failed, or whose validation did, since one went well.
        invalid_checksums: Files and chunks that are not what was expected.
        rejected_rows: Share of the records that were set aside.
        throughput_drop: By how much the last batches are slower than the feed's own median.
        schema_variation: Batches that brought other columns than the one before them.
        late_deliveries: Deliveries that came late, or have not come.
        back: Share of a level below which a value has to fall for the state to come back.
        each_failure: Whether each failed batch is told, as long as there is no breach.
        on_breach: What a breach does beside being told.
    """

    over: str = pydantic.Field(
        default="20 batches", description="the last batches, or those of a time: 20 batches, 24h"
    )
    failed_in_a_row: Counts | None = pydantic.Field(
        default=Counts(warn=2, breach=3), description="batches that failed since one went well"
    )
    invalid_checksums: Counts | None = pydantic.Field(
        default=Counts(warn=1, breach=3), description="files and chunks that are damaged"
    )
    rejected_rows: Shares | None = pydantic.Field(
        default=None, description="share of the records that were set aside"
    )
    throughput_drop: Shares | None = pydantic.Field(
        default=None, description="how much slower the last batches are than the feed's median"
    )
    schema_variation: Counts | None = pydantic.Field(
        default=None, description="batches with other columns than the one before"
    )
    late_deliveries: Counts | None = pydantic.Field(
        default=None, description="deliveries that came late or are missing"
    )
    back: Share = pydantic.Field(
        default="80%", description="share of a level below which the state comes back"
    )
    each_failure: bool = pydantic.Field(default=True, description="tell each failed batch")
    on_breach: Annotated[tuple[Action, ...], one_or_many] = pydantic.Field(
        default=("alert",), description="what a breach does; it is told in any case"
    )

    @pydantic.field_validator("over")
    @classmethod
    def _is_window(cls, value: str) -> str:
        if _WINDOW.fullmatch(value) is None:
            message = "it is a number of batches or a time: 20 batches, 24h, 7d"
            raise ValueError(message)
        return value

    @pydantic.field_validator("back")
    @classmethod
    def _comes_back(cls, value: str) -> str:
        if not 0 < _percent(value) <= _ALL:
            message = "it is a share above 0% and at most 100%"
            raise ValueError(message)
        return value

    @property
    def batches(self) -> int | None:
        """How many of the last batches count; None where a time does."""
        found = _WINDOW.fullmatch(self.over)
        assert found is not None  # noqa: S101  # validated
        return int(found["number"]) if found["unit"] not in SECONDS else None

    @property
    def time(self) -> dt.timedelta | None:
        """Of which time the batches count; None where a number does."""
        return parse_duration(self.over) if self.batches is None else None

    @property
    def back_factor(self) -> float:
        """`back` as a number from 0 to 1."""
        return _percent(self.back) / _ALL

    @property
    def levels(self) -> dict[str, Levels]:
        """Levels of the measures that are watched, in the order of `MEASURES`."""
        found = {name: getattr(self, name) for name in MEASURES}
        return {name: limit.levels for name, limit in found.items() if limit is not None}
