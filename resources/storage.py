"""Connections to Dagster's storage, held for the length of a process.

Dagster opens one for each of the 180 statements of a batch, because it may open many instances in one
process. A process that has one instance for all it does need not: of the processor time of a small
batch those connections are a third (benchmarks/fixed_cost.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dagster_postgres import (
    PostgresEventLogStorage,
    PostgresRunStorage,
    PostgresScheduleStorage,
)
from dagster_postgres.utils import create_pg_engine
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    import dagster as dg

# A connection older than this is made anew: a firewall between us and the server may have cut it.
_RECYCLE_SECONDS: Final = 60
_POSTGRES = (PostgresRunStorage, PostgresEventLogStorage, PostgresScheduleStorage)


def hold_connections(instance: dg.DagsterInstance) -> None:
    """Keep one connection for each of an instance's storages, and open more only while it is in use.

    Each is tried before it is used: a server that was restarted meanwhile is no reason to fail.

    Args:
        instance: The only Dagster instance of this process; one that holds its connections already, or
            whose storage is not PostgreSQL, is left as it is.
    """
    for storage in (instance.run_storage, instance.event_log_storage, instance.schedule_storage):
        if isinstance(storage, _POSTGRES) and isinstance(storage._engine.pool, NullPool):  # noqa: SLF001
            # Its own `optimize_for_webserver` does the same, but tries no connection before.
            storage._engine = create_pg_engine(  # noqa: SLF001
                storage.postgres_url,
                isolation_level="AUTOCOMMIT",
                pool_size=1,
                max_overflow=-1,
                pool_recycle=_RECYCLE_SECONDS,
                pool_pre_ping=True,
            )
