"""Rules: what a feed says, what regulations add, and what lets nothing go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pydantic
import pytest

from batch_pipelines.engine.retention.rules import terms_of
from batch_pipelines.engine.settings import load_settings
from tests.support_engine import feed_of

if TYPE_CHECKING:
    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.retention.rules import Term

POLICY = {"keep": "90 days", "legal_source": "data policy 4.2"}


def feed(*regulations: str, **retention: object) -> Feed:
    said = {"regulation": [*regulations]}
    return feed_of({"public.t": "*"}, retention=retention, compliance=said)


def told(terms: tuple[Term, ...]) -> list[tuple[str, str, bool]]:
    return [(term.data_class, term.keep, term.own) for term in terms]


def test_a_feed_without_rules_keeps_everything_whatever_regulations_say() -> None:
    assert terms_of(feed_of({"public.t": "*"}), ["hipaa", "clia"]) == ()
    assert terms_of(feed("HIPAA", "CLIA"), []) == ()


def test_regulations_of_feed_and_site_stand_beside_the_feeds_own_rules() -> None:
    one = feed("CLIA", "21 CFR 11", rows=POLICY, ledger=[POLICY, {**POLICY, "keep": "1 year"}])
    assert told(terms_of(one, ["hipaa", "clia"])) == [
        ("rows", "90 days", True),
        ("rows", "2 years", False),
        ("ledger", "90 days", True),
        ("ledger", "1 year", True),
        ("ledger", "2 years", False),
        ("ledger", "6 years", False),
    ]
    sources = {term.legal_source.split(" (")[0] for term in terms_of(one, ["hipaa"])}
    assert sources == {"data policy 4.2", "42 CFR 493.1105(a)", "45 CFR 164.316(b)(2)(i)"}


@pytest.mark.parametrize(
    ("retention", "what"),
    [
        ({"rows": {"keep": "90 days"}}, "legal_source"),
        ({"rows": {"keep": "0 days", "legal_source": "x"}}, "days, months or years"),
        ({"rows": {"keep": "soon", "legal_source": "x"}}, "days, months or years"),
        ({"rows": {**POLICY, "cut_off": "started"}}, "published"),
        ({"history": POLICY}, "history"),
    ],
)
def test_what_cannot_be_meant_is_refused(retention: dict[str, object], what: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=what):
        feed(**retention)


def test_regulations_of_the_site_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_PIPELINES_REGULATIONS", "hipaa, CLIA")
    assert load_settings().regulations == ("hipaa", "clia")
