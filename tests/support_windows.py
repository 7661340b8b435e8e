"""The shop with windows of time for partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG, RUN_KEY_TAG, SCHEDULE_NAME_TAG

from tests.support_shop import FEED

if TYPE_CHECKING:
    import datetime as dt

    from tests.support_shop import Shop


def with_windows(shop: Shop, said: str | None) -> None:
    """Have the feed say of its partitions what is said, or nothing.

    Args:
        shop: The shop.
        said: What stands in the braces of `partitions:`.
    """
    path = shop.settings.feeds / "orders.yaml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("partitions:")]
    lines += [] if said is None else [f"partitions: {{{said}}}"]
    path.write_text("\n".join(lines) + "\n")


def at(shop: Shop, time: dt.datetime) -> list[dg.RunRequest]:
    """Evaluate the schedule of the windows, as for a time."""
    defs = shop.defs
    with dg.build_schedule_context(
        instance=shop.instance,
        scheduled_execution_time=time,
        resources=dict(defs.resources or {}),
        repository_def=defs.get_repository_def(),
    ) as context:
        found = defs.resolve_schedule_def(f"windows_{FEED}").evaluate_tick(context)
    return [*(found.run_requests or ())]


def waiting(shop: Shop, request: dg.RunRequest) -> dg.DagsterRun:
    """Make the run that a schedule asked for, as the daemon does; it waits for its process."""
    job = shop.defs.resolve_job_def(FEED)
    return shop.instance.create_run_for_job(
        job,
        status=dg.DagsterRunStatus.STARTING,
        tags={
            **job.tags,
            **request.tags,
            RUN_KEY_TAG: str(request.run_key),
            SCHEDULE_NAME_TAG: f"windows_{FEED}",
            PARTITION_NAME_TAG: str(request.partition_key),
        },
    )
