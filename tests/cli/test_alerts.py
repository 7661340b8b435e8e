"""`alerts`: listing, acknowledging, sending without the daemon, and trying the channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batch_pipelines.engine.alerts import Alert, raise_alert
from tests.support_channels import TOKEN, running_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Cli
    from tests.support_channels import Service
    from tests.support_shop import Shop

LATE = Alert(
    "late_delivery",
    "warning",
    "orders/2024-05-01 is late",
    "late_delivery/orders/2024-05-01",
    "orders",
)
FULL = Alert("disk_full", "critical", "the archive has 1 GB left", "disk_full/2024-05-01")
DONE = Alert("thresholds", "info", "orders is well again", "thresholds/orders/2", "orders")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A channel `ops`, set in the environment beside one that nobody runs."""
    with running_service() as service:
        monkeypatch.setenv(
            "BATCH_PIPELINES_ALERTS",
            f"ops={service.url} gone=json://127.0.0.1:9/{TOKEN} default=ops",
        )
        yield service


@pytest.fixture
def raised(shop: Shop) -> Shop:
    with shop.database.connect("test") as connection:
        for alert in (LATE, FULL, DONE):
            assert raise_alert(connection, alert)
    return shop


def test_alerts_are_listed_and_acknowledged(cli: Cli, raised: Shop) -> None:
    listed = cli("alerts")
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.splitlines()[4:7]] == ["3", "2", "1"]
    assert "orders/2024-05-01 is late" in listed.out
    assert [a["alert_id"] for a in cli("alerts", "--feed", "orders", "--json").json] == [3, 1]
    assert [a["alert_id"] for a in cli("alerts", "--open", "--json").json] == [2, 1]

    seen = cli("alerts", "ack", "1", "--note", "the sender knows")
    assert seen.code == 0
    assert "acknowledged by" in seen.out
    assert "(command line): the sender knows" in seen.out
    assert [a["alert_id"] for a in cli("alerts", "--open", "--json").json] == [2]
    (late,) = [a for a in cli("alerts", "--json").json if a["alert_id"] == 1]
    assert late["acknowledgement_note"] == "the sender knows"
    assert late["alert"]["deduplication_key"] == LATE.deduplication_key

    missing = cli("alerts", "ack", "4")
    assert (missing.code, missing.err) == (
        2, "Error: There is no alert 4; `batch-pipelines alerts` lists them.\n"
    )  # fmt: skip


def test_what_waits_is_sent(cli: Cli, raised: Shop, service: Service) -> None:
    sent = cli("alerts", "send")
    assert (sent.code, sent.out) == (0, "3 sent, 0 still to be sent.\n")
    assert len(service.got) == 3
    assert cli("alerts", "send", "--json").json == {"sent": 0, "failed": {}, "waiting": 0}
    assert " ops " in cli("alerts").out


def test_what_is_not_taken_is_said_without_a_secret(
    cli: Cli, raised: Shop, service: Service
) -> None:
    service.status = 500
    sent = cli("alerts", "send")
    assert (sent.code, sent.out) == (1, "0 sent, 3 still to be sent.\n")
    assert sent.err == "Error: channel ops: it answered 500.\n"
    assert " ops waits " in cli("alerts").out


def test_channels_are_tried(cli: Cli, raised: Shop, service: Service) -> None:
    tried = cli("alerts", "test")
    assert (tried.code, tried.out) == (1, "ops: sent.\n")
    assert "channel gone: it could not be reached" in tried.err
    assert TOKEN not in tried.err
    assert cli("alerts", "test", "--json").json["channels"]["ops"] is None
    assert service.titles == ["[test] batch-pipelines"] * 2


def test_without_a_channel_nothing_can_be_sent(cli: Cli, shop: Shop) -> None:
    for command in ("send", "test"):
        ran = cli("alerts", command)
        assert ran.code == 2
        assert "No channel is set. Set BATCH_PIPELINES_ALERTS to a URL" in ran.err
