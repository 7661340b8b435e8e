"""Rules: how long a class of data of a feed is kept. Several can apply; the longest wins.

A rule of the feed's own lets data go when its period is over. A regulation only keeps: it can make a
period longer, and alone lets nothing go. Not here: the calendar; PostgreSQL adds periods to moments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from batch_pipelines.engine.feed_parts.retention import CLASSES, DataClass, Regulation, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batch_pipelines.engine.feeds import Feed

_CLIA = "42 CFR 493.1105(a) (CLIA: test requisitions, records and reports)"
_HIPAA = "45 CFR 164.316(b)(2)(i) (HIPAA: documentation of actions and activities)"
REGULATIONS: Final[dict[Regulation, dict[DataClass, Rule]]] = {
    # Requisitions are what was delivered; records and reports, what was made of it.
    "clia": {
        name: Rule(keep="2 years", legal_source=_CLIA)
        for name in ("rows", "quarantine", "ledger", "bags")
    },
    # What was done with the data, of which the bag has a copy; not the data.
    "hipaa": {name: Rule(keep="6 years", legal_source=_HIPAA) for name in ("ledger", "bags")},
}
"""What each regulation keeps, and for how long at least."""


@dataclass(frozen=True)
class Term:
    """A rule as it applies to one class of one feed's data.

    Attributes:
        data_class: The class.
        keep: The period.
        legal_source: Who says so.
        cut_off: What the period counts from.
        own: Whether it is a rule of the feed's own, which lets data go.
    """

    data_class: DataClass
    keep: str
    legal_source: str
    cut_off: Literal["published", "completed"]
    own: bool


def terms_of(feed: Feed, everywhere: Iterable[Regulation]) -> tuple[Term, ...]:
    """List the rules that apply to a feed's data, of those classes that have one of their own.

    Args:
        feed: The feed; of the regulations that its `compliance` names, those that are known here count.
        everywhere: Regulations that every feed is under.

    Returns:
        The rules. What has none is kept for ever.
    """
    named = {word.casefold() for word in (*feed.compliance.regulation, *everywhere)}
    regulations = [rules for name, rules in REGULATIONS.items() if name in named]
    found = []
    for data_class in CLASSES:
        own = feed.retention.rules(data_class)
        floors = [rules.get(data_class) for rules in regulations]
        if own:
            found += [_term(data_class, rule, own=True) for rule in own]
            found += [_term(data_class, rule, own=False) for rule in floors if rule is not None]
    return tuple(found)


def _term(data_class: DataClass, rule: Rule, *, own: bool) -> Term:
    return Term(data_class, rule.keep, rule.legal_source, rule.cut_off, own)
