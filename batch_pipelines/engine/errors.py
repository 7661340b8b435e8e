"""Errors that people see. A message says what was expected, what was found, where, and what to do.

No message holds a value of a row, a driver's text or a secret: what is known (file, record, column,
constraint, SQLSTATE) is enough to find the place, and messages end up in logs and in the ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_pipelines.engine.causes import Cause
    from batch_pipelines.engine.rejects import Reason
    from batch_pipelines.engine.signatures import Comparison


class BatchError(Exception):
    """Base of every error that is a sentence for people and not a defect of the program.

    Attributes:
        cause: What it is to whoever decides whether the same may succeed the next time.
    """

    cause: ClassVar[Cause] = "unexpected"


class SettingsError(BatchError):
    """A setting is missing or wrong."""

    cause: ClassVar[Cause] = "settings"


class UnavailableError(SettingsError):
    """The target database does not let us in: it is down, or a setting is wrong."""

    cause: ClassVar[Cause] = "database"


class ServerError(BatchError):
    """The embedded PostgreSQL could not be installed, started or stopped."""

    cause: ClassVar[Cause] = "database"


class FeedError(BatchError):
    """A feed file is wrong, or does not fit its tables."""

    cause: ClassVar[Cause] = "feed"


class ContractError(FeedError):
    """A delivery's columns are others than its feed's contract or its table allow.

    Attributes:
        comparison: What the delivery brings, against the version in force.
    """

    cause: ClassVar[Cause] = "contract"

    def __init__(self, message: str, comparison: Comparison) -> None:
        super().__init__(message)
        self.comparison = comparison


class DeliveryError(BatchError):
    """A delivery is missing, incomplete, damaged or not readable as its feed says."""

    cause: ClassVar[Cause] = "delivery"


class UnreachableError(DeliveryError):
    """The database or store from which a delivery is to be read does not answer, or breaks off."""

    cause: ClassVar[Cause] = "source"


class StagedCopyError(DeliveryError):
    """The staged copy of a delivery is not what ingest has read, or is gone."""

    cause: ClassVar[Cause] = "staged_copy"


class BusyError(BatchError):
    """Another live run holds the partition."""

    cause: ClassVar[Cause] = "busy"


class LeaseLostError(BatchError):
    """Another run has taken the partition over; this one may no longer write."""

    cause: ClassVar[Cause] = "lease"


class FeedPausedError(BatchError):
    """A new batch was asked for of a feed that is paused."""

    cause: ClassVar[Cause] = "paused"


class CancelError(BatchError):
    """A batch cannot be cancelled, because it is not in progress."""


class StageOrderError(BatchError):
    """A stage was asked to run before the one it builds on, or without a batch."""

    cause: ClassVar[Cause] = "order"


class PublishError(BatchError):
    """The publish transaction was aborted: the rows do not fit the tables, or the proof failed."""

    cause: ClassVar[Cause] = "rows"


class ConflictError(PublishError):
    """Other writers changed the tables again and again while a batch was published."""

    cause: ClassVar[Cause] = "conflict"


class BrokenRulesError(PublishError):
    """Rows break rules of their feed as they are stored."""

    cause: ClassVar[Cause] = "rules"


class ThresholdError(PublishError):
    """More of a batch cannot be loaded than its feed tolerates.

    Attributes:
        reasons: How many records were set aside, by their first reason.
    """

    cause: ClassVar[Cause] = "threshold"

    def __init__(self, message: str, reasons: Mapping[Reason, int]) -> None:
        super().__init__(message)
        self.reasons = reasons


class RollbackError(BatchError):
    """A batch cannot be taken back; nothing was changed."""


class ValidationError(BatchError):
    """Published rows differ from their source."""

    cause: ClassVar[Cause] = "validation"


class VerificationError(BatchError):
    """Rows of old batches are no longer what was recorded of them."""


class ArchiveError(BatchError):
    """A bag could not be written, or did not read back equal."""

    cause: ClassVar[Cause] = "archive"


class AuditError(BatchError):
    """The audit trail cannot be read, or an anchor of it not be written."""


class RestoreError(BatchError):
    """Rows of an archived batch cannot come back into their tables; nothing was changed."""


class AdoptionError(BatchError):
    """A table that was there before us cannot be tracked, adopted or given back as it is."""


class ReconciliationError(BatchError):
    """Rows that another system has loaded differ from their source, or could not be compared."""


class AlertError(BatchError):
    """There is no such alert."""


class HoldError(BatchError):
    """A legal hold cannot be set or lifted as somebody asked."""


class RetentionError(BatchError):
    """Something whose time is over cannot be archived and deleted; it stays."""


class ErasureError(BatchError):
    """A person's records cannot be erased as somebody asked; what was not erased yet is as it was."""


class ReportError(BatchError):
    """A report cannot be made, proven or signed as it was asked for."""
