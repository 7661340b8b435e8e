"""Buckets of an S3 store as places: Amazon's, or any that AWS_ENDPOINT_URL leads to.

Credentials, endpoint and region are boto3's own business, which takes them from the usual variables and
profile. Not here: the words for what goes wrong (`s3_errors`), and reading an object (`s3_object`).
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.loaders import Loader

from batch_pipelines.engine.places.place import Names, anything, name_of, nobody
from batch_pipelines.engine.places.s3_errors import understood
from batch_pipelines.engine.places.s3_object import BucketFile

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from types_boto3_s3 import S3Client

_WILD = re.compile(r"[*?\[]")
# Seconds. boto3 tries five times, and a sensor's tick has sixty to say that nobody answers.
_CONNECT_SECONDS, _READ_SECONDS = 5, 20


def open_bucket(name: str) -> Bucket:
    """Open a bucket as the environment says; nothing is asked of the store yet.

    Args:
        name: The bucket.

    Returns:
        The bucket.

    Raises:
        DeliveryError: The environment cannot be used.
    """
    with understood(f"s3://{name}"):
        session = botocore.session.get_session()
        session.register_component("data_loader", _descriptions())
        client = boto3.session.Session(botocore_session=session).client(
            "s3",
            config=Config(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                # Of ranges some stores send the whole object's checksum, which would not be theirs:
                # who reads says when it shall be compared.
                response_checksum_validation="when_required",
            ),
        )
    return Bucket(client, name)


@cache
def _descriptions() -> Loader:
    """Give what botocore reads about services, so that it takes half a second once and not each time."""
    return Loader()


@dataclass(frozen=True)
class Bucket:
    """A bucket.

    Attributes:
        client: Speaks to the store.
        name: The bucket's name.
        clock: Seconds since 1970.
    """

    client: S3Client
    name: str
    clock: Callable[[], float] = time.time

    def files(
        self,
        folder: str,
        names: Collection[str],
        *,
        wanted: Callable[[str], bool] = anything,
        problem: Callable[[str], object] = nobody,  # noqa: ARG002  # a bucket is listed or not
    ) -> Iterator[BucketFile]:
        """List objects; see `Place`.

        By a thousand with one request: one listing where the folder has a `*`, of all that begins like
        it, and otherwise one for each beginning of the names.
        """
        deep = "*" in folder
        folder_pattern = re.escape(f"{folder}/" if folder else "").replace(r"\*", "([^/]*)")
        # No name: some tools put an object of that kind for a folder.
        ours = re.compile(f"{folder_pattern}([^/]+)")
        matching = Names(names, anything if deep else wanted)
        for prefix in _prefixes(folder, names):
            for key, entry, fast in self._list(prefix, deep=deep):
                match = ours.fullmatch(key)
                if match and matching.match(name_of(key)) and (not deep or wanted(match[1])):
                    yield BucketFile(
                        client=self.client,
                        bucket=self.name,
                        path=key,
                        size=entry["Size"],
                        etag=entry["ETag"].strip('"'),
                        changed=entry["LastModified"].timestamp() + fast,
                    )

    def _list(self, prefix: str, *, deep: bool) -> Iterator[tuple[str, Mapping[str, Any], float]]:
        """List objects by their keys' beginning, with how fast our clock goes against the store's."""
        level: dict[str, Any] = {} if deep else {"Delimiter": "/"}
        with understood(f"s3://{self.name}"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.name, Prefix=prefix, **level
            )
            for page in pages:
                date = page["ResponseMetadata"]["HTTPHeaders"].get("date")
                now = self.clock()
                fast = now - parsedate_to_datetime(date).timestamp() if date else 0.0
                for entry in page.get("Contents", ()):
                    yield entry["Key"], entry, fast


def _prefixes(folder: str, names: Collection[str]) -> list[str]:
    """Say how the keys begin that are to be listed, none of them twice."""
    head, wild, _ = folder.partition("*")
    if wild:
        return [head]
    start = f"{folder}/" if folder else ""
    heads = {start + _WILD.split(name, maxsplit=1)[0] for name in names}
    return [own for own in sorted(heads) if not any(own.startswith(h) for h in heads if h != own)]
