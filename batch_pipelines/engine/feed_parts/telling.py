"""Who is told of something, and who when nobody acknowledges it."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Any

import pydantic

from batch_pipelines.engine.feed_parts.part import Part

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?P<number>[1-9][0-9]{0,4}) *(?P<unit>s|m|h|d)")


def parse_duration(text: str) -> dt.timedelta:
    """Read a duration such as `30s`, `15m`, `24h` or `7d`.

    Raises:
        ValueError: It is none.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        message = "a duration is a number of seconds, minutes, hours or days: 30s, 15m, 24h, 7d"
        raise ValueError(message)
    return dt.timedelta(seconds=int(found["number"]) * SECONDS[found["unit"]])


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


one_or_many = pydantic.BeforeValidator(_listed)
"""Takes one word for a list of it."""
Names = Annotated[tuple[str, ...], one_or_many]


class Telling(Part):
    """Who is told.

    Attributes:
        channels: Names of channels or roles that are told.
        escalate_after: How long an alert may stay open before others are told.
        escalate_to: Names of channels or roles that are told then.
    """

    channels: Names = pydantic.Field(
        default=(), description="channels or roles that are told; the default without"
    )
    escalate_after: str | None = pydantic.Field(
        default=None, description="how long an alert may stay open: 30m, 2h"
    )
    escalate_to: Names = pydantic.Field(
        default=(), description="channels or roles that are told then"
    )

    @pydantic.field_validator("escalate_after")
    @classmethod
    def _is_duration(cls, value: str | None) -> str | None:
        if value is not None:
            parse_duration(value)
        return value

    @property
    def escalates_after(self) -> dt.timedelta | None:
        """How long an alert may stay open."""
        return None if self.escalate_after is None else parse_duration(self.escalate_after)


class Critical(Telling):
    """How people are told of critical rows.

    Attributes:
        told_singly: How many rows of a batch have an alert each; the others are counted in one more.
    """

    told_singly: int = pydantic.Field(
        default=20, ge=1, le=1000, description="rows of a batch that have an alert each"
    )
