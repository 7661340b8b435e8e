"""What is promised of a delivery's files: by sidecars (`FILE.crc32c`), `manifest.csv`, their store."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.landing import MANIFEST, SIDECAR_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_pipelines.engine.landing import Delivery
    from batch_pipelines.engine.places.place import LandedFile, StoredChecksum

OBJECT_METADATA: Final = "object_metadata"
_PIECE_BYTES = 1_000_000


@dataclass(frozen=True)
class Promise:
    """What the sender says of one file.

    Attributes:
        crc32c: Its CRC32C, or None.
        size: Its size in bytes, or None.
        source: Where the checksum stood: `manifest`, `sidecar` or `object_metadata`.
    """

    crc32c: int | None
    size: int | None
    source: str


def read_promises(delivery: Delivery) -> dict[str, Promise]:
    """Read what the sender says of a delivery's files.

    Args:
        delivery: The delivery.

    Returns:
        A promise for each file that has one, by its name.

    Raises:
        DeliveryError: A sidecar or the manifest is not readable, they contradict each other, or the
            manifest lists other files than were delivered.
    """
    promises: dict[str, Promise] = {}
    for path in delivery.control:
        if path.name == MANIFEST:
            promises |= _read_manifest(path, delivery.data)
    for path in delivery.control:
        if path.name == MANIFEST:
            continue
        name = path.name.removesuffix(SIDECAR_SUFFIX)
        words = _text(path).split()
        crc = _parse_crc(words[0] if words else "", str(path))
        other = promises.get(name)
        if other is not None and other.crc32c not in {None, crc}:
            message = f"{path}: contradicts {MANIFEST}. Deliver one of the two again."
            raise DeliveryError(message)
        promises[name] = Promise(crc, other.size if other else None, "sidecar")
    return promises


def promised_crc32c(
    file: LandedFile, promise: Promise | None, stored: StoredChecksum | None
) -> Promise | None:
    """Say what a file's CRC32C shall be: what the sender says, or else what its store keeps.

    Args:
        file: The file.
        promise: What the sender says of it, if anything.
        stored: What its store says, if anything.

    Returns:
        A promise with a checksum of all bytes of the file; None where nobody has given one.

    Raises:
        DeliveryError: The two contradict each other.
    """
    if promise is not None and promise.crc32c is None:
        promise = None
    if stored is None or stored.parts:
        return promise
    if promise is None:
        return Promise(stored.crc32c, file.size, OBJECT_METADATA)
    if promise.crc32c != stored.crc32c:
        message = (
            f"{file}: its {promise.source} says CRC32C {promise.crc32c:08x}, its {OBJECT_METADATA} "
            f"{stored.crc32c:08x}. Deliver the file or its {promise.source} again."
        )
        raise DeliveryError(message)
    return promise


def _read_manifest(path: LandedFile, data: Sequence[LandedFile]) -> dict[str, Promise]:
    with io.StringIO(_text(path), newline="") as lines:
        rows = csv.DictReader(lines)
        if rows.fieldnames is None or "file_name" not in rows.fieldnames:
            message = (
                f"{path}:1: expected a header with file_name and any of size (bytes), crc32c (hex); "
                "deliver the manifest again."
            )
            raise DeliveryError(message)
        promises = {}
        for row in rows:
            where = f"{path}:{rows.line_num}"
            if row["file_name"] in promises:
                message = f"{where}: {row['file_name']} stands twice. Deliver the manifest again."
                raise DeliveryError(message)
            crc, size = (row.get("crc32c") or "").strip(), (row.get("size") or "").strip()
            if size and not size.isdecimal():
                message = f"{where}: size must be a number of bytes. Deliver the manifest again."
                raise DeliveryError(message)
            promises[row["file_name"]] = Promise(
                _parse_crc(crc, where) if crc else None, int(size) if size else None, "manifest"
            )
    present = {p.name for p in data}
    problems = [f"{name} is listed but was not delivered" for name in promises.keys() - present]
    problems += [f"{name} was delivered but is not listed" for name in present - promises.keys()]
    if problems:
        message = f"{path}: {'; '.join(sorted(problems))}. Deliver what is missing, or correct it."
        raise DeliveryError(message)
    return promises


def _text(file: LandedFile) -> str:
    with file.open() as reading:
        content = b"".join(iter(lambda: reading.read(_PIECE_BYTES), b""))
    return content.decode("utf-8-sig", errors="replace")


def _parse_crc(text: str, where: str) -> int:
    digits = text.lower().removeprefix("0x")
    if len(digits) == 8 and set(digits) <= set("0123456789abcdef"):  # noqa: PLR2004  # 32 bits
        return int(digits, 16)
    message = f"{where}: expected a CRC32C as 8 hex digits. Deliver it again."
    raise DeliveryError(message)
