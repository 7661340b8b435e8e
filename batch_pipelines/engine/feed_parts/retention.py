"""How long what a feed's batches leave is kept: a period, its legal source, and what it counts from."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import pydantic

from batch_pipelines.engine.feed_parts.part import Part

DataClass = Literal["rows", "before_images", "quarantine", "ledger", "bags"]
"""What has rules of its own; docs/retention.md says what each of them is."""
CLASSES: Final[tuple[DataClass, ...]] = ("rows", "before_images", "quarantine", "ledger", "bags")
"""In the order in which they go: what proves a batch goes after what it proves."""
Regulation = Literal["hipaa", "clia"]
"""Regulations whose periods are known; `engine.retention.rules` has them."""
_PERIOD = re.compile(r"(?P<number>[1-9][0-9]{0,3}) (?P<unit>day|month|year)s?")


def check_period(text: str) -> str:
    """Accept a period such as `90 days`, `6 months` or `7 years`, or say what is wrong with it.

    Raises:
        ValueError: It is none.
    """
    if _PERIOD.fullmatch(text) is None:
        message = "a period is a number of days, months or years: 90 days, 6 months, 7 years"
        raise ValueError(message)
    return text


Period = Annotated[str, pydantic.AfterValidator(check_period)]


class Rule(Part):
    """How long something is kept at least, and by which word.

    Attributes:
        keep: The period, in days, months or years of the calendar.
        legal_source: The law, contract or policy that says so.
        cut_off: What the period counts from: when the batch was `published` (or, of one that never
            was, when it ended), or when it was `completed`.
    """

    keep: Period = pydantic.Field(description="90 days, 6 months, 7 years")
    legal_source: str = pydantic.Field(
        min_length=1, description="the law, contract or policy that says so"
    )
    cut_off: Literal["published", "completed"] = pydantic.Field(
        default="completed", description="what the period counts from"
    )


class PartitionPeriod(Part):
    """How long a partition's key stays in Dagster after its batch was archived.

    Attributes:
        keep: The period.
    """

    keep: Period = pydantic.Field(description="90 days, 6 months, 7 years")


class TrailRule(Part):
    """How long months of the audit trail are kept, which is all feeds'.

    Attributes:
        keep: The period, in days, months or years of the calendar.
        legal_source: The law, contract or policy that says so.
        cut_off: What the period counts from: the end of the `month`, or when it was `sealed`.
    """

    keep: Period = pydantic.Field(description="90 days, 6 months, 7 years")
    legal_source: str = pydantic.Field(
        min_length=1, description="the law, contract or policy that says so"
    )
    cut_off: Literal["month", "sealed"] = pydantic.Field(
        default="month", description="what the period counts from"
    )


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict | Rule | TrailRule) else value


Rules = Annotated[tuple[Rule, ...], pydantic.BeforeValidator(_listed)]


class SiteRetention(Part):
    """What is no single feed's: the file that the settings name.

    Attributes:
        audit_trail: Rules of the months of the audit trail; without one it is kept for ever.
    """

    audit_trail: Annotated[tuple[TrailRule, ...], pydantic.BeforeValidator(_listed)] = (
        pydantic.Field(default=(), description="months of the audit trail that are over")
    )


class Retention(Part):
    """How long what batches leave is kept. What has no rule of the feed's own is kept for ever.

    Attributes:
        rows: Rules of the rows in the target tables.
        before_images: Of what rollbacks need: images of rows that were overwritten or superseded.
        quarantine: Of the rejects.
        ledger: Of the ledger's detail; history and events are never deleted.
        bags: Of the bags that hold what was delivered.
        partitions: How long keys of archived partitions stay in Dagster; for ever without it.
    """

    rows: Rules = pydantic.Field(default=(), description="the rows in the target tables")
    before_images: Rules = pydantic.Field(default=(), description="what rollbacks need")
    quarantine: Rules = pydantic.Field(default=(), description="the rejects")
    ledger: Rules = pydantic.Field(default=(), description="checksums, digests and validations")
    bags: Rules = pydantic.Field(default=(), description="bags of what was delivered")
    partitions: PartitionPeriod | None = pydantic.Field(
        default=None, description="how long keys of archived partitions stay in Dagster"
    )

    def rules(self, data_class: DataClass) -> tuple[Rule, ...]:
        """Give the feed's own rules of a class."""
        found: tuple[Rule, ...] = getattr(self, data_class)
        return found
