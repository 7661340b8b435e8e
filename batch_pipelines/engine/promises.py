"""What is promised of a delivery's files: by manifests, sidecars, a bag, their store; and what is kept.

Whatever speaks of the same file has to say the same. Not here: reading it (`statements`,
`delivered_bag`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from batch_pipelines.engine.delivered_bag import read_bag
from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.landing.deliveries import MANIFESTS
from batch_pipelines.engine.statements import CRC32C, Statement, read_manifest, read_sidecar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from batch_pipelines.engine.landing.deliveries import Delivery
    from batch_pipelines.engine.ledger.files import ImportFile
    from batch_pipelines.engine.places.place import LandedFile, StoredChecksum

OBJECT_METADATA: Final = "object_metadata"


@dataclass(frozen=True)
class Promise:
    """What the sender says of one file.

    Attributes:
        crc32c: Its CRC32C, or None.
        size: Its size in bytes, or None.
        source: Where the checksum stood: `manifest`, `sidecar` or `object_metadata`.
        digests: Its other digests, hex: by where they stood and algorithm.
    """

    crc32c: int | None
    size: int | None
    source: str
    digests: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def algorithms(self) -> frozenset[str]:
        """Algorithms of the other digests."""
        return frozenset(name for told in self.digests.values() for name in told)


def read_promises(delivery: Delivery) -> dict[str, Promise]:
    """Read what the sender says of a delivery's files.

    Args:
        delivery: The delivery.

    Returns:
        A promise for each file that has one, by its name.

    Raises:
        DeliveryError: Something of it is not readable, two contradict each other, or a manifest lists
            other files than were delivered.
    """
    statements: list[Statement] = []
    if delivery.tags:
        statements += read_bag(delivery)
    for path in delivery.control:
        if path.name in MANIFESTS:
            listed = read_manifest(path)
            _require_same_files(path, listed, delivery.data)
            statements += listed
    statements += (read_sidecar(path) for path in delivery.control if path.name not in MANIFESTS)
    by_file: dict[str, list[Statement]] = {}
    for statement in statements:
        by_file.setdefault(statement.file_name, []).append(statement)
    return {name: _agreed(own) for name, own in by_file.items()}


def broken(file: ImportFile, *, size: int, crc: int, digests: Mapping[str, str]) -> Iterator[str]:
    """Say which promises of a file are not kept.

    Args:
        file: The file, with what was promised of it.
        size: Its size in bytes.
        crc: CRC32C of its bytes.
        digests: Their other digests, by algorithm; of all that were promised.

    Yields:
        A sentence's part for each.
    """
    if file.expected_size not in {None, size}:
        yield f"{file.file_name}: {size} bytes, but its manifest says {file.expected_size}"
    if file.expected_crc32c not in {None, crc}:
        yield differs(
            file.file_name, "CRC32C", f"{crc:08x}", f"{file.expected_crc32c:08x}",
            file.expected_source or "",
        )  # fmt: skip
    for source, told in file.expected_digests.items():
        for algorithm, expected in told.items():
            if digests[algorithm] != expected:
                yield differs(file.file_name, algorithm, digests[algorithm], expected, source)


def differs(name: str, what: str, computed: str, expected: str, source: str) -> str:
    """Say that a file is not what a source says."""
    return f"{name}: {what} is {computed}, but its {source} says {expected}"


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


def _agreed(statements: Sequence[Statement]) -> Promise:
    """Put together what several places say of a file; the last one has said it."""
    sizes = [(s, str(s.size)) for s in statements if s.size is not None]
    _require_agreement("size", sizes)
    algorithms = {name for statement in statements for name in statement.digests}
    for algorithm in sorted(algorithms):
        told = [(s, s.digests[algorithm]) for s in statements if algorithm in s.digests]
        _require_agreement(algorithm, told)
    crcs = [statement for statement in statements if CRC32C in statement.digests]
    digests: dict[str, dict[str, str]] = {}
    for statement in statements:
        others = {name: own for name, own in statement.digests.items() if name != CRC32C}
        if others:
            digests[statement.source] = {**digests.get(statement.source, {}), **others}
    return Promise(
        int(crcs[-1].digests[CRC32C], 16) if crcs else None,
        int(sizes[-1][1]) if sizes else None,
        (crcs or statements)[-1].source,
        digests,
    )


def _require_agreement(what: str, told: Sequence[tuple[Statement, str]]) -> None:
    for (first, value), (second, other) in itertools.pairwise(told):
        if value != other:
            message = (
                f"{second.where}: contradicts {first.name}: {what} of {second.file_name} is "
                f"{other} in the former, {value} in the latter. Deliver one of the two again."
            )
            raise DeliveryError(message)


def _require_same_files(
    path: LandedFile, listed: Iterable[Statement], data: Iterable[LandedFile]
) -> None:
    present, named = {file.name for file in data}, {statement.file_name for statement in listed}
    problems = [f"{name} is listed but was not delivered" for name in named - present]
    problems += [f"{name} was delivered but is not listed" for name in present - named]
    if problems:
        message = f"{path}: {'; '.join(sorted(problems))}. Deliver what is missing, or correct it."
        raise DeliveryError(message)
