"""A part of a bucket as an archive.

Nothing can be renamed in a bucket. So a bag is written under its name with the lease's token behind it,
the file that seals it last, after all others have been read there; without it nobody takes it for a bag.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import defaultdict
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boto3.s3.transfer import TransferConfig

from batch_pipelines.engine.archiving.archives import of_archive
from batch_pipelines.engine.archiving.tags import SEAL
from batch_pipelines.engine.errors import ArchiveError
from batch_pipelines.engine.failpoints import failpoint
from batch_pipelines.engine.places.s3_errors import understood
from batch_pipelines.engine.places.s3_object import BucketFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from types_boto3_s3 import S3Client

    from batch_pipelines.engine.places.place import Readable

_READ_BYTES = 1024 * 1024
# Slashes in the path of a bag's file: FEED/KEY/BATCH/FILE.
_DEPTH = 3
# Parts of an upload: a few in memory at a time, and 10,000 of them, S3's own limit, are 160 GB; above
# that boto3 takes larger ones.
_TRANSFER = TransferConfig(multipart_chunksize=16 * 1024 * 1024, max_concurrency=4)


@dataclass(frozen=True)
class ArchiveBucket:
    """A part of a bucket.

    Attributes:
        client: Speaks to the store.
        bucket: Name of the bucket.
        prefix: What the keys of all bags begin with: empty, or with a slash at its end.
        scratch: Folder of this machine in which bags are made.
    """

    client: S3Client
    bucket: str
    prefix: str
    scratch: Path

    def place(self, bag: str) -> str:
        """Give a bag's URL; see `Archive`."""
        return f"s3://{self.bucket}/{self.prefix}{bag}"

    def bags(self) -> Iterator[str]:
        """List bags; see `Archive`."""
        for file in self._list(""):
            name = file.path.removeprefix(self.prefix)
            if name.endswith(f"/{SEAL}") and name.count("/") == _DEPTH:
                yield name.removesuffix(f"/{SEAL}")

    def named(self, bag: str) -> Iterator[str]:
        """List bags by a name; see `Archive`."""
        for name, files in self._tries(bag).items():
            if any(file.name == SEAL for file in files):
                yield name

    def unfinished(self, partition: str | None) -> Iterator[str]:
        """List what is left of bags; see `Archive`."""
        found: dict[str, bool] = {}
        for file in self._list("" if partition is None else f"{partition}/"):
            name, slash, inside = _parts(file.path.removeprefix(self.prefix))
            if slash:
                found[name] = found.get(name, False) or inside == SEAL
        yield from (name for name, is_whole in found.items() if not is_whole)

    def files(self, bag: str) -> dict[str, int]:
        """List files; see `Archive`."""
        start = self._key(bag, "")
        return {file.path.removeprefix(start): file.size for file in self._list(f"{bag}/")}

    @contextmanager
    def read(self, bag: str, file: str) -> Iterator[Readable]:
        """Read a file; see `Archive`."""
        key = self._key(bag, file)
        with of_archive():
            with understood(f"s3://{self.bucket}/{key}"):
                head = self.client.head_object(Bucket=self.bucket, Key=key)
            with self._file(key, head["ContentLength"], head["ETag"]).open() as reading:
                yield reading

    def path(self, bag: str, file: str) -> None:
        """Say that no file stands on this machine; see `Archive`."""

    def remove(self, bag: str) -> None:
        """Delete a bag; see `Archive`. What makes it whole goes first."""
        files = [*self._list(f"{bag}/")]
        self._remove(sorted(files, key=lambda file: file.name != SEAL))

    def draft(self, bag: str, token: int) -> BucketDraft:
        """Begin a bag; see `Archive`."""
        for files in self._tries(bag).values():
            if all(file.name != SEAL for file in files):
                self._remove(files)
        self._abort_uploads(bag)
        start = bag.replace("/", "-")
        for leftover in self.scratch.glob(f"{start}.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        folder = self.scratch / f"{start}.{token}"
        folder.mkdir(parents=True)
        return BucketDraft(self, folder, f"{bag}.{token}")

    def put(self, bag: str, file: str, origin: Path) -> None:
        """Put a file of this machine into a bag.

        Args:
            bag: The bag.
            file: Its path in the bag.
            origin: The file.

        Raises:
            ArchiveError: The store does not take it.
        """
        key = self._key(bag, file)
        with (
            of_archive(),
            understood(f"s3://{self.bucket}/{key}"),
            origin.open("rb") as content,
        ):
            self.client.upload_fileobj(content, self.bucket, key, Config=_TRANSFER)

    def _key(self, bag: str, file: str) -> str:
        return f"{self.prefix}{bag}/{file}"

    def _tries(self, bag: str) -> dict[str, list[BucketFile]]:
        """List what was written under a name, whole or not, by the try's own name."""
        own = re.compile(re.escape(self.prefix) + f"({re.escape(bag)}" + r"\.[0-9]+)/")
        found = defaultdict[str, list[BucketFile]](list)
        for file in self._list(f"{bag}."):
            if match := own.match(file.path):
                found[match[1]].append(file)
        return found

    def _remove(self, files: list[BucketFile]) -> None:
        for file in files:
            with of_archive(), understood(file):
                self.client.delete_object(Bucket=self.bucket, Key=file.path)

    def _abort_uploads(self, bag: str) -> None:
        """End uploads in parts that a killed run has begun: the store keeps, and bills, their parts."""
        with of_archive(), understood(f"s3://{self.bucket}"):
            pages = self.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=f"{self.prefix}{bag}."
            )
            for page in pages:
                for upload in page.get("Uploads", ()):
                    self.client.abort_multipart_upload(
                        Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )

    def _list(self, start: str) -> Iterator[BucketFile]:
        with of_archive(), understood(f"s3://{self.bucket}"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=f"{self.prefix}{start}"
            )
            for page in pages:
                for entry in page.get("Contents", ()):
                    yield self._file(entry["Key"], entry["Size"], entry["ETag"])

    def _file(self, key: str, size: int, etag: str) -> BucketFile:
        return BucketFile(self.client, self.bucket, key, size, etag.strip('"'), 0.0)


@dataclass(frozen=True)
class BucketDraft:
    """A bag that is being written on this machine, to be put into a bucket; see `Draft`.

    Attributes:
        archive: The bucket.
        folder: Where it is written.
        bag: Its name.
    """

    archive: ArchiveBucket
    folder: Path
    bag: str

    def secure(self) -> None:
        """Put all but the seal into the bucket, and read it there; see `Draft`."""
        names = [
            p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file()
        ]
        names.remove(SEAL)
        for name in names:
            self.archive.put(self.bag, name, failpoint("archive.uploading", self.folder / name))
        for name in names:
            with (self.folder / name).open("rb") as content:
                sent = hashlib.file_digest(content, "sha256").digest()
            found = hashlib.sha256()
            with self.archive.read(self.bag, name) as reading:
                for piece in iter(lambda: reading.read(_READ_BYTES), b""):  # used at once
                    found.update(piece)
            if found.digest() != sent:
                message = (
                    f"{self.archive.place(self.bag)}/{name}: is not read as it was written. Run again; "
                    "if it stays so, the store does not keep what it is given."
                )
                raise ArchiveError(message)

    def seal(self) -> str:
        """Put the file that makes it whole; see `Draft`."""
        self.archive.put(self.bag, SEAL, self.folder / SEAL)
        shutil.rmtree(self.folder, ignore_errors=True)
        return self.bag

    def discard(self) -> None:
        """Remove it; see `Draft`."""
        shutil.rmtree(self.folder, ignore_errors=True)
        # A store that is away keeps it, for now.
        with suppress(ArchiveError):
            if SEAL not in self.archive.files(self.bag):
                self.archive.remove(self.bag)


def _parts(path: str) -> tuple[str, str, str]:
    """Tell a bag's name from the path of a file in it."""
    *folders, rest = path.split("/", _DEPTH)
    return "/".join(folders), "/" if len(folders) == _DEPTH else "", rest
