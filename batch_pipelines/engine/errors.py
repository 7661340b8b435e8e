"""Errors that people see. A message says what was expected, what was found, where, and what to do.

No message holds a value of a row, a driver's text or a secret: what is known (file, record, column,
constraint, SQLSTATE) is enough to find the place, and messages end up in logs and in the ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_pipelines.engine.rejects import Reason
    from batch_pipelines.engine.signatures import Comparison


class BatchError(Exception):
    """Base of every error that is a sentence for people and not a defect of the program."""


class SettingsError(BatchError):
    """A setting is missing or wrong."""


class ServerError(BatchError):
    """The embedded PostgreSQL could not be installed, started or stopped."""


class FeedError(BatchError):
    """A feed file is wrong, or does not fit its tables."""


class ContractError(FeedError):
    """A delivery's columns are others than its feed's contract or its table allow.

    Attributes:
        comparison: What the delivery brings, against the version in force.
    """

    def __init__(self, message: str, comparison: Comparison) -> None:
        super().__init__(message)
        self.comparison = comparison


class DeliveryError(BatchError):
    """A delivery is missing, incomplete, damaged or not readable as its feed says."""


class UnreachableError(DeliveryError):
    """The database from which a delivery is to be read does not answer."""


class BusyError(BatchError):
    """Another live run holds the partition."""


class LeaseLostError(BatchError):
    """Another run has taken the partition over; this one may no longer write."""


class FeedPausedError(BatchError):
    """A new batch was asked for of a feed that is paused."""


class CancelError(BatchError):
    """A batch cannot be cancelled, because it is not in progress."""


class StageOrderError(BatchError):
    """A stage was asked to run before the one it builds on, or without a batch."""


class PublishError(BatchError):
    """The publish transaction was aborted: the rows do not fit the tables, or the proof failed."""


class BrokenRulesError(PublishError):
    """Rows break rules of their feed as they are stored."""


class ThresholdError(PublishError):
    """More of a batch cannot be loaded than its feed tolerates.

    Attributes:
        reasons: How many records were set aside, by their first reason.
    """

    def __init__(self, message: str, reasons: Mapping[Reason, int]) -> None:
        super().__init__(message)
        self.reasons = reasons


class RollbackError(BatchError):
    """A batch cannot be taken back; nothing was changed."""


class ValidationError(BatchError):
    """Published rows differ from their source."""


class VerificationError(BatchError):
    """Rows of old batches are no longer what was recorded of them."""


class ArchiveError(BatchError):
    """A bag could not be written, or did not read back equal."""


class AdoptionError(BatchError):
    """A table that was there before us cannot be tracked, adopted or given back as it is."""


class ReconciliationError(BatchError):
    """Rows that another system has loaded differ from their source, or could not be compared."""


class AlertError(BatchError):
    """There is no such alert."""
