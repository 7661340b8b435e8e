"""Hysteresis: a state goes up at a level and comes back below a lower one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_pipelines.engine.feed_parts.monitor import Levels
from batch_pipelines.engine.monitoring.states import STATES, State, next_state

LEVELS = Levels(10, 20)


@pytest.mark.parametrize(
    ("state", "value", "expected"),
    [
        ("ok", 9.9, "ok"), ("ok", 10, "warn"), ("ok", 20, "breach"),
        ("warn", 8, "warn"), ("warn", 7.9, "ok"), ("warn", 20, "breach"),
        ("breach", 16, "breach"), ("breach", 15.9, "warn"), ("breach", 7.9, "ok"),
    ],
)  # fmt: skip
def test_up_at_a_level_and_back_below_it(state: State, value: float, expected: State) -> None:
    assert next_state(state, value, LEVELS, 0.8) == expected


def test_a_level_that_is_not_set_is_passed_over() -> None:
    assert next_state("ok", 15, Levels(None, 20), 0.8) == "ok"
    assert next_state("ok", 20, Levels(None, 20), 0.8) == "breach"
    assert next_state("breach", 15, Levels(None, 20), 0.8) == "ok"
    assert next_state("ok", 99, Levels(10, None), 0.8) == "warn"


values = st.floats(0, 1000, allow_nan=False)
backs = st.floats(0.01, 1)


@st.composite
def levels(draw: st.DrawFn) -> Levels:
    warn, breach = sorted(draw(st.tuples(st.floats(0.1, 999), st.floats(0.1, 999))))
    kept = draw(st.sampled_from([(warn, breach), (None, breach), (warn, None)]))
    return Levels(*kept)


@given(st.sampled_from(STATES), values, levels(), backs)
def test_the_same_value_again_changes_nothing(
    state: State, value: float, levels: Levels, back: float
) -> None:
    once = next_state(state, value, levels, back)
    assert next_state(once, value, levels, back) == once


@given(st.sampled_from(STATES), values, values, levels(), backs)
def test_a_higher_value_is_never_a_lower_state(
    state: State, one: float, two: float, levels: Levels, back: float
) -> None:
    lower, higher = (next_state(state, value, levels, back) for value in sorted((one, two)))
    assert STATES.index(lower) <= STATES.index(higher)


@given(values, levels(), backs)
def test_where_it_ends_a_bad_past_only_delays(value: float, levels: Levels, back: float) -> None:
    found = [STATES.index(next_state(state, value, levels, back)) for state in STATES]
    assert found == sorted(found)
    if value < back * min(level for level in (levels.warn, levels.breach) if level is not None):
        assert found == [0, 0, 0]


@given(st.lists(st.floats(0.81, 1.19), min_size=1, max_size=50))
def test_a_value_that_wavers_at_a_level_is_told_once(factors: list[float]) -> None:
    state: State = "ok"
    changes = 0
    for factor in factors:
        after = next_state(state, 10 * factor, Levels(10, None), 0.8)
        changes, state = changes + (after != state), after
    assert changes <= 1
