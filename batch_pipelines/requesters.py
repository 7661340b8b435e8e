"""Who has asked for a run: as it was established, and never a name that somebody has typed.

A run's tags can be typed into Dagster's launchpad. So whatever a tag says of a run that comes from the
web is written over, before the run is in the queue. Not here: where that is done (`run_queue`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from batch_pipelines.engine.postgres.actor import UNAUTHENTICATED, behind_proxy

if TYPE_CHECKING:
    from collections.abc import Mapping

_SENSOR, _SCHEDULE, _BACKFILL = "dagster/sensor_name", "dagster/schedule_name", "dagster/backfill"
# A header of a proxy is a word or an address; anything else would only be in the way of who reads it.
_LONGEST: Final = 200


def requested_by(
    tags: Mapping[str, str], told: str | None, *, is_web: bool, header: str | None
) -> str:
    """Say who has asked for a run that is put into the queue.

    Args:
        tags: Its tags; Dagster's own say what launched it.
        told: What its tag of who asked for it says, if it has one.
        is_web: Whether it comes with a request to Dagster's web server.
        header: What the proxy before that says of who made the request; None where it says nothing, or
            the settings name no header.

    Returns:
        The principal. Of a run that a sensor or a schedule launched, what it said: that is code of ours,
        which names itself, or on whose behalf it acts. Of a retry by the daemon, who had asked first.
    """
    if is_web:
        name = "".join(character for character in header or "" if character.isprintable()).strip()
        return behind_proxy(name[:_LONGEST]) if name else UNAUTHENTICATED
    if _BACKFILL in tags:
        # The daemon launches its runs, and nothing tells who has clicked.
        return UNAUTHENTICATED
    if _SENSOR in tags:
        return told or f"sensor {tags[_SENSOR]}"
    if _SCHEDULE in tags:
        return told or f"schedule {tags[_SCHEDULE]}"
    return told or UNAUTHENTICATED
