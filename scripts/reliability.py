"""Writes what the kill matrix came to, step by step and fault by fault, to docs/reliability.md."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from xml.etree import ElementTree as ET

DOCUMENT = Path(__file__).parents[1] / "docs" / "reliability.md"
_BEGIN, _END = "<!-- matrix -->\n", "<!-- end of matrix -->\n"
_FAULTS = (
    "crash before", "crash after", "answer lost", "connection lost", "backend ended", "server crash",
    "disk full", "unreadable",
)  # fmt: skip
_WORDS = {"nothing": "n", "whole": "w", "not reached": "-"}

Outcomes = dict[tuple[str, str], Counter[str]]
"""How often what came of a step and a fault."""


def write_matrix(cases: Iterable[ET.Element], when: str) -> None:
    """Put the outcomes of the matrix into the document, between its marks.

    Args:
        cases: Tests as pytest reports them; those of the matrix tell outcomes as a property.
        when: When it ran, and on what.
    """
    found: Outcomes = defaultdict(Counter)
    for case in cases:
        for told in case.iter("property"):
            if told.get("name") == "matrix":
                for step, fault, outcome, count in json.loads(told.get("value", "[]")):
                    found[step, fault][outcome] += count
    if not found:
        return
    text = DOCUMENT.read_text()
    pattern = re.compile(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", re.DOTALL)
    DOCUMENT.write_text(pattern.sub(lambda _: _BEGIN + _table(found, when) + _END, text))


def _table(found: Outcomes, when: str) -> str:
    total: Counter[str] = Counter()
    for outcomes in found.values():
        total.update(outcomes)
    told = (
        f"{when}: {sum(total.values())} attacks at {len({step for step, _ in found})} steps. In "
        f"{total['nothing']} nothing of the run was visible afterwards, in {total['whole']} all of it; "
        f"{total['not reached']} were not reached.\n\n"
    )
    head = f"| step | {' | '.join(_FAULTS)} |\n{'| --- ' * (len(_FAULTS) + 1)}|\n"
    lines = [told, head]
    steps = dict.fromkeys(step for step, _ in found)
    for step in sorted(steps):
        cells = [_cell(found.get((step, fault), Counter())) for fault in _FAULTS]
        lines.append(
            f"| {step.replace(' | ', ': ').replace('_', chr(92) + '_')} | {' | '.join(cells)} |\n"
        )
    return "".join(lines)


def _cell(outcomes: Counter[str]) -> str:
    return " ".join(f"{count}{_WORDS.get(what, what)}" for what, count in sorted(outcomes.items()))
