"""Any course of everything ends where a plain model says; see `machine.py`."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import Phase
from hypothesis import settings as profile
from hypothesis.stateful import run_state_machine_as_test

from batch_pipelines.engine.settings import Settings
from tests.conftest import _copy_of_template
from tests.engine.reliability.machine import Machine
from tests.engine.reliability.machine_runs import COURSES, DDL, due_at_once
from tests.support_engine import Site

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


class Fresh(Protocol):
    """Opens a site with a database of its own."""

    def __call__(self) -> AbstractContextManager[Site]:
        """Open it, for a block."""


@pytest.fixture(scope="module")
def fresh(
    _server_urls: dict[str, str], _templates: set[str], tmp_path_factory: pytest.TempPathFactory
) -> Fresh:
    @contextmanager
    def open_site() -> Iterator[Site]:
        folder: Path = tmp_path_factory.mktemp("machine")
        settings = Settings(home=folder / "home", feeds=folder / "feeds")
        copied = contextmanager(_copy_of_template)(_server_urls["18"], "18", _templates)
        with copied as database, database.connect("test") as connection:
            connection.execute(DDL.encode())
            yield Site(database, settings, due_at_once(), connection)

    return open_site


def run(fresh: Fresh, **more: Any) -> None:
    """Run courses; print the steps of one that does not end as the model says."""
    machine: Any = partial(Machine, fresh)
    run_state_machine_as_test(machine, settings=profile(COURSES, database=None, **more))


def test_a_course_of_everything(fresh: Fresh) -> None:
    run(fresh, max_examples=3, stateful_step_count=10, derandomize=True, phases=[Phase.generate])


@pytest.mark.soak
def test_courses_of_everything_all_of_them_new(fresh: Fresh) -> None:
    """Twenty minutes, or as many as the variable says; each of its courses is another one."""
    end = time.monotonic() + 60 * float(os.environ.get("MACHINE_MINUTES", "20"))
    while time.monotonic() < end:
        run(fresh, max_examples=20, stateful_step_count=25)
