"""What tests of alerts share."""

from __future__ import annotations

import datetime as dt
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pydantic
import pytest

from batch_pipelines.engine.alerts.channels import Channels
from tests.support_channels import running_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.postgres.database import Connection, Database
    from tests.support_channels import Service

NOON = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)


@dataclass
class Clock:
    """A clock that stands still until it is told."""

    now: dt.datetime = NOON

    def __call__(self) -> dt.datetime:
        """Give the time."""
        return self.now

    def forward(self, **time: float) -> None:
        """Let time pass."""
        self.now += dt.timedelta(**time)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(database18: Database) -> Iterator[Connection]:
    with database18.connect("test") as connection:
        yield connection


@pytest.fixture
def services() -> Iterator[dict[str, Service]]:
    """Services `default`, `lab` and `mail`."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(running_service()) for name in ("default", "lab", "mail")}


@pytest.fixture
def channels(services: dict[str, Service]) -> Channels:
    """The services as channels; the role `duty` stands for `lab` and `mail`."""
    urls = {name: pydantic.SecretStr(service.url) for name, service in services.items()}
    return Channels(urls, {"duty": ("lab", "mail")})
