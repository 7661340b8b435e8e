"""What must hold wherever records cannot be loaded: who is set aside, and what becomes of the others."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from batch_pipelines.engine.errors import ThresholdError
from batch_pipelines.engine.feed_parts.tolerance import Thresholds
from batch_pipelines.engine.ledger import batches, proofs, rejects, values
from tests.support_engine import KEY

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from batch_pipelines.engine.ledger.batches import Batch
    from tests.support_engine import Content, Site


@dataclass(frozen=True, order=True)
class Bad:
    """A record that cannot be loaded: where it stands, and its first reason."""

    file: str
    record: int
    sqlstate: str
    column: str | None = None
    constraint: str | None = None


def raw(site: Site, batch_id: str) -> list[bytes]:
    """Look at the records themselves that were set aside, in the order of their places."""
    with values.opened(site.connection, batch_id, "look", "a test"):
        return rejects.raw_of_batch(site.connection, batch_id)


def tolerate(site: Site, **thresholds: object) -> None:
    """Give the site's feed other thresholds; without any, all that can be loaded is."""
    update = {"thresholds": Thresholds.model_validate(thresholds)}
    site.feed = site.feed.model_copy(update=update)


def set_aside(site: Site, batch: Batch, files: Mapping[str, Content]) -> list[Bad]:
    """Give what the quarantine holds of a batch, once places and raw bytes are those of its files."""
    found = rejects.of_batch(site.connection, batch.batch_id)
    assert batch.rejected_records == len(found)
    for reject, record in zip(found, raw(site, batch.batch_id), strict=True):
        place = (reject.line_number, reject.byte_offset, record)
        content = files[reject.file_name]
        if isinstance(content, pa.Table):
            assert place[:2] == (None, None)
            assert json.loads(record) == content.to_pylist()[reject.record_number - 1]
        else:
            assert place == _places(content)[reject.record_number - 1]
        assert reject.replayed_at is None
        assert reject.breaches[0] == {
            "sqlstate": reject.sqlstate, "message": reject.message,
            "column": reject.column_name, "constraint": reject.constraint_name,
        }  # fmt: skip
    return [
        Bad(r.file_name, r.record_number, r.sqlstate, r.column_name, r.constraint_name)
        for r in found
    ]


def balance(site: Site, batch: Batch) -> None:
    """Check that every record of a published batch is accounted for, in each table and in all."""
    assert batch.source_records == (batch.written_records or 0) + (batch.rejected_records or 0)
    tables = proofs.tables(site.connection, batch.batch_id)
    for table in tables:
        written = table.inserted + table.updated + table.unchanged
        assert table.source_records == written + table.rejected
        assert written == site.stamps(table.target_table).get(batch.batch_id, 0)
    assert sum(table.rejected for table in tables) == batch.rejected_records


def check_bad_records(
    site: Site,
    files: Mapping[str, Content],
    *bad: Bad,
    key: str = KEY,
    by_trying: bool = False,
) -> str:
    """Check what becomes of a delivery with bad records, where none is tolerated and where any is.

    - Of a feed that tolerates none nothing is visible, what was before stays, and the bad records are
      kept and named.
    - Of one that tolerates any, everything else is: exactly what the delivery without those records
      brings, which then supersedes it.

    Args:
        site: Its feed tolerates no bad record.
        files: The delivery.
        bad: Those of its records that cannot be loaded.
        key: The partition.
        by_trying: They are found one by one: where none is tolerated, the first is enough.

    Returns:
        What the failed batch says.
    """
    strict, names = site.feed, [table.table for table in site.feed.tables]
    before = [(site.rows(name), site.stamps(name)) for name in names]
    earlier = batches.in_force(site.connection, strict.feed, key)
    site.deliver(files, key)
    with pytest.raises(ThresholdError) as raised:
        site.run(key)
    said, failed = str(raised.value), site.newest(key)
    assert (failed.status, failed.error_details, failed.published_at) == ("FAILED", said, None)
    assert [(site.rows(name), site.stamps(name)) for name in names] == before
    assert batches.in_force(site.connection, strict.feed, key) == earlier
    assert proofs.tables(site.connection, failed.batch_id) == []
    found = set_aside(site, failed, files)
    assert found == ([*bad[:1]] if by_trying else sorted(bad))
    opening = (
        f"orders/{key}: {len(found)} of {failed.source_records} records cannot be loaded, above 0"
    )
    assert said.startswith(f"{opening}; nothing was written. The first: ")
    assert any(f"The first: {each.file}, record {each.record}" in said for each in bad)
    assert said.endswith(f"`batch-pipelines rejects {failed.batch_id}` lists them.")

    tolerate(site)
    partial = site.run(key)
    assert (partial.status, partial.error_details) == ("PARTIAL_SUCCESS", None)
    assert set_aside(site, partial, files) == sorted(bad)
    balance(site, partial)
    # A column that no proof covers is no failure.
    assert {each.status for each in proofs.validations(site.connection, partial.batch_id)} <= {
        "SUCCESS", "UNVERIFIED"
    }  # fmt: skip
    published = [site.rows(name) for name in names]

    site.feed = strict
    clean = site.load(_without(files, bad), key)
    assert (clean.status, clean.rejected_records) == ("SUCCESS", 0)
    balance(site, clean)
    assert [site.rows(name) for name in names] == published
    old = batches.by_id(site.connection, partial.batch_id)
    assert (old.status, old.superseded_by) == ("SUPERSEDED", clean.batch_id)
    return said


def _places(content: str | bytes) -> list[tuple[int, int, bytes]]:
    """Line, byte offset and bytes of each record of a CSV in which each is one line."""
    raw = content.encode() if isinstance(content, str) else content
    places, offset = [], 0
    for line, text in enumerate(raw.splitlines(keepends=True), 1):
        if text.strip():
            places.append((line, offset, text))
        offset += len(text)
    return places[1:]


def _without(files: Mapping[str, Content], bad: Collection[Bad]) -> dict[str, Content]:
    """Leave records out of files."""
    left: dict[str, Content] = {}
    for name, content in files.items():
        gone = {each.record - 1 for each in bad if each.file == name}
        if isinstance(content, pa.Table):
            left[name] = content.take([n for n in range(content.num_rows) if n not in gone])
        else:
            raw = content.encode() if isinstance(content, str) else content
            own = [text for n, (_, _, text) in enumerate(_places(raw)) if n not in gone]
            left[name] = raw.splitlines(keepends=True)[0] + b"".join(own)
    return left
