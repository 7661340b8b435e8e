"""The signature of a feed: the columns that a delivery brings to a table, against those of before.

A signature is compared with the version in force, the newest one that a published batch brought. What
differs gets a verdict, and the feed's contract says what becomes of it. docs/ledger.md has the rules.

Not here: which types fit (`type_families`), reading the columns of files (`reading`), and keeping
versions (`ledger.signatures`).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from batch_pipelines.engine.contract import Contract, Policy
from batch_pipelines.engine.type_families import ALSO, is_harmless

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from batch_pipelines.engine.catalog import Column, TableInfo

Verdict: TypeAlias = Literal["same", "compatible", "breaking"]
Kind: TypeAlias = Literal["added", "missing", "retyped", "renamed"]
_AS_EVER: Final = Contract()
# What is kept of a name: JSON may have keys of any length.
_NAME_LENGTH = 1_000


@dataclass(frozen=True, order=True)
class SignedColumn:
    """A column of a delivery.

    Attributes:
        target: The column of the table that it is meant for.
        target_type: The type of that as SQL writes it; None where the table has no such column.
        name: Its name in the file; of files with different ones, all of them.
        type: The type that the file gives it, `text` in text formats.
    """

    target: str
    target_type: str | None
    name: str
    type: str

    def __str__(self) -> str:
        named = "" if self.name == self.target else f"{self.name}: "
        return f"{named}{self.type} -> {self.target_type or 'no column'}"


@dataclass(frozen=True)
class FeedSignature:
    """The columns that a delivery brings to a table.

    Attributes:
        columns: The columns; their order in the file is not kept.
    """

    columns: tuple[SignedColumn, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(sorted(self.columns, key=_identity)))

    @cached_property
    def hash(self) -> str:
        """SHA-256, as hex, of the columns as JSON: sorted, each as target, its type, name, type."""
        plain = [[c.target, c.target_type, c.name, c.type] for c in self.columns]
        return hashlib.sha256(json.dumps(plain, separators=(",", ":")).encode()).hexdigest()

    @cached_property
    def by_target(self) -> dict[str, SignedColumn]:
        """The columns by what they are meant for."""
        return {column.target: column for column in self.columns}


@dataclass(frozen=True)
class Version:
    """A version of a feed's signature for a table.

    Attributes:
        number: From 1.
        signature: The columns that batches of it loaded.
    """

    number: int
    signature: FeedSignature


@dataclass(frozen=True)
class Change:
    """One column that differs from the version in force.

    Attributes:
        kind: Whether it is new, gone, or of another type or name.
        column: The column of the table that it is meant for.
        before, after: What was and what is brought, or None.
        verdict: What the change means for the table.
        policy: What becomes of it.
    """

    kind: Kind
    column: str
    before: str | None
    after: str | None
    verdict: Literal["compatible", "breaking"]
    policy: Policy


@dataclass(frozen=True)
class Terms:
    """What the columns of a table's delivery are held against.

    Attributes:
        contract: What becomes of changes.
        in_force: The version in force; None where nothing was delivered before.
        left: The columns meant that are left out, whatever the contract says.
        late: The table's columns that rows of the batch lack which were published before it had them.
        server_changed: Columns of which the feed says, or said when it was loaded, that the server
            changes them.
    """

    contract: Contract = _AS_EVER
    in_force: Version | None = None
    left: frozenset[str] = frozenset()
    late: frozenset[str] = frozenset()
    server_changed: frozenset[str] = frozenset()


FREE: Final = Terms()
"""What holds where nothing is said and nothing was before."""


@dataclass(frozen=True)
class Comparison:
    """A delivery's signature, compared with the version in force.

    Attributes:
        table: The target table.
        terms: What it is held against.
        signature: What the delivery brings.
        changes: What differs, by column.
        own_columns: Whether each record has columns of its own, as in JSON lines.
        passed_over: The table's columns that the files bring and the feed's format ignores.
    """

    table: TableInfo
    terms: Terms
    signature: FeedSignature
    changes: tuple[Change, ...]
    own_columns: bool
    passed_over: frozenset[str]

    def __str__(self) -> str:
        return described(self.table.full_name, self.verdict, self.previous)

    @property
    def previous(self) -> int | None:
        """Number of the version in force; None for a first delivery."""
        return None if self.terms.in_force is None else self.terms.in_force.number

    @property
    def verdict(self) -> Verdict:
        """The worst of the changes; a first delivery is compatible."""
        if any(change.verdict == "breaking" for change in self.changes):
            return "breaking"
        return "compatible" if self.changes or self.terms.in_force is None else "same"

    @property
    def frozen(self) -> tuple[Change, ...]:
        """The changes for which the batch fails."""
        return tuple(change for change in self.changes if change.policy == "freeze")

    def targets(self, policy: Policy) -> frozenset[str]:
        """Give the columns meant of which a policy says what becomes of them."""
        return frozenset(change.column for change in self.changes if change.policy == policy)

    @property
    def left_out(self) -> frozenset[str]:
        """The columns meant that are not loaded, of records that are."""
        # A record that brings its own columns is set aside for one that is refused; the others lack it.
        refused = frozenset[str]() if self.own_columns else self.targets("quarantine")
        return self.targets("ignore") | refused

    @property
    def taken(self) -> FeedSignature:
        """The version in force, with the changes that are taken on."""
        before = self.terms.in_force
        found = dict((self if before is None else before).signature.by_target)
        for change in self.changes:
            if change.policy == "evolve" and change.kind == "missing":
                del found[change.column]
            elif change.policy == "evolve":
                found[change.column] = self.signature.by_target[change.column]
            elif before is None:
                del found[change.column]
        return FeedSignature(tuple(found.values()))

    def against(self, in_force: Version | None) -> Comparison:
        """Compare the same delivery with another version."""
        terms = replace(self.terms, in_force=in_force)
        return compare(
            self.table, self.signature, terms,
            own_columns=self.own_columns, passed_over=self.passed_over,
        )  # fmt: skip


def described(table: str, verdict: str, previous: int | None) -> str:
    """Say in a line how a delivery's columns compare.

    Args:
        table: The target table.
        verdict: The verdict.
        previous: Number of the version in force; None for a first delivery.
    """
    if previous is None:
        return f"{table}: columns of a first delivery"
    return f"{table}: columns against version {previous}: {verdict}"


def compare(
    table: TableInfo,
    signature: FeedSignature,
    terms: Terms,
    *,
    own_columns: bool = False,
    passed_over: Collection[str] = (),
) -> Comparison:
    """Compare what a delivery brings with the version in force.

    Args:
        table: The target table.
        signature: What the delivery brings.
        terms: The version in force, and the contract.
        own_columns: Whether each record has columns of its own, as in JSON lines.
        passed_over: The table's columns that the files bring and the feed's format ignores.

    Returns:
        The comparison; nothing is refused yet.
    """
    known = {column.name: column for column in table.columns}
    before = terms.in_force.signature.by_target if terms.in_force else {}
    now = signature.by_target
    changes = []
    for target in sorted({*before, *now}):
        old, new = before.get(target), now.get(target)
        if new is None:
            needed = _is_needed(known.get(target))
            own_doing = target in passed_over
            changes.append(
                Change(
                    "missing", target, str(old), None, "breaking" if needed else "compatible",
                    "evolve" if own_doing else terms.contract.missing_column,
                )
            )  # fmt: skip
        elif new.target_type is None:
            policy = terms.contract.extra(own_columns=own_columns)
            changes.append(Change("added", target, _text(old), str(new), "breaking", policy))
        elif old is None and terms.in_force is not None:
            # It has a place, so there is no reason to leave it out.
            policy = "freeze" if terms.contract.extra_column == "freeze" else "evolve"
            changes.append(Change("added", target, None, str(new), "compatible", policy))
        elif old is not None and old != new:
            changes.append(_changed(old, new, terms.contract, known[target]))
    return Comparison(table, terms, signature, tuple(changes), own_columns, frozenset(passed_over))


def _changed(old: SignedColumn, new: SignedColumn, contract: Contract, column: Column) -> Change:
    if (old.type, old.target_type) == (new.type, new.target_type):
        return Change("renamed", new.target, str(old), str(new), "compatible", "evolve")
    types = [(each.type, each.target_type or "") for each in (old, new)]
    policy: Policy = "evolve"
    # What the table's owner has changed is no breach of the sender's.
    if old.type != new.type:
        policy = contract.changed_type
    if policy in {"quarantine", "ignore"} and _is_needed(column):
        policy = "freeze"
    verdict: Literal["compatible", "breaking"] = "compatible" if is_harmless(*types) else "breaking"
    return Change("retyped", new.target, str(old), str(new), verdict, policy)


def _is_needed(column: Column | None) -> bool:
    return column is not None and column.not_null and not (column.has_default or column.computed)


def _text(column: SignedColumn | None) -> str | None:
    return None if column is None else str(column)


def _identity(column: SignedColumn) -> tuple[str, str, str, str]:
    return column.target, column.target_type or "", column.name, column.type


# What is refused


def refusal(comparison: Comparison, where: str) -> str | None:
    """Say why a delivery is refused by its feed's contract.

    Args:
        comparison: The delivery, compared.
        where: Its files.

    Returns:
        Columns and remedy, or None where it is not refused.
    """
    if not comparison.frozen:
        return None
    table, contract = comparison.table, comparison.terms.contract
    said = "; ".join(_described(change) for change in comparison.frozen)
    keys = {"added": "extra_column", "missing": "missing_column", "retyped": "changed_type"}
    wanted = sorted({keys[change.kind] for change in comparison.frozen})
    in_force = comparison.terms.in_force
    against = (
        f"the columns of {table.full_name}"
        if in_force is None
        else f"version {in_force.number} of its signature for {table.full_name}"
    )
    needed = [
        c.column for c in comparison.frozen
        if c.kind == "retyped" and contract.changed_type in {"quarantine", "ignore"}
    ]  # fmt: skip
    kept = (
        f" {_listed(needed)} cannot be left out: the table needs a value there." if needed else ""
    )
    taken_on = ", ".join(f"{key}: evolve" for key in wanted)
    message = (
        f"{where}: the feed's contract freezes {against}: {said}.{kept} Deliver it as before, or "
        f"take the change on with `contract: {{{taken_on}}}` in the feed."
    )
    gone = [c.column for c in comparison.changes if c.kind == "missing"]
    extra = [c.column for c in comparison.changes if c.kind == "added"]
    names = [comparison.signature.by_target[column].name for column in extra]
    renamed = rename_hint(names, gone)
    return " ".join([message, *renamed])


def _described(change: Change) -> str:
    if change.kind == "added":
        return f"column {change.column!r} is extra ({change.after})"
    if change.kind == "missing":
        return f"column {change.column!r} is missing (it was {change.before})"
    return f"column {change.column!r} is {change.after} where it was {change.before}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def rename_hint(extra: Collection[str], absent: Collection[str]) -> list[str]:
    """Suggest which extra column is an absent one under another name.

    Args:
        extra: Names of columns in the file that have no place, or had none before.
        absent: The table's columns that do not come.

    Returns:
        A sentence, or nothing.
    """
    pairs, left = {}, [*absent]
    for name in extra:
        near = difflib.get_close_matches(name, left, n=1)
        if near or (len(extra) == len(absent) == 1):
            pairs[name] = near[0] if near else left[0]
            left.remove(pairs[name])
    if not pairs:
        return []
    mapping = ", ".join(f"{_yaml(name)}: {_yaml(to)}" for name, to in pairs.items())
    return [f"If it was renamed, write `format: {{columns: {{{mapping}}}}}`."]


def _yaml(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else json.dumps(name)


def signable(name: str) -> str:
    """Give a name as the ledger can keep it: PostgreSQL knows no NUL and no halves of pairs."""
    return name.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")[:_NAME_LENGTH]


def merged(files: Iterable[Mapping[str, SignedColumn]]) -> FeedSignature:
    """Put together what the files of a delivery bring.

    Args:
        files: Of each, its columns by what they are meant for.

    Returns:
        The signature of all; a column of two types has both.
    """
    return FeedSignature(tuple(_merged([*files])))


def _merged(files: list[Mapping[str, SignedColumn]]) -> Iterator[SignedColumn]:
    for target in sorted({target for file in files for target in file}):
        found = [file[target] for file in files if target in file]
        names, types = {c.name for c in found}, {c.type for c in found}
        yield SignedColumn(
            target, found[0].target_type, ALSO.join(sorted(names)), ALSO.join(sorted(types))
        )
