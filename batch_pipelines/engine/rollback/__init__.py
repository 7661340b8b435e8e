"""Rollback: taking published batches back, exactly or not at all.

- `targets`: a batch's tables and what is kept of them, as SQL needs it.
- `touched`: which rows of a batch somebody has changed since.
- `plan`: what a rollback would do, and what stands in its way; for people and for the undo itself.
- `keeping`: letting rows stay that somebody has touched or refers to.
- `undo`: doing it, for one batch.
- `takeback`: the transaction around it, for one batch or several; read this first.
- `verify`: afterwards, from outside.
- `approval`: where it takes two people.
- `unvalidated`: by the run itself, where validation of what it published has failed.
"""

from __future__ import annotations

from batch_pipelines.engine.rollback.plan import Plan
from batch_pipelines.engine.rollback.takeback import Request, Rollback, plan, roll_back
from batch_pipelines.engine.rollback.verify import verify

__all__ = ["Plan", "Request", "Rollback", "plan", "roll_back", "verify"]
