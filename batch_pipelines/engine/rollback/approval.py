"""Rollbacks that take two people: one asks, another approves, and only then it is done."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from batch_pipelines.engine.errors import FeedError, RollbackError
from batch_pipelines.engine.ledger import events
from batch_pipelines.engine.postgres.actor import UNAUTHENTICATED, person
from batch_pipelines.engine.rollback.takeback import Request

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection

_ASK = """
INSERT INTO batch_audit.rollback_request (request_id, batch_ids, cascade_too, keep_touched, reason,
    requested_by)
VALUES (%s, %s::uuid[], %s, %s, %s, %s)
"""
_READ = """
SELECT request_id::text, batch_ids::text[], cascade_too, keep_touched, reason, requested_by, approved_by
FROM batch_audit.rollback_request WHERE request_id::text LIKE %s || '%%' LIMIT 2
"""
_APPROVE = """
UPDATE batch_audit.rollback_request SET approved_by = %s, approved_at = clock_timestamp()
WHERE request_id = %s AND approved_by IS NULL
"""


def ask(connection: Connection, request: Request) -> str:
    """Write a request down for somebody else to approve.

    Args:
        connection: A connection in autocommit mode.
        request: What is wanted.

    Returns:
        The request's id.
    """
    request_id = str(uuid.uuid4())
    with connection.transaction():
        asked = (
            request_id, list(request.batch_ids), request.cascade, request.keep_touched,
            request.reason, request.requested_by,
        )  # fmt: skip
        connection.execute(_ASK, asked)
        _record(connection, request, request.requested_by, "requested", request_id)
    return request_id


def approve(connection: Connection, reference: str, by: str) -> Request:
    """Approve a request.

    Args:
        connection: A connection in autocommit mode.
        reference: The request's id, or a unique prefix of it.
        by: Who approves.

    Returns:
        The request, approved; it is still to be done. Again by the same person, as often as it takes.

    Raises:
        FeedError: There is no such request.
        RollbackError: Who asked cannot approve, nobody proved who it was, or somebody else has already.
    """
    # Only what an id can hold: the prefix is the left side of a LIKE.
    plain = reference and set(reference) <= set("0123456789abcdef-")
    found = connection.execute(_READ, (reference,)).fetchall() if plain else []
    if len(found) != 1:
        message = (
            f"There is no request for a rollback whose id begins with {reference!r}, or several."
        )
        raise FeedError(message)
    request_id, batch_ids, cascade, keep, reason, requested_by, approved_by = found[0]
    if UNAUTHENTICATED in {by, requested_by}:
        message = (
            f"Request {request_id} takes two people, and nobody knows who "
            f"{'approves' if by == UNAUTHENTICATED else 'made'} it. Ask and approve on the command "
            "line, or behind a proxy that logs people in."
        )
        raise RollbackError(message)
    if person(by) == person(requested_by):
        message = (
            f"Request {request_id} was made by {requested_by}; somebody else has to approve it."
        )
        raise RollbackError(message)
    if approved_by not in {None, by}:
        message = f"Request {request_id} was approved by {approved_by} already."
        raise RollbackError(message)
    request = Request(
        tuple(batch_ids), reason, requested_by, cascade=cascade, keep_touched=keep,
    )  # fmt: skip
    if approved_by is None:
        with connection.transaction():
            connection.execute(_APPROVE, (by, request_id))
            _record(connection, request, by, "approved", request_id)
    return replace(request, approved_by=by)


def _record(connection: Connection, request: Request, by: str, what: str, request_id: str) -> None:
    for batch_id in request.batch_ids:
        step = replace(request, requested_by=by, correlation_id=request_id)
        details = {"reason": request.reason}
        events.append(connection, step.event(batch_id, what, "SUCCESS", details))
