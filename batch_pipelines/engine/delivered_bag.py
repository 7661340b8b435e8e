"""A delivery that comes as a bag (BagIt, RFC 8493): its payload manifests are what is promised.

The bag is only read, and its tag files from a copy: the library that knows the format takes folders
of this machine alone. Not here: bags that we write (`archive`).
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.statements import Statement

if TYPE_CHECKING:
    from collections.abc import Mapping

    import bagit

    from batch_pipelines.engine.landing.deliveries import Delivery

_PAYLOAD = "data/"
_PIECE_BYTES = 1_000_000


def read_bag(delivery: Delivery) -> list[Statement]:
    """Read what a delivered bag says of its payload.

    Args:
        delivery: The delivery; it came as a bag.

    Returns:
        What its payload manifests say of each file.

    Raises:
        DeliveryError: It is no valid bag, a tag file is not what the bag says, or its payload has a
            file more or less than its manifests or than the feed reads.
    """
    import bagit  # noqa: PLC0415  # a tenth of a second to import, for deliveries of this kind only

    place = next(tag for tag in delivery.tags if tag.name == "bagit.txt")
    with tempfile.TemporaryDirectory() as folder:
        for tag in delivery.tags:
            with tag.open() as reading, (Path(folder) / tag.name).open("wb") as writing:
                while piece := reading.read(_PIECE_BYTES):
                    writing.write(piece)
        try:
            bag = bagit.Bag(folder)
        except (bagit.BagError, UnicodeError) as error:
            kind = type(error).__name__
            message = f"{place}: the bag cannot be read ({kind}). Deliver the bag again."
            raise DeliveryError(message) from None
        _check_tags(bag, Path(folder), str(place))
        listed: Mapping[str, Mapping[str, str]] = bag.payload_entries()
    _check_payload(delivery, listed, str(place))
    names = {f"{_PAYLOAD}{file.name}": file.name for file in delivery.data}
    return [
        Statement(
            names[path],
            "manifest",
            str(place),
            "the bag's manifest",
            digests=_known(digests, str(place)),
        )
        for path, digests in sorted(listed.items())
        if path in names
    ]


def _check_tags(bag: bagit.Bag, folder: Path, place: str) -> None:
    """Compare the tag files with the bag's own word for them."""
    entries: Mapping[str, Mapping[str, str]] = bag.tagfile_entries()
    for name, digests in entries.items():
        copy = folder / name
        if "/" in name or not copy.exists():
            continue
        for algorithm, expected in _known(digests, place).items():
            if hashlib.new(algorithm, copy.read_bytes()).hexdigest() != expected:
                message = (
                    f"{place}: {name} beside it is not what the bag's tag manifest says ({algorithm}). "
                    "Deliver the bag again."
                )
                raise DeliveryError(message)


def _check_payload(delivery: Delivery, listed: Mapping[str, Mapping[str, str]], place: str) -> None:
    read = {f"{_PAYLOAD}{file.name}" for file in (*delivery.data, *delivery.control)}
    present = set(delivery.payload)
    problems = [f"{name} is listed but was not delivered" for name in listed.keys() - present]
    problems += [f"{name} was delivered but is not listed" for name in present - listed.keys()]
    problems += [
        f"{name} is listed, but the feed's path does not read it"
        for name in (listed.keys() & present) - read
    ]
    if problems:
        message = (
            f"{place}: the bag is not whole: {'; '.join(sorted(problems))}. Deliver the bag again, or "
            "let the feed's path read all of it."
        )
        raise DeliveryError(message)


def _known(digests: Mapping[str, str], place: str) -> dict[str, str]:
    """Take the digests that can be computed here; a bag needs one of them for each file."""
    known = {
        algorithm: digest.lower()
        for algorithm, digest in digests.items()
        if algorithm in hashlib.algorithms_guaranteed
    }
    if not known:
        message = (
            f"{place}: none of the bag's checksums can be computed here ({', '.join(sorted(digests))}). "
            "Deliver it with a manifest-sha256.txt or manifest-sha512.txt."
        )
        raise DeliveryError(message)
    return known
