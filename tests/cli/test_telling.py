"""What `dev` tells in its terminal: batches, alerts, and of Dagster's log what matters."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime

import pydantic
import pytest

from batch_pipelines.cli.channel import terminal_channel
from batch_pipelines.cli.dagster_log import worth_telling
from batch_pipelines.cli.following import changes
from batch_pipelines.engine.alerts.message import Message
from batch_pipelines.engine.alerts.sending import Courier
from batch_pipelines.engine.ledger.batches import Batch

_AT = datetime(2026, 1, 5, tzinfo=UTC)
BATCH = Batch(
    batch_id="1", job_id="1", adopted_from=None, feed="orders", feed_version=1,
    partition_key="2026-01-05", status="IN_PROGRESS", attempt=1, identity=None, duplicate_of=None,
    fingerprint=None, requested_by="sensor landing_orders", correlation_id="1", source_records=5,
    written_records=4, rejected_records=1, critical_records=0, skipped_records=0,
    started_at=_AT, published_at=None,
    completed_at=None, superseded_by=None, error_details="orders/2026-01-05: no file.\nDeliver it.",
    failure_cause=None, rolled_back_at=None, rolled_back_by="Ada", rollback_reason="wrong list",
    rollback_possible_until=None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("status", "attempt", "said"),
    [
        ("IN_PROGRESS", 1, "by sensor landing_orders"),
        ("IN_PROGRESS", 2, "by sensor landing_orders, attempt 2"),
        ("SUCCESS", 1, "4 records written; 1 set aside"),
        ("FAILED", 1, "no file. Deliver it.; batch-pipelines show orders/2026-01-05"),
        ("ROLLED_BACK", 1, "by Ada, wrong list"),
        ("DUPLICATE", 1, ""),
    ],
)
def test_a_batch_is_told_when_its_state_changes(status: str, attempt: int, said: str) -> None:
    batch = replace(BATCH, status=status, attempt=attempt)
    assert changes({"1": "another"}, [batch]) == [(batch, said)]
    assert changes({}, [batch]) == [(batch, said)]
    assert changes({"1": status}, [batch]) == []


def test_those_between_publish_and_validate_are_not_told_and_the_others_oldest_first() -> None:
    older, newer = (replace(BATCH, batch_id=one, status="SUCCESS") for one in "ab")
    between = replace(BATCH, batch_id="c", status="PUBLISHED")
    assert [batch.batch_id for batch, _ in changes({}, [between, newer, older])] == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "\x1b[32m2026-11-22 18:00:41 +0000\x1b[0m - dagster.daemon.X - \x1b[31mERROR\x1b[0m - off\n",
            "dagster.daemon.X: error: off",
        ),
        ("2026-11-22 18:00:41 +0000 - dagster.daemon.SensorDaemon - INFO - Checking", None),
        ("2026-11-22 18:05:05 +0000 - dagster - ERROR - orders - 1 - 2 - STEP_FAILURE", None),
        ('  File "utils.py", line 57, in boundary', None),
    ],
)
def test_of_dagsters_log_complaints_of_services_are_told(line: str, said: str | None) -> None:
    assert worth_telling(line) == said


def test_alerts_that_apprise_sends_come_to_the_terminal_without_what_it_would_obey() -> None:
    told: list[tuple[str, str]] = []
    with (
        terminal_channel(lambda title, text: told.append((title, text))) as url,
        Courier(pydantic.SecretStr(url), seconds=60) as courier,
    ):
        sent = courier.send(Message("it \x1b[31mfailed", "why: no file\nnext: show", "failure"))
    assert sent is None
    assert told == [("it [31mfailed", "why: no file\nnext: show")]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/else/", json.dumps({"title": "a", "message": "b"}), 404),
        (None, "no JSON", 400),
        (None, "[]", 400),
        (None, '{"title": "a"}', 400),
        (None, " " * 100_001, 413),
    ],
)
def test_nothing_else_is_taken(path: str | None, body: str, status: int) -> None:
    told: list[str] = []
    with terminal_channel(lambda title, _: told.append(title)) as url:
        place, _, secret = url.removeprefix("json://").partition("/")
        request = urllib.request.Request(  # our own, on loopback
            f"http://{place}{path or '/' + secret}", body.encode()
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)  # noqa: S310
        refused.value.close()
    assert refused.value.code == status
    assert told == []
