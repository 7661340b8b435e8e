"""Batches that another system loads: what a feed's `source.batches` may say."""

from __future__ import annotations

from typing import Annotated

import pydantic


class Batches(pydantic.BaseModel):
    """A table in the target database in which a loader says which files a batch is from.

    Attributes:
        table: Its name with schema; a row for each file, or pattern of files, of a batch.
        batch: Its column with the batch id.
        path: Its column with the path; a relative one starts at the folder that holds the feeds folder.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    table: Annotated[str, pydantic.StringConstraints(pattern=r"^[^.\x00]+\.[^.\x00]+$")] = (
        pydantic.Field(description="table of the loader with its schema, e.g. loader.batch_files")
    )
    batch: Annotated[str, pydantic.StringConstraints(min_length=1)] = pydantic.Field(
        description="its column with the batch id"
    )
    path: Annotated[str, pydantic.StringConstraints(min_length=1)] = pydantic.Field(
        description="its column with the path of a file, or a pattern of paths"
    )
