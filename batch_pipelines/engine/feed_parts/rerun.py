"""How often, and after which pauses, failed partitions of a feed are run again by themselves."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Self

import pydantic

from batch_pipelines.engine.feed_parts.part import Part
from batch_pipelines.engine.feed_parts.telling import parse_duration

_WRITTEN = "30s, 15m, 24h or 7d"


def _read(value: object) -> object:
    # What begins with P is what a feed is dumped as; a bare number would be seconds to one and minutes
    # to another.
    if isinstance(value, str) and not value.startswith("P"):
        return parse_duration(value)
    if isinstance(value, str | dt.timedelta):
        return value
    message = f"must be a duration, as in {_WRITTEN}"
    raise ValueError(message)


Pause = Annotated[
    dt.timedelta, pydantic.BeforeValidator(_read), pydantic.WithJsonSchema({"type": "string"})
]


class Rerun(Part):
    """How failed partitions are run again; only those whose cause may be gone by itself are.

    Attributes:
        attempts: How often at most, without anybody asking; 0 for never.
        first_pause: How long after the failure; each further time it is twice as long.
        longest_pause: How long at most.
    """

    attempts: int = pydantic.Field(
        default=5, ge=0, le=100, description="reruns at most; 0 for none by itself"
    )
    first_pause: Pause = pydantic.Field(
        default=dt.timedelta(minutes=1), description=f"pause before the first: {_WRITTEN}"
    )
    longest_pause: Pause = pydantic.Field(
        default=dt.timedelta(hours=1),
        description=f"longest pause; it doubles until then: {_WRITTEN}",
    )

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.longest_pause < self.first_pause:
            message = "`longest_pause` must not be shorter than `first_pause`"
            raise ValueError(message)
        return self

    def pause(self, tries: int) -> dt.timedelta:
        """Give the pause before the next rerun.

        Args:
            tries: How often the partition has been tried and failed, at least once.
        """
        # A power that no interval can hold is longer than any pause.
        doubled = min(tries - 1, 40)
        if self.first_pause > self.longest_pause / 2**doubled:
            return self.longest_pause
        factor: int = 2**doubled
        return self.first_pause * factor
