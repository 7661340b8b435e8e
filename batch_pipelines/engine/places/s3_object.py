"""An object of a bucket, read in one pass as it was when it was listed.

Every request names the listed ETag (If-Match), so no two states of an object are ever put together. A
transfer that breaks is gone on with where it broke.
"""

from __future__ import annotations

import base64
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError, FlexibleChecksumError

from batch_pipelines.engine.errors import DeliveryError, UnreachableError
from batch_pipelines.engine.places.place import (
    Reading,
    StoredChecksum,
    changed_while_read,
    name_of,
)
from batch_pipelines.engine.places.s3_errors import TRANSFER_ERRORS, code_of, understood

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from botocore.response import StreamingBody
    from types_boto3_s3 import S3Client

PAUSE_SECONDS: Final = 0.5
"""Wait after the first break of a transfer, in seconds; twice as long after each further one."""
MOST_BREAKS: Final = 5
"""Of a transfer, in a row without `_PROGRESS_BYTES` between them; then it is given up."""
_PROGRESS_BYTES = 4 * 1024 * 1024
# Most bytes that a folder's file name may have, on Linux and elsewhere.
_NAME_BYTES = 255
_CRC_BYTES = 4
# That an upload may have, by S3's own limit.
_MOST_PARTS = 10_000
_GONE_OR_OTHER = frozenset({"NoSuchKey", "NoSuchVersion", "PreconditionFailed"})


@dataclass(frozen=True)
class BucketFile:
    """An object of a bucket; see `LandedFile`.

    Attributes:
        client: Speaks to the store.
        bucket: Name of the bucket.
        path: Its key.
        size: In bytes.
        etag: What the store calls this state of its content.
        changed: When it was put there, seconds since 1970 by this machine's clock.
    """

    client: S3Client = field(repr=False)
    bucket: str
    path: str
    size: int
    etag: str
    changed: float

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.path}"

    @property
    def name(self) -> str:
        """The last part of its key."""
        return name_of(self.path)

    @property
    def state(self) -> tuple[str]:
        """The ETag. Listings do not tell versions; a put of the same content changes nothing."""
        return (self.etag,)

    @contextmanager
    def open(self) -> Iterator[Reading]:
        """Read it, as it was when it was listed; see `LandedFile`."""
        if self.name in {".", ".."} or "\0" in self.name or len(self.name.encode()) > _NAME_BYTES:
            message = f"{self}: no file can have that name. Deliver it under another."
            raise DeliveryError(message)
        transfer = _Transfer(self)
        try:
            yield Reading(transfer.read, transfer.stored)
        finally:
            transfer.close()


class _Transfer:
    """The bytes of an object, whatever becomes of the connections that they come by."""

    def __init__(self, file: BucketFile) -> None:
        self._file, self._at = file, 0
        self._breaks, self._progress = 0, 0
        self._version: dict[str, Any] = {}
        answer = self._get(ChecksumMode="ENABLED")
        self._body: StreamingBody = answer["Body"]
        if "VersionId" in answer:
            self._version = {"VersionId": answer["VersionId"]}
        try:
            self.stored = self._stored(answer)
        except DeliveryError:
            self.close()
            raise

    def read(self, size: int) -> bytes:
        """Give at most so many bytes; none at the end."""
        while True:
            piece = None
            try:
                piece = self._body.read(size)
            except TRANSFER_ERRORS:
                pass
            except FlexibleChecksumError:
                message = (
                    f"{self._file}: what arrived does not have the checksum that the store keeps of it. "
                    "Run again; if it stays so, deliver it again."
                )
                raise DeliveryError(message) from None
            if piece is not None or self._at == self._file.size:
                self._at += len(piece or b"")
                return piece or b""
            self._go_on()

    def close(self) -> None:
        """Give the connection back, or up where bytes are left."""
        self._body.close()

    def _go_on(self) -> None:
        """Ask for the rest, after a pause."""
        self.close()
        if self._at - self._progress >= _PROGRESS_BYTES:
            self._breaks = 0
        self._progress = self._at
        self._breaks += 1
        if self._breaks > MOST_BREAKS:
            message = (
                f"{self._file}: its transfer broke {self._breaks} times, last at byte {self._at} of "
                f"{self._file.size}. Check the network and the store, and run again."
            )
            raise UnreachableError(message)
        time.sleep(PAUSE_SECONDS * 2 ** (self._breaks - 1))
        self._body = self._get(Range=f"bytes={self._at}-")["Body"]

    def _get(self, **more: Any) -> Mapping[str, Any]:
        file = self._file
        with self._asked():
            answer = file.client.get_object(
                Bucket=file.bucket, Key=file.path, IfMatch=f'"{file.etag}"', **self._version, **more
            )
        # Not every store heeds conditions and ranges.
        if answer["ETag"].strip('"') != file.etag or (
            answer["ContentLength"] != file.size - self._at
        ):
            answer["Body"].close()
            raise changed_while_read(file)
        return answer

    @contextmanager
    def _asked(self) -> Iterator[None]:
        with understood(self._file):
            try:
                yield
            except ClientError as error:
                if code_of(error) in _GONE_OR_OTHER:
                    raise changed_while_read(self._file) from None
                raise

    def _stored(self, answer: Mapping[str, Any]) -> StoredChecksum | None:
        value, _, count = answer.get("ChecksumCRC32C", "").partition("-")
        try:
            crc = base64.b64decode(value, validate=True)
        except ValueError:
            return None
        if len(crc) != _CRC_BYTES:
            return None
        if not count and answer.get("ChecksumType") != "COMPOSITE":
            return StoredChecksum(int.from_bytes(crc, "big"))
        parts = self._part_sizes(int(count) if count.isdecimal() else 0)
        # A part of no bytes has no end that could be seen in them.
        if 0 in parts or not parts or sum(parts) != self._file.size:
            return None
        return StoredChecksum(int.from_bytes(crc, "big"), parts)

    def _part_sizes(self, count: int) -> tuple[int, ...]:
        """Ask for the sizes of the object's parts, a thousand at a time, or else one by one.

        The first takes a right of its own (s3:GetObjectAttributes), and not every store knows it.
        None where neither tells.
        """
        with understood(self._file):
            try:
                return self._listed_sizes() or self._single_sizes(count)
            except ClientError:
                return ()

    def _listed_sizes(self) -> tuple[int, ...]:
        file, sizes, more = self._file, [], True
        marker: dict[str, Any] = {}
        while more:
            try:
                answer = file.client.get_object_attributes(
                    Bucket=file.bucket, Key=file.path, ObjectAttributes=["ETag", "ObjectParts"],
                    **self._version, **marker,
                )  # fmt: skip
            except ClientError:
                return ()
            if answer.get("ETag", "").strip('"') != file.etag:
                return ()
            parts = answer.get("ObjectParts", {})
            sizes += [part["Size"] for part in parts.get("Parts", ())]
            marker = {"PartNumberMarker": parts.get("NextPartNumberMarker")}
            more = parts.get("IsTruncated", False)
        return tuple(sizes)

    def _single_sizes(self, count: int) -> tuple[int, ...]:
        file = self._file
        heads = (
            file.client.head_object(
                Bucket=file.bucket, Key=file.path, PartNumber=number, **self._version
            )
            for number in range(1, min(count, _MOST_PARTS) + 1)
        )
        return tuple(head["ContentLength"] for head in heads)
