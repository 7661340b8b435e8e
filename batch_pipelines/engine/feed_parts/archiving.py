"""How a feed's batches are archived."""

from __future__ import annotations

import re
from typing import Final, Literal, Self

import pydantic

from batch_pipelines.engine.feed_parts.part import Part

DEFAULT_LEVEL: Final = 2
"""Of flights.csv it takes four fifths of the time of zstd's own default, 3, for bags 2 % larger."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
Strategy = Literal["copy", "compress", "digests_only"]
"""What a bag keeps of the source: files as delivered, compressed, or nothing but digests."""


class Archiving(Part):
    """How batches are archived.

    Attributes:
        strategy: What a bag keeps of the source.
        level: Of zstd, where files are compressed: 1 is fastest, 19 is smallest.
        encrypt: Whether source, quarantine and row digests are encrypted, with the key that
            BATCH_PIPELINES_ARCHIVE_KEY holds.
        to: Where bags stand, a folder or `s3://BUCKET/PREFIX`; empty for BATCH_PIPELINES_ARCHIVE.
    """

    strategy: Strategy = pydantic.Field(
        default="compress",
        description="what is kept of the source: files as delivered, compressed, or digests only",
    )
    level: int = pydantic.Field(
        default=DEFAULT_LEVEL, ge=1, le=19, description="of zstd: 1 is fastest, 19 is smallest"
    )
    encrypt: bool = pydantic.Field(
        default=False, description="encrypt what holds values, by BATCH_PIPELINES_ARCHIVE_KEY"
    )
    to: str = pydantic.Field(
        default="",
        description="a folder or s3://bucket/prefix, in place of BATCH_PIPELINES_ARCHIVE",
    )

    @pydantic.model_validator(mode="after")
    def _only_what_is_compressed_has_a_level(self) -> Self:
        if self.strategy != "compress" and "level" in self.model_fields_set:
            message = "`level` goes with `strategy: compress` alone"
            raise ValueError(message)
        return self

    @pydantic.field_validator("to")
    @classmethod
    def _a_folder_or_a_bucket(cls, value: str) -> str:
        return checked_place(value)


def checked_place(value: str) -> str:
    """Accept a place where bags may stand, or say what is wrong with it.

    Args:
        value: A folder, or `s3://BUCKET/PREFIX`.

    Returns:
        The same, without a slash at its end.

    Raises:
        ValueError: It is neither.
    """
    scheme, url, rest = value.partition("://")
    if not url:
        return value.rstrip("/") or value
    if scheme != "s3":
        message = f"must be a folder or begin with s3://, not {scheme}://"
        raise ValueError(message)
    bucket, *prefix = rest.rstrip("/").split("/")
    if not _BUCKET.fullmatch(bucket) or {"", ".", ".."} & {*prefix}:
        message = (
            "must name the bucket behind s3://, and a prefix if any, as in s3://BUCKET/PREFIX; "
            "credentials, endpoint and region come from the environment"
        )
        raise ValueError(message)
    return value.rstrip("/")
