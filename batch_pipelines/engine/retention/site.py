"""Rules of what is no single feed's, from the file that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pydantic
import yaml

from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.feed_parts.retention import SiteRetention

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
    try:
        return SiteRetention.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (OSError, UnicodeError, yaml.YAMLError, RecursionError):
        message = f"{VARIABLE}: {path} cannot be read as YAML."
        raise SettingsError(message) from None
    except pydantic.ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        message = f"{VARIABLE}: {path}: {problems}. docs/retention.md says what it may be."
        raise SettingsError(message) from None
