"""Why a batch failed, as one word: what can be waited for is told apart from what people must mend.

The sentence in `error_details` is for people; the cause is for `rerun`. An error of ours says its
own (`BatchError.cause`); one of the driver is known by its SQLSTATE, one of the system by its number.
docs/recovery.md has the table.
"""

from __future__ import annotations

import errno
from typing import Final, Literal, get_args

import psycopg

from batch_pipelines.engine.errors import BatchError

Cause = Literal[
    "database", "conflict", "disk_full", "storage", "source", "staged_copy", "dead_run", "lease",
    "busy", "no_batch", "interrupted", "cancelled", "paused", "delivery", "threshold", "rows", "rules",
    "contract", "feed", "settings", "order", "validation", "archive", "unexpected",
]  # fmt: skip
"""A cause."""

CAUSES: Final = frozenset(get_args(Cause))
HEALING: Final[frozenset[str]] = frozenset({
    "database", "conflict", "disk_full", "storage", "source", "staged_copy", "dead_run", "lease",
    "busy", "no_batch",
})  # fmt: skip
"""Those that may be gone the next time, though nobody has done anything."""

# By the first characters of a SQLSTATE, the longest one first.
_BY_STATE: Final[tuple[tuple[str, Cause], ...]] = (
    ("53100", "disk_full"),
    ("25006", "database"),  # read only: a standby has not become the primary yet
    ("25P", "database"),  # the server ended a session that was idle for too long
    ("55P03", "conflict"),  # a lock was not to be had in time
    ("57014", "conflict"),  # a statement took too long
    ("58030", "storage"),  # I/O error
    ("08", "database"),
    ("40", "conflict"),  # deadlock, serialization failure
    ("53", "conflict"),  # too many connections, out of memory
    ("57P", "database"),  # shut down, crashed, starting
    ("22", "rows"),
    ("23", "rows"),
    ("44", "rows"),
)
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
# What a network file system or a busy machine raises, and may not the next time.
_PASSING: Final = frozenset({
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE,
    errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.EREMOTEIO,
})  # fmt: skip


def cause_of(error: BaseException) -> Cause:
    """Classify an error.

    Args:
        error: What a stage raised.

    Returns:
        Its cause.
    """
    if isinstance(error, BatchError):
        return error.cause
    if isinstance(error, psycopg.Error):
        return _of_driver(error)
    if isinstance(error, OSError):
        if error.errno in _FULL:
            return "disk_full"
        passing = isinstance(error, ConnectionError | TimeoutError) or error.errno in _PASSING
        return "storage" if passing else "unexpected"
    # Ctrl+C, or what Dagster raises where a run is terminated.
    return "unexpected" if isinstance(error, Exception) else "interrupted"


def _of_driver(error: psycopg.Error) -> Cause:
    state = error.sqlstate
    if state is None:
        return "database" if isinstance(error, psycopg.OperationalError) else "unexpected"
    return next((cause for start, cause in _BY_STATE if state.startswith(start)), "unexpected")
