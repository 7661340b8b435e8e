"""Walking the chain: each entry against its hash, the one before it, its month's seal, and anchors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Mapping

    from batch_pipelines.engine.audit.anchors import Anchor
    from batch_pipelines.engine.audit.entry import Entry
    from batch_pipelines.engine.audit.segments import Segment

Kind = Literal[
    "edited", "unlinked", "gap", "fork", "truncated", "head", "anchor", "pending", "unprotected", "root",
    "history", "segment",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in the audit trail that does not hold.

    Attributes:
        seq: The first entry that it concerns; None where it concerns no single one.
        kind: What is wrong, as one word.
        message: What was expected and found.
    """

    seq: int | None
    kind: Kind
    message: str


@dataclass
class Walk:
    """A walk along the chain, from its beginning.

    Attributes:
        after: Number of the entry before the first one that must be there; 0 of a whole chain.
        hash: The hash that the first one has to refer to.
        anchors: Hashes by the number of the entry, as anchors have them.
        sealed: The sealed months by the number of their last entry.
        keep: How many findings are kept; all are counted.
    """

    after: int
    hash: bytes
    anchors: Mapping[int, Iterable[str]]
    sealed: Mapping[int, Segment] = field(default_factory=dict)
    keep: int = 100
    findings: list[Finding] = field(default_factory=list)
    count: int = 0
    entries: int = 0
    confirmed: int = 0
    skipped: int = 0
    _root: bytes = b""
    _at: dt.datetime | None = None

    def __post_init__(self) -> None:
        self._begins = {segment.first_seq for segment in self.sealed.values()}

    def step(self, entry: Entry) -> None:
        """Take the next entry, by number."""
        self.entries += 1
        if entry.seq <= self.after:
            self._find(entry.seq, "fork", f"there is more than one entry {entry.seq}")
        elif entry.seq > self.after + 1:
            missing = _range(self.after + 1, entry.seq - 1)
            self._find(self.after + 1, "gap", f"{missing} missing, {entry.seq} is the next")
        elif entry.prev_hash != self.hash:
            message = (
                f"entry {entry.seq} does not follow what stands before it: it refers to "
                f"{_short(entry.prev_hash)}, found {_short(self.hash)}"
            )
            self._find(entry.seq, "unlinked", message)
        if entry.computed_hash() != entry.hash:
            message = (
                f"entry {entry.seq} ({entry.action} of {entry.resource_type} {entry.resource_id}) "
                "is not what was appended: its fields do not have its hash"
            )
            self._find(entry.seq, "edited", message)
        self._hold_to_anchors(entry.seq, entry.hash)
        self.after, self.hash, self._at = max(self.after, entry.seq), entry.hash, entry.created_at
        self._hold_to_seal(entry)

    def skip(self, segment: Segment) -> None:
        """Pass over a month whose entries have left the database, by what is kept of it."""
        if segment.first_seq > self.after + 1:
            missing = _range(self.after + 1, segment.first_seq - 1)
            self._find(self.after + 1, "gap", f"{missing} missing, {segment.name} is the next")
        elif segment.first_seq <= self.after:
            message = f"{segment.name} was removed, and there is an entry {self.after}"
            self._find(segment.first_seq, "fork", message)
        elif segment.first_prev_hash != self.hash:
            message = (
                f"the sealed month {segment.name} does not follow what stands before it: it refers to "
                f"{_short(segment.first_prev_hash)}, found {_short(self.hash)}"
            )
            self._find(segment.first_seq, "unlinked", message)
        self.skipped += segment.entries
        self._hold_to_anchors(segment.last_seq, segment.last_hash)
        self.after, self.hash = max(self.after, segment.last_seq), segment.last_hash

    def end(self, head: Anchor) -> None:
        """Compare the end with what the ledger, and each anchor, say it is or was."""
        if head.seq > self.after:
            missing = _range(self.after + 1, head.seq)
            self._find(self.after + 1, "truncated", f"{missing} missing at the end")
        elif head.seq < self.after:
            message = f"the ledger says that {head.seq} is the last entry, found {self.after}"
            self._find(head.seq + 1, "head", message)
        elif head.hash != self.hash.hex():
            message = f"the ledger has another hash of its last entry {head.seq}"
            self._find(head.seq, "head", message)
        elif self._at is not None and head.at != self._at:
            # From there on the next entries are dated.
            message = f"the ledger has another time of its last entry {head.seq}"
            self._find(head.seq, "head", message)
        beyond = [seq for seq in self.anchors if seq > self.after]
        if beyond:
            message = (
                f"an anchor was set at entry {max(beyond)}, and the last one found is {self.after}"
            )
            self._find(self.after + 1, "truncated", message)

    def add(self, finding: Finding) -> None:
        """Count something else that does not hold."""
        self.count += 1
        if len(self.findings) < self.keep:
            self.findings.append(finding)

    def _hold_to_anchors(self, seq: int, found: bytes) -> None:
        for expected in self.anchors.get(seq, ()):
            if expected == found.hex():
                self.confirmed = max(self.confirmed, seq)
            else:
                message = (
                    f"entry {seq} is not the one that was anchored: expected hash "
                    f"{expected[:16]}, found {_short(found)}; it, or one before it, was changed"
                )
                self._find(seq, "anchor", message)

    def _hold_to_seal(self, entry: Entry) -> None:
        self._root = add_to_root(b"" if entry.seq in self._begins else self._root, entry.hash)
        segment = self.sealed.get(entry.seq)
        if segment is not None and segment.root != self._root:
            message = (
                f"the month {segment.name}, entries {segment.first_seq} to {segment.last_seq}, does not "
                f"have the root with which it was sealed: expected {_short(segment.root)}, found "
                f"{_short(self._root)}"
            )
            self._find(segment.first_seq, "segment", message)

    def _find(self, seq: int, kind: Kind, message: str) -> None:
        self.add(Finding(seq, kind, message))


def add_to_root(root: bytes, digest: bytes) -> bytes:
    """Add the hash of the next entry to the root of a month; that of none is empty."""
    return hashlib.sha256(root + digest).digest()


def _range(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"


def _short(digest: bytes) -> str:
    return digest.hex()[:16]
