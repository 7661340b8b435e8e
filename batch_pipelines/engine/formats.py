"""Formats: what a feed says of how its files are written. Not here: reading them (`reading`)."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping  # noqa: TC003  # pydantic reads the annotations
from typing import Annotated, Final, Literal

import pydantic

# Formats whose files hold typed columns and are compressed inside, and what people call them.
COLUMNAR: Final[Mapping[str, str]] = {"arrow": "Arrow", "orc": "ORC", "parquet": "Parquet"}
_LONGEST_PREAMBLE = 10_000
_NONE = frozenset({None, "none"})
# Codecs that are no encoding of a file: of one word, of source code, or of none at all.
_NO_FILES = frozenset(
    {"idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined", "utf-7"}
)
_DIRECTIVES = "YymbdHMSfz"
_TIME_OF_DAY = frozenset("HMSfz")

Name = Annotated[str, pydantic.StringConstraints(max_length=1000)]
Sign = Annotated[str, pydantic.StringConstraints(min_length=1, max_length=1)]
Meaning = Literal["null", "text"]


def _as(*kinds: object) -> pydantic.WithJsonSchema:
    """Say what a feed may write where that is not what becomes of it."""
    return pydantic.WithJsonSchema({"anyOf": [*kinds]})


_TEXT, _NOTHING, _WORD = (
    {"type": "string"},
    {"enum": ["none", None]},
    {"enum": ["text", None, "null"]},
)
_SIGN = {"type": "string", "minLength": 1, "maxLength": 1}


class Format(pydantic.BaseModel):
    r"""How the files of a feed are written; of columnar ones `columns` and `ignore_columns` count.

    Of JSON lines also `encoding`, `decimal`, `dates`, `timestamps` and the last two.

    Attributes:
        delimiter: Between two fields; without, a tab for TSV and a comma for CSV.
        quote: Around a field, or None where nothing is quoted.
        escape: Makes the sign behind it stand for itself; without, a quote in a field is doubled.
        encoding: A text encoding of Python's; a byte order mark overrules it.
        header: Whether the first line has the names of the columns, or these where it has not.
        preamble: Lines before all that, which are passed over.
        null_words: What means null, besides an empty field, where it is not quoted.
        empty: What a field that is empty and not quoted means in a text column; for all or by column.
        decimal: Between a number's units and its fraction.
        dates, timestamps: Pattern of `strptime`; without, ISO 8601.
        columns: The table's name of each column that has another one in the file.
        ignore_columns: Columns of the file that are not loaded.
        table_field: Of JSON lines, the key whose value says for which table a line is.
        individual_field: Of JSON lines, the key whose value `true` has a record written by a
            statement of its own.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    delimiter: Annotated[Sign | None, _as(_SIGN, {"const": "\\t"})] = pydantic.Field(
        default=None, description="between two fields: one sign; default a comma, in *.tsv a tab"
    )
    quote: Annotated[Sign | None, _as(_SIGN, _NOTHING)] = pydantic.Field(
        default='"', description="around a field: one sign, or none"
    )
    escape: Annotated[Literal["\\"] | None, _as({"const": "\\"}, _NOTHING)] = pydantic.Field(
        default=None, description="none: a quote in a field is doubled; or a backslash"
    )
    encoding: str = pydantic.Field(default="utf-8", description="as Python names it, e.g. cp1252")
    header: Annotated[
        bool | tuple[Name, ...],
        _as({"const": True}, {"type": "array", "items": _TEXT, "minItems": 1}),
    ] = pydantic.Field(
        default=True, description="names of the columns where the file does not have them"
    )
    preamble: int = pydantic.Field(
        default=0, ge=0, le=_LONGEST_PREAMBLE, description="lines before the header to pass over"
    )
    null_words: tuple[str, ...] = pydantic.Field(
        default=(), description="what means null besides an empty field, e.g. NULL"
    )
    empty: Annotated[
        Meaning | Mapping[str, Meaning],
        _as(_WORD, {"type": "object", "additionalProperties": _WORD}),
    ] = pydantic.Field(
        default="null", description="of text columns: null or text; for all, or by column"
    )
    decimal: Literal[".", ","] = pydantic.Field(default=".", description="before a fraction")
    dates: str | None = pydantic.Field(default=None, description="strptime pattern, e.g. %d.%m.%Y")
    timestamps: str | None = pydantic.Field(
        default=None, description="strptime pattern, e.g. %d.%m.%Y %H:%M:%S"
    )
    columns: Mapping[str, str] = pydantic.Field(
        default_factory=dict, description="the table's column for a name in the file"
    )
    ignore_columns: tuple[str, ...] = pydantic.Field(
        default=(), description="columns of the file that are not loaded"
    )
    table_field: Name | None = pydantic.Field(
        default=None, description="JSON lines: the key that says a line's table"
    )
    individual_field: Name | None = pydantic.Field(
        default=None, description="JSON lines: the key that has a record written by itself"
    )

    @pydantic.field_validator("delimiter", mode="before")
    @classmethod
    def _delimiter(cls, value: object) -> object:
        return None if value is None else _sign("\t" if value == "\\t" else value)

    @pydantic.field_validator("quote", mode="before")
    @classmethod
    def _quote(cls, value: object) -> object:
        return None if value in _NONE else _sign(value)

    @pydantic.field_validator("escape", mode="before")
    @classmethod
    def _escape(cls, value: object) -> object:
        if value not in {*_NONE, "\\"}:
            message = "must be none (a quote in a field is doubled) or a backslash"
            raise ValueError(message)
        return None if value in _NONE else value

    @pydantic.field_validator("encoding")
    @classmethod
    def _encoding(cls, value: str) -> str:
        try:
            name = codecs.lookup(value).name
            # Refuses what is no text encoding, such as base64.
            "a,b\n".encode(name)
            known = name not in _NO_FILES
        except (LookupError, ValueError):
            known = False
        if not known:
            message = f"there is no encoding {value!r}; write one that Python knows, such as cp1252"
            raise ValueError(message)
        return name

    @pydantic.field_validator("header", mode="before")
    @classmethod
    def _header(cls, value: object) -> object:
        names = value if isinstance(value, list | tuple) else []
        if value is not True and not (names and all(isinstance(name, str) for name in names)):
            message = "must be true, or the list of the columns' names where the file has none"
            raise ValueError(message)
        return value

    @pydantic.field_validator("null_words")
    @classmethod
    def _words(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for word in value:
            if not word or word != word.strip() or {"\r", "\n", "\0"} & set(word):
                message = "each must be a word without space around it; an empty field: see `empty`"
                raise ValueError(message)
        return value

    @pydantic.field_validator("empty", mode="before")
    @classmethod
    def _empty(cls, value: object) -> object:
        # `empty: null` is no text to YAML.
        meanings = value.values() if isinstance(value, dict) else [value]
        if not all(each is None or each in {"null", "text"} for each in meanings):
            message = "must be null or text, or one of them for each column"
            raise ValueError(message)
        if isinstance(value, dict):
            return {name: meaning or "null" for name, meaning in value.items()}
        return value or "null"

    @pydantic.field_validator("decimal", mode="before")
    @classmethod
    def _decimal(cls, value: object) -> object:
        if value not in {".", ","}:
            message = "must be '.' or ','"
            raise ValueError(message)
        return value

    @pydantic.field_validator("dates", "timestamps")
    @classmethod
    def _pattern(cls, value: str | None, info: pydantic.ValidationInfo) -> str | None:
        if value is None:
            return None
        found = re.findall(r"%(.?)", value.replace("%%", ""))
        unknown = [each for each in found if each not in _DIRECTIVES or not each]
        if unknown:
            known = " ".join(f"%{each}" for each in _DIRECTIVES)
            message = f"%{unknown[0]} is not known here; there are {known}"
        elif len(set(found)) < len(found):
            message = "a directive stands twice"
        elif not (
            len({"Y", "y"} & set(found)) == len({"m", "b"} & set(found)) == ("d" in found) == 1
        ):
            message = "must have a year (%Y or %y), a month (%m or %b) and a day (%d)"
        elif info.field_name == "dates" and _TIME_OF_DAY & set(found):
            message = "a date has no time of day"
        elif not value.isascii() or {"'", "\\", "\n", "\r", "\0"} & set(value):
            message = "must be of ASCII, without quotes and backslashes"
        else:
            return value
        raise ValueError(message)

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> Format:
        delimiters = [",", "\t"] if self.delimiter is None else [self.delimiter]
        signs = [*delimiters, *(sign for sign in (self.quote, self.escape) if sign is not None)]
        if len(set(signs)) < len(signs):
            message = "delimiter, quote and escape must be different signs"
            raise ValueError(message)
        for word in self.null_words:
            if set(signs) & set(word) and not self._is_escaped(word):
                message = (
                    "a null word may not hold the delimiter, the quote or the escape; but it may be "
                    r"the escape and a letter, such as \N"
                )
                raise ValueError(message)
        return self

    def _is_escaped(self, word: str) -> bool:
        return (
            self.escape is not None and word[:1] == self.escape
            and len(word) == 2 and word[1:].isascii() and word[1:].isalpha()  # noqa: PLR2004
        )  # fmt: skip

    @property
    def escaped_words(self) -> tuple[str, ...]:
        r"""The null words that are an escape and a letter, such as `\N`."""
        return tuple(word for word in self.null_words if self._is_escaped(word))

    @property
    def plain_words(self) -> tuple[str, ...]:
        """The other null words."""
        return tuple(word for word in self.null_words if not self._is_escaped(word))

    def signs(self, file_format: str) -> tuple[bytes, bytes, bytes]:
        """Give delimiter, quote and escape; nothing for one that there is not.

        Args:
            file_format: `csv` or `tsv`.
        """
        delimiter = self.delimiter or ("\t" if file_format == "tsv" else ",")
        return delimiter.encode(), (self.quote or "").encode(), (self.escape or "").encode()

    def target_name(self, name: str) -> str | None:
        """Give the table's name of a column of the file; None where it is not to be loaded."""
        return None if name in self.ignore_columns else self.columns.get(name, name)

    def empty_is_text(self, column: str) -> bool:
        """Say whether an empty field of a text column is an empty text, and not null."""
        meaning = self.empty if isinstance(self.empty, str) else self.empty.get(column, "null")
        return meaning == "text"


def _sign(value: object) -> object:
    right = isinstance(value, str) and len(value) == 1 and value.isascii()
    if not right or str(value).isalnum() or str(value) in "\r\n\0. +-":
        message = "must be one sign of ASCII: no letter, digit, space, line end or sign of numbers"
        raise ValueError(message)
    return value


DEFAULT: Final = Format()
