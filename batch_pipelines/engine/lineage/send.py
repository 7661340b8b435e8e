"""Sending what is due, as far as it is taken."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.lineage.due import due, mark_sent
from batch_pipelines.engine.lineage.facts import read_facts

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Mapping

    from openlineage.client.event_v2 import RunEvent

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings

VARIABLE = "BATCH_PIPELINES_OPENLINEAGE_URL"
_MOST = 200
_TIMEOUT_SECONDS = 5.0
# One sender at a time: an event that two send would be two to the catalog.
_ALONE = "SELECT pg_try_advisory_lock(hashtextextended('batch_audit.lineage_sent', 0))"
_LEAVE = "SELECT pg_advisory_unlock(hashtextextended('batch_audit.lineage_sent', 0))"


@dataclass(frozen=True)
class Sent:
    """What became of sending.

    Attributes:
        sent: How many events were taken.
        problem: Why no more were, None where all were; without the URL, which may hold a secret.
    """

    sent: int
    problem: str | None = None


def send_due(
    connection: Connection,
    settings: Settings,
    feeds: Mapping[str, Feed],
    clock: Callable[[], dt.datetime],
    *,
    budget: float,
) -> Sent:
    """Send the events of the last day that nobody has taken yet, oldest first.

    An event is written down when it was taken. Where we die in between it is sent again, and a catalog
    knows it by run and type.

    Args:
        connection: A connection in autocommit mode.
        settings: The settings; without a URL nothing is sent.
        feeds: The feeds, by name.
        clock: Gives the time.
        budget: Seconds after which no other event is begun.

    Returns:
        How many were taken, and why no more.

    Raises:
        SettingsError: The client is not installed, or the URL is none.
    """
    if settings.openlineage_url is None:
        return Sent(0)
    row = connection.execute(_ALONE).fetchone()
    if row is None or not row[0]:
        return Sent(0)
    try:
        return _send(connection, settings, feeds, clock, time.monotonic() + budget)
    finally:
        connection.execute(_LEAVE)


def _send(
    connection: Connection,
    settings: Settings,
    feeds: Mapping[str, Feed],
    clock: Callable[[], dt.datetime],
    deadline: float,
) -> Sent:
    waiting = due(connection, clock(), _MOST)
    if not waiting:
        return Sent(0)
    emit = _client(settings)
    # A fifth of a second to import, which nothing else needs.
    import requests  # noqa: PLC0415

    from batch_pipelines.engine.lineage.events import run_event  # noqa: PLC0415

    for number, each in enumerate(waiting):
        if time.monotonic() > deadline:
            return Sent(number, "there was no time for more")
        event = run_event(
            read_facts(connection, feeds, each.batch_id), each, settings.openlineage_namespace
        )
        try:
            emit(event)
        except requests.HTTPError as error:
            status = None if error.response is None else error.response.status_code
            return Sent(number, f"the catalog answered {status}")
        except (requests.RequestException, OSError) as error:
            # Its text has the URL.
            return Sent(number, f"the catalog cannot be reached ({type(error).__name__})")
        mark_sent(connection, each, clock())
    return Sent(len(waiting))


def _client(settings: Settings) -> Callable[[RunEvent], None]:
    try:
        from openlineage.client import OpenLineageClient  # noqa: PLC0415  # as above
    except ImportError:
        message = f"{VARIABLE} is set, and its client is missing: pip install openlineage-python"
        raise SettingsError(message) from None
    url, key = settings.openlineage_url, settings.openlineage_api_key
    transport: dict[str, object] = {
        "type": "http", "url": "" if url is None else url.get_secret_value(),
        "timeout": _TIMEOUT_SECONDS,
        # The sensor tries again.
        "retry": {"total": 0, "read": 0, "connect": 0, "status_forcelist": []},
    }  # fmt: skip
    if key is not None:
        transport["auth"] = {"type": "api_key", "apiKey": key.get_secret_value()}
    try:
        return OpenLineageClient(config={"transport": transport}).emit
    except ValueError:
        message = f"{VARIABLE} is no URL; expected one like http://marquez.example:5000"
        raise SettingsError(message) from None
