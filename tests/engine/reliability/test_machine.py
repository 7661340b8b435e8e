"""Any course of everything ends where a plain model says; see `machine.py`."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from hypothesis import Phase
from hypothesis import settings as profile
from hypothesis.stateful import run_state_machine_as_test

from tests.engine.reliability.machine import Machine
from tests.engine.reliability.machine_runs import COURSES, DDL, due_at_once

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.engine.conftest import OpenSite
    from tests.support_engine import Site

    Fresh: TypeAlias = Callable[[], AbstractContextManager[Site]]


@pytest.fixture(scope="module")
def fresh(open_site: OpenSite) -> Fresh:
    return partial(open_site, DDL, due_at_once(), sharing=False)


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
