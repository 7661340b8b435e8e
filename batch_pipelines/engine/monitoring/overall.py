"""How all batches together are watched: as the settings say, or by default."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.feed_parts.monitor import Counts, Monitor
from batch_pipelines.engine.site_files import read_site_file

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "BATCH_PIPELINES_MONITOR"
# Failures of one feed are that feed's; so many of different ones have a cause that they share.
DEFAULT = Monitor(
    over="100 batches",
    failed_in_a_row=Counts(warn=5, breach=10),
    invalid_checksums=Counts(warn=5, breach=20),
)


def read_overall(path: Path | None) -> Monitor:
    """Read how all batches together are watched.

    Args:
        path: A YAML file with what a feed says under `monitor`; None stands for the default.

    Returns:
        What it says.

    Raises:
        SettingsError: The file cannot be used.
    """
    if path is None:
        return DEFAULT
    monitor = read_site_file(path, Monitor, VARIABLE, "what `monitor` of a feed may be")
    if set(monitor.on_breach) != {"alert"} or monitor.throughput_drop is not None:
        message = (
            f"{VARIABLE}: {path}: of all feeds together a breach is told and nothing else, and there is "
            "no `throughput_drop`; write `on_breach` and `throughput_drop` into feeds."
        )
        raise SettingsError(message)
    return monitor
