"""Which archive an address leads to, and where a feed's bags go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from batch_pipelines.engine.archiving.archives import of_archive
from batch_pipelines.engine.archiving.folder import ArchiveFolder

if TYPE_CHECKING:
    from batch_pipelines.engine.archiving.archives import Archive
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.settings import Settings

_BUCKET = "s3://"


def archive_of(settings: Settings, feed: Feed) -> Archive:
    """Open the archive in which a feed's bags stand from now on.

    Args:
        settings: Say where bags stand without a word of the feed.
        feed: The feed.

    Returns:
        The archive; nothing is asked of it yet.

    Raises:
        ArchiveError: The environment does not say how to reach it.
    """
    return open_archive(settings, address_of(settings, feed))


def address_of(settings: Settings, feed: Feed) -> str:
    """Give the address of a feed's archive: a full path or URL."""
    to = feed.archive.to
    if not to:
        return settings.archive_address
    return to if to.startswith(_BUCKET) else str(settings.root / to)


def open_archive(settings: Settings, address: str) -> Archive:
    """Open the archive at an address.

    Args:
        settings: Say where bags are made that go into a bucket.
        address: A full path or URL.

    Returns:
        The archive; nothing is asked of it yet.

    Raises:
        ArchiveError: The environment does not say how to reach it.
    """
    if not address.startswith(_BUCKET):
        return ArchiveFolder(Path(address))
    # It takes a third of a second to import, which folders need not wait for.
    from batch_pipelines.engine.archiving.bucket import ArchiveBucket  # noqa: PLC0415
    from batch_pipelines.engine.places.s3 import open_bucket  # noqa: PLC0415

    name, _, prefix = address.removeprefix(_BUCKET).partition("/")
    with of_archive():
        bucket = open_bucket(name)
    return ArchiveBucket(
        bucket.client, name, f"{prefix}/" if prefix else "", settings.home / "archiving"
    )


def place_of(settings: Settings, place: str) -> tuple[Archive, str]:
    """Find a bag by its full path or URL, whichever archive that was when it was written.

    Args:
        settings: As for `open_archive`.
        place: Where the bag stands.

    Returns:
        An archive, and the bag's name in it.

    Raises:
        ArchiveError: The environment does not say how to reach it.
    """
    address, _, bag = place.rpartition("/")
    return open_archive(settings, address), bag
