"""Connections to Dagster's storage: what a run holds, and that it survives their loss."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.runs import SqlRunStorage

from tests.support_shop import DAY, orders

if TYPE_CHECKING:
    from tests.support_shop import Shop


def test_a_run_holds_its_connection_to_dagsters_storage(shop: Shop) -> None:
    with dg.DagsterInstance.get() as instance:  # as a process that the daemon has started opens it
        assert len(_backends(instance)) == 3
        shop.deliver(DAY, orders(5))
        assert replace(shop, instance=instance).run(DAY).success
        assert len(_backends(instance)) == 1


def test_a_held_connection_that_is_lost_is_made_anew(shop: Shop) -> None:
    (backend,) = _backends(shop.instance)
    shop.query("SELECT pg_terminate_backend(%s, 60000)", backend)
    assert shop.instance.get_runs() == []
    assert backend not in _backends(shop.instance)


def _backends(instance: dg.DagsterInstance) -> set[int]:
    """Ask the storage of runs three times who answers."""
    storage = instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    found = set()
    for _ in range(3):
        with storage.connect() as connection:
            found.add(connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one())
    return found
