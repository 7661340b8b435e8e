"""Rules of what is no single feed's, from the file that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batch_pipelines.engine.feed_parts.retention import SiteRetention
from batch_pipelines.engine.site_files import read_site_file

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "BATCH_PIPELINES_RETENTION"


def read_site(path: Path | None) -> SiteRetention:
    """Read the rules.

    Args:
        path: A YAML file; None stands for no rules, which keep everything.

    Returns:
        What it says.

    Raises:
        SettingsError: The file cannot be used.
    """
    if path is None:
        return SiteRetention()
    return read_site_file(path, SiteRetention, VARIABLE, "what docs/retention.md says it may be")
