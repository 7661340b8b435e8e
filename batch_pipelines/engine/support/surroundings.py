"""What a batch ran in: versions, settings without secrets, the ledger's migrations, its feed's file."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

import pydantic

from batch_pipelines.engine.errors import FeedError
from batch_pipelines.engine.feed_files import load_feed
from batch_pipelines.engine.postgres.migrate import status

if TYPE_CHECKING:
    from pathlib import Path

    from batch_pipelines.engine.postgres.database import Connection
    from batch_pipelines.engine.settings import Settings

_OURS = "batch-pipelines"
_SERVER = """
SELECT name, setting FROM pg_settings
WHERE source NOT IN ('default', 'override', 'client', 'session') AND category <> 'Customized Options'
    AND name !~ '(file|directory|command|conninfo)'
ORDER BY name
"""


def versions(connection: Connection) -> dict[str, object]:
    """List the versions of all that works together.

    Args:
        connection: To the target database.

    Returns:
        Python, system, PostgreSQL with the settings that somebody changed, and our dependencies.
    """
    packages: dict[str, str | None] = {_OURS: version(_OURS)}
    for requirement in requires(_OURS) or ():
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "packages": packages,
        "python": platform.python_version(),
        "system": platform.platform(),
        "postgresql": connection.info.server_version,
        "postgresql_settings": dict(connection.execute(_SERVER).fetchall()),
    }


def shown_settings(settings: Settings) -> dict[str, object]:
    """Show the settings; of a secret, whether it is set.

    Args:
        settings: The settings.

    Returns:
        Each by its name.
    """
    return {
        name: ("set" if isinstance(value, pydantic.SecretStr) else None if value is None else str(value))
        for name, value in settings
    }  # fmt: skip


def migrations(connection: Connection) -> dict[str, object]:
    """Say where the ledger's schema stands, and what an upgrade would apply.

    Args:
        connection: To the target database.

    Returns:
        Current revision, newest one, and those between them.
    """
    found = status(connection)
    return {"current": found.current, "head": found.head, "pending": list(found.pending)}


def feed_text(folder: Path, feed: str) -> str | None:
    """Read the file of a feed as it is now.

    Args:
        folder: The folder of the feed files.
        feed: Name of the feed.

    Returns:
        Its text; None where there is no such file any more.
    """
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            found = load_feed(path).feed
        except FeedError:
            found = path.stem
        if found == feed:
            return path.read_text(encoding="utf-8")
    return None
