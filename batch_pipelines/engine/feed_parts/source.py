"""Where the deliveries of a feed come from: files of a path, or what a query brings."""

from __future__ import annotations

import fnmatch
import re
from pathlib import PurePosixPath
from typing import Literal, Self

import pydantic

from batch_pipelines.engine.feed_parts.part import Part
from batch_pipelines.engine.loaded import Batches  # noqa: TC001  # pydantic reads it at run time
from batch_pipelines.engine.queries import Query  # noqa: TC001

PLACEHOLDER = "{batch}"
"""Stands for the partition key in a path."""
_WILD = frozenset("*?[")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUCKET = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/")


class Marker(Part):
    """A file of the sender's that says that a delivery is complete.

    Attributes:
        marker: Pattern of its name. It stands beside the data, and is none itself.
    """

    marker: str = pydantic.Field(description="name of the file, as _SUCCESS or {batch}.done")


class Gather(Part):
    """Up to how much is gathered into one batch. What is reached first closes it.

    Attributes:
        files: Number of files.
        bytes: Their size; a larger file is a batch by itself.
        records: Their records; likewise.
        seconds: How long, in seconds, the oldest file waits for others.
    """

    files: int = pydantic.Field(default=1000, ge=1, description="most files of a batch")
    bytes: int | None = pydantic.Field(default=None, ge=1, description="most bytes of its files")
    records: int | None = pydantic.Field(
        default=None, ge=1, description="most records of its files"
    )
    seconds: float = pydantic.Field(
        default=60.0, ge=0, description="seconds that the oldest file waits for others"
    )


class Source(Part):
    """Where deliveries appear: files of a path, or what a query brings.

    Attributes:
        gather: How files of a path without `{batch}` are gathered into batches.
        path: Pattern of the files of one delivery; `{batch}` stands for the partition key. A
            relative one starts at the folder that holds the feeds folder; one that begins with
            `s3://BUCKET/` is the keys of objects.
        settle_seconds: How long, in seconds, the files of a delivery must be unchanged before the
            sensor takes it for complete.
        complete: What makes a delivery complete: that its files have `settled`, a `manifest` of which
            every file is there, or a marker file.
        query: What to read of another database, in place of files.
        batches: A table of the system that loads, in which it says which files a batch is from.
    """

    # Before `path`, which looks at it.
    gather: Gather | None = pydantic.Field(
        default=None, description="how files of a path without {batch} are gathered into batches"
    )
    path: str = pydantic.Field(
        default="",
        description="files of one delivery, or s3://bucket/...; {batch} is the partition key",
    )
    settle_seconds: float = pydantic.Field(
        default=10.0, ge=0, description="seconds a delivery must be unchanged to count as complete"
    )
    complete: Literal["settled", "manifest"] | Marker = pydantic.Field(
        default="settled",
        description="what makes a delivery complete: settled, manifest, or {marker: NAME}",
    )
    query: Query | None = pydantic.Field(
        default=None, description="what to read of another database, in place of files"
    )
    batches: Batches | None = pydantic.Field(
        default=None, description="table of another loader that maps its batches to their files"
    )

    @pydantic.field_validator("complete", mode="before")
    @classmethod
    def _one_of_three(cls, value: object) -> object:
        if isinstance(value, Marker) or value in ("settled", "manifest"):
            return value
        name = value.get("marker") if isinstance(value, dict) and len(value) == 1 else None
        if not isinstance(name, str) or not name or "/" in name:
            message = (
                "must be settled, manifest, or {marker: NAME}, the name of a file beside the data, as "
                "in {marker: _SUCCESS}"
            )
            raise ValueError(message)
        return value

    @pydantic.model_validator(mode="after")
    def _sign_is_of_one_delivery(self) -> Self:
        own = bool(self.path) and PLACEHOLDER in self.parts[-1]
        if own and self.complete == "manifest":
            message = (
                f"`complete: manifest` takes a folder for each delivery, with {PLACEHOLDER} in its "
                "name: a manifest lists the files of one"
            )
            raise ValueError(message)
        if self.marker is None or not self.path:
            return self
        if own != (self.marker.count(PLACEHOLDER) == 1) or (own and _WILD & set(self.marker)):
            message = (
                f"`complete.marker` must name the partition once by {PLACEHOLDER}, without wildcards, "
                "as the names of the files do: else it would be a marker of all deliveries"
                if own
                else f"`complete.marker` stands in the folder of one delivery: leave out {PLACEHOLDER}"
            )
            raise ValueError(message)
        return self

    @pydantic.model_validator(mode="after")
    def _gathered_are_settled_files(self) -> Self:
        if self.gather is not None and (not self.path or self.complete != "settled"):
            message = "`gather` is for files of a `path`, which are complete once they have settled"
            raise ValueError(message)
        return self

    @pydantic.model_validator(mode="after")
    def _path_or_query(self) -> Self:
        if bool(self.path) + (self.query is not None) + (self.batches is not None) != 1:
            message = "must have one of `path`, the files' pattern, a `query`, and `batches`"
            raise ValueError(message)
        if self.query is not None and "settle_seconds" in self.model_fields_set:
            message = "`settle_seconds` is for files; a query is read in one snapshot"
            raise ValueError(message)
        if not self.path and "complete" in self.model_fields_set:
            message = "`complete` is for files of a `path`"
            raise ValueError(message)
        return self

    @pydantic.field_validator("path")
    @classmethod
    def _one_placeholder(cls, value: str, info: pydantic.ValidationInfo) -> str:
        url, bucket = _URL.match(value), _BUCKET.match(value)
        if url and url[1] != "s3":
            message = (
                f"must be a path or begin with s3://, not {url[1]}://: no other store can be read; "
                "have deliveries copied into a folder and write its path"
            )
            raise ValueError(message)
        if url and not bucket:
            message = (
                "must name the bucket alone behind s3://, as in s3://BUCKET/{batch}/*.csv; "
                "credentials, endpoint and region come from the environment"
            )
            raise ValueError(message)
        if bucket and {"", "."} & set(value[bucket.end() :].rstrip("/").split("/")):
            message = "must not contain '//' or '/./': a bucket takes them for other keys"
            raise ValueError(message)
        _check_placeholder(value, gathered=info.data.get("gather") is not None)
        if ".." in PurePosixPath(value).parts:
            message = "must not contain '..': write the path it leads to"
            raise ValueError(message)
        if value.endswith("/"):
            message = "must end with the names of files, as in *.csv"
            raise ValueError(message)
        if "**" in value:
            message = "must not contain '**': a delivery's files stand in one folder"
            raise ValueError(message)
        *folders, names = PurePosixPath(value).parts
        for part in [*folders, *([names] if PLACEHOLDER in names else [])]:
            if _WILD & set(part):
                message = (
                    f"must not have wildcards in {part!r}: they may stand in the names of files only, "
                    f"and not beside {PLACEHOLDER}"
                )
                raise ValueError(message)
        return value

    @property
    def marker(self) -> str | None:
        """Pattern of the name of the marker that makes a delivery complete, if one does."""
        return self.complete.marker if isinstance(self.complete, Marker) else None

    @property
    def bucket(self) -> str | None:
        """The bucket that the path begins with; None where it leads to folders."""
        found = _BUCKET.match(self.path)
        return found[1] if found else None

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the path below its bucket, its `/` or the folder where relative paths start."""
        found = _BUCKET.match(self.path)
        if found:
            return tuple(self.path[found.end() :].split("/"))
        path = PurePosixPath(self.path)
        return path.parts[1:] if path.is_absolute() else path.parts

    def key_pattern(self) -> re.Pattern[str]:
        """Give what a file's path must match, from where this one starts; its group is the key."""
        *folders, name = (part.partition(PLACEHOLDER) for part in self.parts)
        named = f"{_with_key(name)}\\Z" if name[1] else f"(?=[^/]*\\Z){fnmatch.translate(name[0])}"
        return re.compile("/".join([*map(_with_key, folders), named]))


def _with_key(part: tuple[str, str, str]) -> str:
    before, placeholder, after = part
    return re.escape(before) + ("([^/]*)" if placeholder else "") + re.escape(after)


def _check_placeholder(path: str, *, gathered: bool) -> None:
    if gathered and PLACEHOLDER in path:
        message = f"must not contain {PLACEHOLDER}: with `gather` batches get keys of their own"
        raise ValueError(message)
    if not gathered and path.count(PLACEHOLDER) != 1:
        message = f"must contain {PLACEHOLDER} exactly once: it becomes the partition key"
        raise ValueError(message)
