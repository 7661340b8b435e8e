"""Reading all types of a report in one snapshot of the ledger; one that fails stops no other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from batch_pipelines.engine.compliance.model import Section
from batch_pipelines.engine.compliance.sections import (
    access,
    critical,
    findings,
    integrity,
    overrides,
    quarantine,
    retention,
    summary,
)
from batch_pipelines.engine.errors import ReportError
from batch_pipelines.engine.work import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from batch_pipelines.engine.compliance.model import Content
    from batch_pipelines.engine.compliance.scope import Scope
    from batch_pipelines.engine.postgres.database import Connection

_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
# A type that takes longer fails, and the others are made.
_LONGEST = "SET LOCAL statement_timeout = '15min'"


class Kind(NamedTuple):
    """A type of report.

    Attributes:
        title: What it is called for people.
        read: Reads it.
    """

    title: str
    read: Callable[[Connection, Scope], Content]


KINDS: Final[dict[str, Kind]] = {
    "summary": Kind("Totals", summary.read),
    "findings": Kind("Open findings", findings.read),
    "critical": Kind("Critical rows", critical.read),
    "integrity": Kind("Checksums and validations", integrity.read),
    "quarantine": Kind("What was set aside", quarantine.read),
    "overrides": Kind("What people overruled", overrides.read),
    "access": Kind("Access to values, and reports", access.read),
    "retention": Kind("Archive, retention and holds", retention.read),
}
"""The types of report, in the order in which a report has them."""


@dataclass(frozen=True)
class Read:
    """What was read of the ledger.

    Attributes:
        scope: What the report is about.
        sections: A section each type, in the order of `KINDS`.
        seconds: How long it took.
    """

    scope: Scope
    sections: tuple[Section, ...]
    seconds: float

    @property
    def failed(self) -> tuple[Section, ...]:
        """Those that could not be made."""
        return tuple(each for each in self.sections if each.content is None)

    @property
    def content_bytes(self) -> int:
        """How many bytes what the report says has, as JSON in one spelling."""
        return sum(len(each.content.canonical) for each in self.sections if each.content)

    @property
    def content_sha256(self) -> str:
        """A digest of what the report says, and of nothing else: the same ledger gives the same."""
        return hashlib.sha256(
            "\n".join(
                f"{each.type} {each.content.sha256 if each.content else 'failed'}"
                for each in self.sections
            ).encode()
        ).hexdigest()


def chosen(types: Iterable[str]) -> tuple[str, ...]:
    """Put types of report into their order.

    Args:
        types: Their names; none stands for all.

    Returns:
        The names, each once.

    Raises:
        ReportError: One of them is none.
    """
    wanted = {*types} or {*KINDS}
    if unknown := sorted(wanted - {*KINDS}):
        message = f"{', '.join(unknown)} is no type of report. There are {', '.join(KINDS)}."
        raise ReportError(message)
    return tuple(name for name in KINDS if name in wanted)


def read(
    connection: Connection, scope: Scope, types: Iterable[str], monotonic: Callable[[], float]
) -> Read:
    """Read a report.

    Args:
        connection: A connection in autocommit mode.
        scope: What it is about.
        types: Which types; see `chosen`.
        monotonic: Tells how long things take, in seconds.

    Returns:
        What was read. A type that failed says why.
    """
    began = monotonic()
    with connection.transaction():
        connection.execute(_SNAPSHOT)
        connection.execute(_LONGEST)
        sections = tuple(_section(connection, scope, name, monotonic) for name in chosen(types))
    return Read(scope, sections, monotonic() - began)


def _section(
    connection: Connection, scope: Scope, name: str, monotonic: Callable[[], float]
) -> Section:
    kind, began = KINDS[name], monotonic()
    content, failure = None, None
    try:
        # A savepoint: what PostgreSQL refuses to one type, the next one does not feel.
        with connection.transaction():
            content = kind.read(connection, scope)
    except Exception as error:  # noqa: BLE001  # whatever it is, the others are made, and it is told
        failure = explain(error)
    return Section(name, kind.title, content, failure, monotonic() - began)
