"""Who has asked for a run, by what launched it."""

from __future__ import annotations

import pytest

from batch_pipelines.requesters import requested_by

SENSOR, BACKFILL = {"dagster/sensor_name": "s"}, {"dagster/backfill": "b"}
SCHEDULE = {"dagster/schedule_name": "nightly"}


@pytest.mark.parametrize(
    ("tags", "told", "is_web", "header", "expected"),
    [
        # Nothing that can be typed into the launchpad counts, the system's own tags included.
        ({}, "the boss (command line)", True, None, "unauthenticated"),
        (SENSOR, "sensor s", True, None, "unauthenticated"),
        ({}, "the boss", True, "ada@example.org", "ada@example.org (proxy)"),
        ({}, None, True, " \x00\n ", "unauthenticated"),
        ({}, None, True, "a\x1b[31mb\n", "a[31mb (proxy)"),
        (BACKFILL, "the boss", False, None, "unauthenticated"),
        (SENSOR, None, False, None, "sensor s"),
        (SENSOR, "ada (command line)", False, None, "ada (command line)"),
        (SCHEDULE, None, False, None, "schedule nightly"),
        ({}, "ada (proxy)", False, None, "ada (proxy)"),
        ({}, None, False, None, "unauthenticated"),
    ],
)
def test_who_has_asked_is_established_and_not_typed(
    tags: dict[str, str], told: str | None, is_web: bool, header: str | None, expected: str
) -> None:
    assert requested_by(tags, told, is_web=is_web, header=header) == expected
