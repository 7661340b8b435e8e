"""The books of a table: what became of its source's records, of which there is an independent count."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from batch_pipelines.engine.errors import PublishError
from batch_pipelines.engine.ledger.proofs import TableBalance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batch_pipelines.engine.catalog import TableInfo
    from batch_pipelines.engine.ledger.rejects import Rejects
    from batch_pipelines.engine.writing.proof import Proof
    from batch_pipelines.engine.writing.publication import Publication
    from batch_pipelines.engine.writing.superseding import Put


def balance_of(
    publication: Publication,
    proof: Proof,
    put: Put,
    rejects: Rejects,
    removed: Mapping[str, int] = MappingProxyType({}),
) -> TableBalance:
    """Balance a table.

    Args:
        publication: What is published, or staged.
        proof: The proof of its source.
        put: What happened to its rows.
        rejects: The records that were set aside.
        removed: Rows of the superseded batch that were taken away at last, by table.
    """
    name = proof.source.table.full_name
    return TableBalance(
        target_table=name,
        source_records=proof.source.records,
        inserted=put.sent - put.updated - put.unchanged,
        updated=put.updated,
        unchanged=put.unchanged,
        rejected=rejects.count[name],
        skipped=rejects.skipped[name],
        superseded_within=0,
        removed=put.removed + removed.get(name, 0),
        columns=[column.name for column in proof.source.exact],
        normalised=[
            column.name
            for column in proof.source.as_text
            if column.name not in proof.source.server_changed
        ],
        digest_sum=proof.digest.total,
        digest_moment=proof.digest.moment,
        isolation_statements=publication.bisected.get(name, 0),
        filled=[*(column.name for column in proof.source.filled), *sorted(proof.source.late)],
        column_types=[c.wire.digested_as for c in proof.source.exact if c.wire is not None],
        server_changed=sorted(proof.source.server_changed),
    )


def farewell(table: TableInfo, removed: int) -> TableBalance:
    """Balance a table from which the batch only takes the superseded one's rows.

    Args:
        table: The table.
        removed: How many rows that were.
    """
    return TableBalance(
        target_table=table.full_name, source_records=0, inserted=0, updated=0, unchanged=0,
        rejected=0, skipped=0, superseded_within=0, removed=removed, columns=[], normalised=[],
        digest_sum=0, digest_moment=0, isolation_statements=0,
    )  # fmt: skip


def require_balance(proof: Proof, rejects: Rejects) -> None:
    """Hold what was parsed of a source against the independent count of its records.

    Args:
        proof: The proof of the source.
        rejects: The records that were set aside.

    Raises:
        PublishError: The books do not balance.
    """
    source, name = proof.source, proof.source.table.full_name
    aside = rejects.count[name] + rejects.skipped[name]
    if proof.digest.rows + aside != source.records:
        message = (
            f"{name}: the books do not balance: {source.records} records by the independent count, "
            f"{proof.digest.rows} parsed and {aside} set aside. A quote may be misplaced; nothing "
            "was written."
        )
        raise PublishError(message)
