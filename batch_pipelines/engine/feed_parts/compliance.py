"""What applies to a feed's data: regulation, data classification, accreditation.

Words that events and reports repeat, and by which reports are asked for. They change nothing about how a
feed is loaded: the product supports such controls, and claims nothing.
"""

from __future__ import annotations

import re
from typing import Annotated

import pydantic

from batch_pipelines.engine.feed_parts.part import Part
from batch_pipelines.engine.feed_parts.telling import one_or_many

# It stands on one line in reports, on the command line and in events.
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/()-]{0,99}")


def _word(value: str) -> str:
    if not _WORD.fullmatch(value):
        message = (
            "must be up to 100 letters, digits, spaces or . _ / ( ) -, a letter or digit first"
        )
        raise ValueError(message)
    return value


Word = Annotated[str, pydantic.AfterValidator(_word)]
"""What a regulation, a class of data or an accreditation is called."""


class Compliance(Part):
    """What applies to a feed's data.

    Attributes:
        regulation: HIPAA, CLIA, or any word of one's own; several where several apply.
        data_classification: What sort of data it is: PHI, Internal, Public ...
        accreditation: Who accredits what the data come from: CAP, COLA ...
    """

    regulation: Annotated[tuple[Word, ...], one_or_many] = pydantic.Field(
        default=(), description="what its data are under: HIPAA, CLIA, or a word of one's own"
    )
    data_classification: Word | None = pydantic.Field(
        default=None, description="what sort of data it is: PHI, Internal, Public"
    )
    accreditation: Word | None = pydantic.Field(
        default=None, description="who accredits what the data come from: CAP, COLA"
    )

    @pydantic.field_validator("regulation")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len({word.casefold() for word in value}) < len(value):
            message = "a regulation stands twice"
            raise ValueError(message)
        return value

    @property
    def context(self) -> dict[str, object]:
        """The same as an event's compliance context has it: only what is said."""
        return {name: value for name, value in self.model_dump(mode="json").items() if value}
