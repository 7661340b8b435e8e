"""What a sender says of single files: statements in manifests (CSV, JSON) and sidecars.

Not here: what becomes of statements about the same file (`promises`), and bags (`delivered_bag`).
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Final

import pydantic

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.landing.deliveries import JSON_MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batch_pipelines.engine.places.place import LandedFile

CRC32C: Final = "crc32c"
# Hex digits of what manifests and sidecars may hold.
_DIGITS: Final = {CRC32C: 8, "sha256": 64}
_NAMES: Final = {CRC32C: "CRC32C", "sha256": "SHA-256"}
_PIECE_BYTES = 1_000_000


@dataclass(frozen=True)
class Statement:
    """What one place says of one file.

    Attributes:
        file_name: The file.
        source: What kind of place: `manifest` or `sidecar`.
        where: The place, for people.
        name: The same in short.
        size: In bytes, or None.
        digests: Hex digits in lower case, by algorithm; `crc32c` among them.
    """

    file_name: str
    source: str
    where: str
    name: str
    size: int | None = None
    digests: Mapping[str, str] = field(default_factory=dict)


class _Entry(pydantic.BaseModel):
    """An object of manifest.json; what else stands in it is the sender's own."""

    file_name: str
    size: Annotated[int, pydantic.Field(strict=True, ge=0)] | None = None
    crc32c: str | None = None
    sha256: str | None = None


class _Manifest(pydantic.BaseModel):
    files: list[_Entry]


def read_sidecar(path: LandedFile) -> Statement:
    """Read `FILE.crc32c` or `FILE.sha256`: the digest is its first word.

    Args:
        path: The sidecar.

    Returns:
        What it says.

    Raises:
        DeliveryError: It holds no such digest.
    """
    own = PurePath(path.name)
    algorithm = own.suffix.removeprefix(".")
    words = text_of(path).split()
    digest = _parse(algorithm, words[0] if words else "", str(path))
    return Statement(own.stem, "sidecar", str(path), path.name, digests={algorithm: digest})


def read_manifest(path: LandedFile) -> list[Statement]:
    """Read `manifest.csv` or `manifest.json`.

    Args:
        path: The manifest.

    Returns:
        What it says of each file; of none twice.

    Raises:
        DeliveryError: It cannot be read, names a file twice, or holds no such size or digest.
    """
    found = _of_json(path) if path.name == JSON_MANIFEST else _of_csv(path)
    statements: dict[str, Statement] = {}
    for where, entry in found:
        if entry.file_name in statements:
            message = f"{where}: {entry.file_name} stands twice. Deliver the manifest again."
            raise DeliveryError(message)
        told = {CRC32C: entry.crc32c, "sha256": entry.sha256}
        statements[entry.file_name] = Statement(
            entry.file_name,
            "manifest",
            where,
            path.name,
            entry.size,
            {name: _parse(name, text, where) for name, text in told.items() if text},
        )
    return [*statements.values()]


def text_of(file: LandedFile) -> str:
    """Read a file of the sender's as UTF-8; what is no UTF-8 makes no digest and no name."""
    with file.open() as reading:
        content = b"".join(iter(lambda: reading.read(_PIECE_BYTES), b""))
    return content.decode("utf-8-sig", errors="replace")


def _of_csv(path: LandedFile) -> Iterator[tuple[str, _Entry]]:
    with io.StringIO(text_of(path), newline="") as lines:
        rows = csv.DictReader(lines)
        if rows.fieldnames is None or "file_name" not in rows.fieldnames:
            message = (
                f"{path}:1: expected a header with file_name and any of size (bytes), crc32c, sha256 "
                "(hex); deliver the manifest again."
            )
            raise DeliveryError(message)
        for row in rows:
            where = f"{path}:{rows.line_num}"
            size, crc, sha256 = ((row.get(name) or "").strip() for name in ("size", *_DIGITS))
            if size and not (size.isascii() and size.isdecimal()):
                message = f"{where}: size must be a number of bytes. Deliver the manifest again."
                raise DeliveryError(message)
            name = row["file_name"] or ""
            yield (
                where,
                _Entry(file_name=name, size=int(size) if size else None, crc32c=crc, sha256=sha256),
            )


def _of_json(path: LandedFile) -> Iterator[tuple[str, _Entry]]:
    try:
        content = json.loads(text_of(path), object_pairs_hook=_without_twice)
    except (ValueError, RecursionError) as error:
        place = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        why = "is no JSON" if place else "is nested too deep, or has a key twice in an object"
        raise DeliveryError(f"{path}{place}: {why}. Deliver the manifest again.") from None
    try:
        manifest = _Manifest.model_validate(
            {"files": content} if isinstance(content, list) else content
        )
    except pydantic.ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"]) or "files"
        message = (
            f"{path}: {place} is missing or not as expected: a list of objects with file_name and any "
            "of size (bytes, a number), crc32c, sha256 (hex); or an object that has it as `files`. "
            "Deliver the manifest again."
        )
        raise DeliveryError(message) from None
    for number, entry in enumerate(manifest.files):
        yield f"{path}: files.{number}", entry


def _without_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def _parse(algorithm: str, text: str, where: str) -> str:
    digits = text.strip().lower()
    if algorithm == CRC32C:
        digits = digits.removeprefix("0x")
    wanted = _DIGITS[algorithm]
    if len(digits) == wanted and set(digits) <= set("0123456789abcdef"):
        return digits
    message = f"{where}: expected a {_NAMES[algorithm]} as {wanted} hex digits. Deliver it again."
    raise DeliveryError(message)
