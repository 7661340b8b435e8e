"""What a feed says of its partitions, where they are windows of time."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pydantic

from batch_pipelines.engine.feed_parts.part import Part

Every = Literal["hour", "day", "week", "month"]

FORMATS: Final[dict[Every, str]] = {
    # Without the colon that times are written with: a key is also the name of a folder.
    "hour": "%Y-%m-%d-%H",
    "day": "%Y-%m-%d",
    "week": "%Y-%m-%d",
    "month": "%Y-%m",
}
_DIRECTIVE = re.compile(r"%(.?)")
# What a key consists of, and what stands for a part of the time in it.
_FORMAT = re.compile(r"(?:[A-Za-z0-9_.=+-]|%[YmdHjz])*")
_NEEDED: Final[dict[Every, tuple[set[str], ...]]] = {
    "hour": ({"Y", "m", "d", "H"}, {"Y", "j", "H"}),
    "day": ({"Y", "m", "d"}, {"Y", "j"}),
    "week": ({"Y", "m", "d"}, {"Y", "j"}),
    "month": ({"Y", "m"},),
}
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"([0-9]{1,6})([mhd])")


def _duration(value: object) -> object:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        if isinstance(value, dt.timedelta):
            return value
        message = "must be a number of minutes, hours or days, as in 90m, 2h or 1d"
        raise ValueError(message)
    return dt.timedelta(**{_UNITS[found[2]]: int(found[1])})


def _as_written(value: dt.timedelta) -> str:
    return f"{value // dt.timedelta(minutes=1)}m"


Duration = Annotated[
    dt.timedelta,
    pydantic.BeforeValidator(_duration),
    pydantic.PlainSerializer(_as_written),
    pydantic.WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$"}),
]


def known_timezone(name: str) -> str:
    """Accept a time zone by its name of the IANA.

    Raises:
        ValueError: There is none of that name.
    """
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        message = "is no time zone; expected a name such as Europe/Vienna or UTC"
        raise ValueError(message) from None
    return name


class Partitions(Part):
    """Windows of time, one delivery each.

    Attributes:
        every: How long a window is. Weeks begin on Monday.
        timezone: Where its days and hours are counted, by a name of the IANA.
        start: The day with which the first one begins, or the next one that begins on such a day.
        late_after: How long after the end of its window a delivery counts as late; None for never.
        format: How a key is written: the beginning of its window, by directives of strftime.
    """

    every: Every = pydantic.Field(description="how long a window is: hour, day, week or month")
    timezone: str = pydantic.Field(
        default="UTC", description="where days and hours are counted, e.g. Europe/Vienna"
    )
    start: dt.date = pydantic.Field(description="day with which the first window begins")
    late_after: Duration | None = pydantic.Field(
        default=None, description="how long after its window a delivery is late: 90m, 2h, 1d"
    )
    format: str = pydantic.Field(
        default="", description="how a key is written, by %Y %m %d %H %j %z"
    )

    @pydantic.field_validator("timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        return known_timezone(value)

    @pydantic.field_validator("start", mode="before")
    @classmethod
    def _is_a_day(cls, value: Any) -> Any:
        if isinstance(value, dt.datetime):
            message = "must be a day without a time, as in 2026-01-01"
            raise ValueError(message)  # noqa: TRY004  # pydantic's errors are ValueErrors
        return value

    @pydantic.model_validator(mode="after")
    def _a_key_tells_its_window(self) -> Partitions:
        directives = {found[1] for found in _DIRECTIVE.finditer(self.key_format)}
        if not _FORMAT.fullmatch(self.key_format):
            message = (
                "`partitions.format` may have letters, digits, _ . = + - and the directives %Y %m %d "
                "%H %j %z: a key is also the name of a folder"
            )
            raise ValueError(message)
        if not any(needed <= directives for needed in _NEEDED[self.every]):
            message = (
                f"`partitions.format` must tell every {self.every} from every other, as in "
                f"{FORMATS[self.every]}"
            )
            raise ValueError(message)
        return self

    @pydantic.model_validator(mode="after")
    def _hours_are_whole(self) -> Partitions:
        zone, year = ZoneInfo(self.timezone), self.start.year
        summer, winter = (
            dt.datetime(year, month, 1, tzinfo=zone).utcoffset() or dt.timedelta()
            for month in (7, 1)
        )
        if self.every == "hour" and (summer - winter) % dt.timedelta(hours=1):
            message = (
                f"the clock of {self.timezone} is set by a part of an hour, so that its hours do not "
                "begin alike; write `timezone: UTC`"
            )
            raise ValueError(message)
        return self

    @property
    def key_format(self) -> str:
        """How a key is written; what the feed says, or what is usual."""
        return self.format or FORMATS[self.every]
