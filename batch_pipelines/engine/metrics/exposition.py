"""How metrics get out: as a text file that is replaced at once, or over HTTP on the loopback address."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    generate_latest,
    start_http_server,
    write_to_textfile,
)

from batch_pipelines.engine.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prometheus_client.registry import Collector

HOST = "127.0.0.1"


def as_text(collector: Collector) -> str:
    """Write the metrics in Prometheus' text format.

    Args:
        collector: Reads them.

    Returns:
        The text.
    """
    return generate_latest(_registry(collector)).decode()


def write_file(collector: Collector, path: Path) -> None:
    """Write the metrics to a file for node_exporter's textfile collector.

    It is written beside and renamed, so that nobody ever reads half of it.

    Args:
        collector: Reads them.
        path: The file; node_exporter reads those that end in `.prom`.

    Raises:
        SettingsError: It cannot be written.
    """
    try:
        write_to_textfile(str(path), _registry(collector))
    except OSError as error:
        message = (
            f"{path}: metrics cannot be written there ({error.strerror}). Choose another --file."
        )
        raise SettingsError(message) from None


@contextmanager
def served(collector: Collector, port: int) -> Iterator[str]:
    """Answer scrapes for as long as the block lasts; each reads the ledger anew.

    Args:
        collector: Reads the metrics, also from several threads at once.
        port: Of the loopback address; 0 chooses a free one.

    Yields:
        The address to scrape.

    Raises:
        SettingsError: The port cannot be used.
    """
    try:
        server, thread = start_http_server(port, HOST, _registry(collector))
    except OSError as error:
        message = f"Port {port} on {HOST} cannot be used ({error.strerror}). Choose another one."
        raise SettingsError(message) from None
    try:
        yield f"http://{HOST}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _registry(collector: Collector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry
