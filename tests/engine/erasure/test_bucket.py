"""Bags in a bucket, encrypted: a person leaves them, too, while the store fails now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pydantic

from batch_pipelines.engine.archiving.bag import open_bag
from batch_pipelines.engine.archiving.choosing import place_of
from batch_pipelines.engine.archiving.keys import new_key
from batch_pipelines.engine.archiving.verify import ArchiveVerifier
from batch_pipelines.engine.ledger import archives
from batch_pipelines.engine.work import utc_now
from tests.engine.erasure.support import (
    FIRST,
    OWN,
    PATIENT,
    deliver_and_load,
    eraser,
    left_of,
    open_laboratory,
    request,
)
from tests.support_s3 import failing_every, no_pauses

if TYPE_CHECKING:
    import pytest

    from tests.engine.conftest import MakeSite
    from tests.support_s3 import Store


def test_a_person_leaves_encrypted_bags_in_a_bucket(
    site18: MakeSite, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_pauses(monkeypatch)
    there = open_laboratory(site18)
    there.feed = there.feed.model_validate(
        {**there.feed.model_dump(), "archive": {"encrypt": True, "to": f"s3://{store.bucket}/bags"}}
    )
    secret = pydantic.SecretStr(new_key())
    there.settings = there.settings.model_copy(update={"archive_key": secret})
    deliver_and_load(there, "r.csv", FIRST)
    (batch,) = there.history()
    (old,) = archives.of_batch(there.connection, batch.batch_id)
    store.meddle = failing_every(3)

    done = eraser(there).erase(request())
    assert [(p.kind, p.erased) for p in done.places] == [("rows", 1), ("quarantine", 2), ("bag", 3)]
    archive, name = place_of(there.settings, old.place)
    assert archive.files(name) == {}
    pieces: list[bytes] = []
    with open_bag(there.connection, there.settings, batch.batch_id) as bag:
        assert bag.packing.key_id == old.key_id
        for file in bag.under("source") + bag.under("quarantine") + bag.under("row_digests"):
            bag.read(file, pieces.append)
    assert PATIENT.encode() not in b"".join(pieces)
    assert b"P-000001" in b"".join(pieces)
    verifier = ArchiveVerifier(there.settings, {there.feed.feed: there.feed}, utc_now)
    assert [each.status for each in verifier.of_batch(there.connection, batch)] == ["VALID"]
    assert left_of(there, *OWN) == []
