"""What every part of a feed file has in common."""

from __future__ import annotations

import pydantic


class Part(pydantic.BaseModel):
    """A part of a feed: it cannot be changed, and knows every key that it may have."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)
