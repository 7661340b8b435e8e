"""What a feed tolerates: bad records and files, the size of a delivery, and taking batches back."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Literal

import pydantic

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.feed_parts.part import Part

_SHARE = re.compile(r"[0-9]+(\.[0-9]+)?%")
_ALL = 100


class Thresholds(Part):
    """How much of a batch may be set aside; above it nothing is published.

    Attributes:
        rejected_rows: Limits of the rejected records, over all tables together: a number, or a share
            of all records such as `5%`. With several, each one counts. Without any, every record that
            can be loaded is.
        minimum_sample: A share says nothing of a batch with fewer records than this.
        rejected_files: Limits of the files set aside, likewise, where the feed sets bad files aside.
    """

    rejected_rows: tuple[int | str, ...] = pydantic.Field(
        default=(), description="most rejected records: a number, a share such as 5%, or a list"
    )
    minimum_sample: int = pydantic.Field(
        default=0, ge=0, description="records below which a share is not looked at"
    )

    rejected_files: tuple[int | str, ...] = pydantic.Field(
        default=(), description="most files set aside: a number, a share such as 5%, or a list"
    )

    @pydantic.field_validator("rejected_rows", "rejected_files", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        limits = value if isinstance(value, list | tuple) else [value]
        for limit in limits:
            if isinstance(limit, str):
                right = _SHARE.fullmatch(limit) and Decimal(limit[:-1]) <= _ALL
            else:
                right = isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0
            if not right:
                message = "must be a whole number from 0, or a share from 0% to 100% such as 2.5%"
                raise ValueError(message)
        return tuple(limits)

    def broken(self, rejected: int, records: int) -> str | None:
        """Say which limit is broken.

        Args:
            rejected: Records set aside.
            records: All records of the batch.

        Returns:
            The limit as the feed has it, or None.
        """
        return _broken(self.rejected_rows, rejected, records, self.minimum_sample)

    def broken_by_files(self, rejected: int, files: int) -> str | None:
        """Say which limit of files is broken.

        Args:
            rejected: Files set aside.
            files: All data files of the batch.

        Returns:
            The limit as the feed has it, or None.
        """
        return _broken(self.rejected_files, rejected, files, 0)


def _broken(
    limits: tuple[int | str, ...], rejected: int, among: int, minimum_sample: int
) -> str | None:
    for limit in limits:
        if isinstance(limit, int):
            if rejected > limit:
                return str(limit)
        # In whole numbers and not in floats: 5% of 20 is 1.
        elif among >= minimum_sample and Decimal(rejected) * _ALL > Decimal(limit[:-1]) * among:
            return limit
    return None


class Limits(Part):
    """What a delivery may be at most; a larger one is refused before anything of it is loaded.

    Attributes:
        files: Data files.
        bytes: Bytes of all data files together.
        records: Records of all data files together.
    """

    files: int | None = pydantic.Field(default=None, ge=1, description="most data files")
    bytes: int | None = pydantic.Field(default=None, ge=1, description="most bytes in all")
    records: int | None = pydantic.Field(default=None, ge=0, description="most records in all")

    def check(self, name: str, **found: int) -> None:
        """Refuse a delivery that is too large.

        Args:
            name: Feed and partition key.
            found: What it has of `files`, `bytes` or `records`.

        Raises:
            DeliveryError: It has more than the feed allows.
        """
        for what, number in found.items():
            limit = getattr(self, what)
            if limit is not None and number > limit:
                message = (
                    f"{name}: the delivery has {number} {what}, above the feed's limit of {limit}. "
                    f"Deliver it in parts, or raise `limits: {what}` in the feed."
                )
                raise DeliveryError(message)


class Rollback(Part):
    """How batches are taken back.

    Attributes:
        superseded_rows: Rows of a superseded batch, over all tables, up to which they are kept in the
            ledger when a correction takes their place, so that the correction can be rolled back.
        days: How long, in days, a batch can be rolled back; None for ever.
        approval: Whether `one` person is enough, or a second one has to approve.
    """

    superseded_rows: int = pydantic.Field(
        default=1_000_000, ge=0, description="most superseded rows that are kept to come back"
    )
    days: int | None = pydantic.Field(
        default=None,
        ge=1,
        description="days for which a batch can be rolled back; always by default",
    )
    approval: Literal["one", "two"] = pydantic.Field(
        default="one", description="how many people a rollback takes"
    )
