"""Looking at values of rows that were set aside: whoever does leaves an entry in the audit trail first.

The database sees to it, not this module: `import_reject.raw` is the owner's alone, and the view
`opened_reject` shows it in sessions that have opened a batch.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

import psycopg

from batch_pipelines.engine.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batch_pipelines.engine.postgres.database import Connection

Purpose: TypeAlias = Literal["look", "export", "archive", "erase"]

_OPEN = "SELECT batch_audit.open_values(%s, %s, %s)"
_CLOSE = "SELECT set_config('batch_pipelines.opening', '', false)"


@contextmanager
def opened(
    connection: Connection, batch_id: str, purpose: Purpose, principal: str
) -> Iterator[None]:
    """Have a session see the values of a batch's rejects for the length of a block.

    Args:
        connection: A connection in autocommit mode, outside any transaction: the entry is committed
            before anything is shown.
        batch_id: The batch.
        purpose: What for: to look, to export, to put them into the batch's bag, or to find a person's.
        principal: Who looks.

    Yields:
        Nothing; `rejects.stream` and the like show values meanwhile.

    Raises:
        SettingsError: The database's user may not see them.
    """
    try:
        connection.execute(_OPEN, (batch_id, purpose, principal))
    except psycopg.errors.InsufficientPrivilege as error:
        raise SettingsError(
            f"Values of rows are shown to members of a role of their own: {error.diag.message_primary}. "
            "Log in as one who is (docs/roles.md), or leave the values out."
        ) from None
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(_CLOSE)
