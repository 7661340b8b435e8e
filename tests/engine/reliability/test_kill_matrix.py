"""Whatever goes wrong at whatever step leaves nothing half-visible, and the same run again ends well.

The books balance, the ledger tells the truth, and nothing is left behind. The steps are those that a
run in peace is seen to take, so that none can be forgotten. With all other tests some of all cases run,
always the same; `make soak` runs all, and puts them into docs/reliability.md.
"""

from __future__ import annotations

import json
import random
import traceback
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.reliability.faults import ALL, BY_KIND
from tests.engine.reliability.running import (
    Arena,
    again,
    content,
    require_clean,
    require_kept,
    require_true,
    run,
)
from tests.engine.reliability.scenarios import SCENARIOS
from tests.support_engine import new_id
from tests.support_memory import RoomyServer, server_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.engine.reliability.faults import Fault
    from tests.engine.reliability.running import Ended
    from tests.engine.reliability.scenario import Scenario
    from tests.engine.reliability.steps import Step
    from tests.support_engine import Site

# What a process that crashes leaves is all there is to see, so commits are not put off.
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "256MB"}
# After these a run goes on from the stage that failed; after the others all of it is run anew.
# Faults of which one is chosen, so that more scenarios do not take longer.
_APART = 4
_TABLES = 2
_RESUMED = frozenset({"crash after", "connection lost", "disk full"})


@dataclass(frozen=True)
class Peace:
    """A run in which nothing went wrong.

    Attributes:
        steps: Its steps.
        before: The tables before it.
        after: The tables after it.
        kept_before: What there was to be lost before it, wherever it was.
        kept_after: The same after it.
        texts: Statements that it executed.
    """

    steps: tuple[Step, ...]
    before: list[Any]
    after: list[Any]
    kept_before: frozenset[str]
    kept_after: frozenset[str]
    texts: frozenset[str]


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """A server that may be stopped at any time."""
    with server_folder() as folder:
        server = RoomyServer(home=folder, settings=_SETTINGS)
        with server.use():
            try:
                yield Arena(server, tmp_path_factory.mktemp("arena"))
            finally:
                server.start()
        server.stop(force=True)


@pytest.fixture(scope="module")
def in_peace(arena: Arena) -> Callable[[Scenario], Peace]:
    """Runs a scenario once without any fault."""
    known: dict[str, Peace] = {}

    def find(scenario: Scenario) -> Peace:
        if scenario.name not in known:
            with arena.site(scenario) as site:
                before, kept_before = content(site, scenario), _kept(site, scenario)
                ended = run(arena, site, scenario, new_id())
                assert ended.how == "done", ended
                after, kept_after = content(site, scenario), _kept(site, scenario)
                assert (before[:_TABLES] != after[:_TABLES]) == scenario.is_visible
                assert require_true(site, scenario, before, after)
                require_clean(site)
                known[scenario.name] = Peace(
                    ended.steps, before, after, kept_before, kept_after, ended.texts
                )
        return known[scenario.name]

    return find


def _kept(site: Site, scenario: Scenario) -> frozenset[str]:
    return frozenset() if scenario.kept is None else scenario.kept(site)


def cases(steps: Sequence[Step]) -> list[tuple[Step, Fault]]:
    """Say what can go wrong where; of steps that are named alike, at the first and the last."""
    last = Counter(step.name for step in steps)
    return [
        (step, fault)
        for step in steps
        if step.number in {1, last[step.name]} and not (step.kind == "read" and step.number > 1)
        for fault in BY_KIND[step.kind]
    ]


def attack(
    arena: Arena, scenario: Scenario, peace: Peace, step: Step, fault: Fault
) -> tuple[str, Ended]:
    """Let one thing go wrong; check what is left; do it again in peace; check that."""
    with arena.site(scenario) as site:
        site.connection.close()  # it may go with the server
        ended = run(arena, site, scenario, new_id(), (step, fault))
        with arena.opened_again(scenario, site) as left:
            happened = require_true(left, scenario, peace.before, peace.after)
            if fault != "unreadable":  # of a bag that may have been all there was
                require_kept(left, scenario, peace.kept_before, peace.kept_after)
            assert not ended.message.startswith("Unexpected"), ended
            if ended.how == "done":
                assert happened, "done, it says, and nothing is visible"
            again(left, scenario, resume=fault in _RESUMED)
            assert require_true(left, scenario, peace.before, peace.after)
            kept = require_kept(left, scenario, peace.kept_before, peace.kept_after)
            assert kept == peace.kept_after
            require_clean(left)
    if ended.struck is False:
        return "not reached", ended
    return ("whole" if happened else "nothing"), ended


def attack_all(
    arena: Arena,
    scenario: Scenario,
    peace: Peace,
    chosen: Sequence[tuple[Step, Fault]],
) -> Counter[tuple[str, str, str]]:
    """Attack at each of the places chosen; fail with all that broke, each with where and how."""
    outcomes: Counter[tuple[str, str, str]] = Counter()
    broken = []
    for step, fault in chosen:
        try:
            outcome, _ = attack(arena, scenario, peace, step, fault)
        except Exception:  # noqa: BLE001  # each is told below
            outcome = "BROKEN"
            broken.append(f"{scenario.name}: {fault} at {step}:\n{traceback.format_exc(limit=-4)}")
        outcomes[step.name, fault, outcome] += 1
    assert not broken, f"{len(broken)} of {len(chosen)} broke\n\n" + "\n".join(broken)
    missed = sum(count for (*_, outcome), count in outcomes.items() if outcome == "not reached")
    assert missed <= max(1, len(chosen) // 5), outcomes
    return outcomes


@pytest.mark.long
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_some_faults_at_some_steps(
    arena: Arena, in_peace: Callable[[Scenario], Peace], scenario: Scenario
) -> None:
    peace = in_peace(scenario)
    dice = random.Random(scenario.name)  # noqa: S311  # places, not secrets
    every = cases(peace.steps)
    turn = SCENARIOS.index(scenario) % _APART
    chosen = [dice.choice([case for case in every if case[1] == fault]) for fault in ALL[turn::_APART]
              if any(case[1] == fault for case in every)]  # fmt: skip
    attack_all(arena, scenario, peace, chosen)


@pytest.mark.soak
@pytest.mark.parametrize("fault", ALL)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_fault_at_every_step(
    arena: Arena,
    in_peace: Callable[[Scenario], Peace],
    scenario: Scenario,
    fault: Fault,
    record_property: Callable[[str, object], None],
) -> None:
    peace = in_peace(scenario)
    # What an earlier scenario does alike has been attacked there.
    earlier = SCENARIOS[: SCENARIOS.index(scenario)]
    known = {step.name for each in earlier for step in in_peace(each).steps}
    chosen = [case for case in cases(peace.steps) if case[1] == fault and case[0].name not in known]
    outcomes = attack_all(arena, scenario, peace, chosen)
    record_property("matrix", json.dumps([[*key, count] for key, count in outcomes.items()]))
