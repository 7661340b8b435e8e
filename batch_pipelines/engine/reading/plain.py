"""Plain copies: what a compressed file, or one in another encoding, says in UTF-8.

Made once for a batch, beside its staged files, and read by all readers from then on: lines and byte
offsets are those of this text. What is not UTF-8 already stays recognisable: a byte that cannot be
decoded is written as the three bytes that UTF-8 would have for U+DC00 plus its value, were that a
character. No decoder takes them for one, so the record is set aside; and the byte can be told from them.
"""

from __future__ import annotations

import codecs
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import pyarrow as pa

from batch_pipelines.engine.errors import DeliveryError
from batch_pipelines.engine.formats import COLUMNAR

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from batch_pipelines.engine.feeds import Feed
    from batch_pipelines.engine.formats import Format
    from batch_pipelines.engine.ledger.files import ImportFile

COMPRESSIONS: Final = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".zip": "zip"}
# Without a limit in the feed, what is larger than both is taken for a bomb.
FREE_BYTES: Final = 1_000_000_000
RATIO: Final = 100

_PIECE_BYTES = 1_000_000
_UTF8 = "utf-8"
# Those of UTF-32 first: one begins like one of UTF-16.
_MARKS = {
    codecs.BOM_UTF8: _UTF8, codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
_UNDECODABLE = "batch_pipelines.undecodable"


class _Content(Protocol):
    """What can be read in pieces."""

    def read(self, size: int, /) -> bytes:
        """Read at most so many bytes; none at the end."""


def readable(folder: Path, file: ImportFile, form: Format, room: int | None = None) -> Path:
    """Give the file that readers read: the staged copy itself, or its plain copy, made if need be.

    Args:
        folder: The folder of staged copies.
        file: The file.
        form: How it is written.
        room: How many bytes it may unpack to; None for what is believable.

    Returns:
        A file of the same name, in UTF-8 and not compressed, or a columnar file.

    Raises:
        DeliveryError: It does not unpack, or to more than it may.
    """
    staged = folder / file.file_name
    if file.format in COLUMNAR:
        return staged
    encoding = encoding_of(staged, file, form)
    if file.compression is None and encoding == _UTF8:
        return staged
    plain = folder.parent / "plain" / encoding / file.file_name
    if not plain.exists():
        plain.parent.mkdir(parents=True, exist_ok=True)
        unfinished = folder.parent / "plain" / "unfinished"
        with _unpacked(staged, file.compression) as content, unfinished.open("wb") as writing:
            for piece in _decoded(_limited(content, file, room), encoding):
                writing.write(piece)
        unfinished.rename(plain)
    return plain


def is_plain(folder: Path, file: ImportFile, form: Format) -> bool:
    """Say whether the staged copy of a file is text that is read as it is; see `readable`."""
    return (
        file.format not in COLUMNAR
        and file.compression is None
        and encoding_of(folder / file.file_name, file, form) == _UTF8
    )


class Unpacking:
    """Makes the plain copies of a delivery's files, which together may be as large as the feed says.

    Args:
        folder: The folder of staged copies.
        feed: The feed.
    """

    def __init__(self, folder: Path, feed: Feed) -> None:
        self._folder, self._form, self._room = folder, feed.format, feed.limits.bytes

    def readable(self, file: ImportFile) -> Path:
        """Give the file that readers read; see the function of the same name."""
        path = readable(self._folder, file, self._form, self._room)
        if self._room is not None:
            self._room -= path.stat().st_size
        return path


def only_member(path: Path) -> zipfile.ZipInfo:
    """Find the one file in a ZIP file.

    Args:
        path: The ZIP file.

    Returns:
        What it says of the file in it.

    Raises:
        DeliveryError: It is damaged, or there is not exactly one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, EOFError, ValueError):
        raise _damaged(path, "zip") from None
    if len(members) != 1:
        message = (
            f"{path.name}: holds {len(members)} files. Deliver a ZIP file with exactly one, or one "
            "for each."
        )
        raise DeliveryError(message)
    return members[0]


@contextmanager
def _unpacked(path: Path, compression: str | None) -> Iterator[_Content]:
    """Open what a file holds; raise where it is damaged."""
    try:
        if compression is None:
            with path.open("rb") as content:
                yield content
        elif compression == "zip":
            member = only_member(path)
            with zipfile.ZipFile(path) as archive, archive.open(member) as content:
                yield content
        else:
            with (
                pa.OSFile(str(path)) as packed,
                pa.CompressedInputStream(packed, compression) as content,
            ):
                yield content
    except (zipfile.BadZipFile, EOFError, zlib.error):
        raise _damaged(path, compression) from None
    # Of zipfile: encrypted; a way of packing that it does not know raises a kind of it.
    except RuntimeError:
        message = (
            f"{path.name}: is encrypted, or packed in a way that is not known. Deliver it plain."
        )
        raise DeliveryError(message) from None
    except OSError as error:
        # Of the machine's own errors the number is known.
        if error.errno is not None or compression is None:
            raise
        raise _damaged(path, compression) from None


def _damaged(path: Path, compression: str | None) -> DeliveryError:
    return DeliveryError(f"{path.name}: not a whole {compression} file: damaged. Deliver it again.")


def _limited(content: _Content, file: ImportFile, room: int | None) -> Iterator[bytes]:
    """Read to the end, and no further than a file may be long."""
    believable = max(FREE_BYTES, RATIO * file.size)
    size = 0
    while piece := content.read(_PIECE_BYTES):
        size += len(piece)
        if file.compression is not None and size > (believable if room is None else room):
            least = (
                f"{believable} bytes, of {file.size}. If that is meant, set `limits: bytes` in the feed."
                if room is None
                else f"the {room} bytes that `limits: bytes` in the feed leaves it."
            )
            message = f"{file.file_name}: unpacks to more than {least}"
            raise DeliveryError(message)
        yield piece


def encoding_of(staged: Path, file: ImportFile, form: Format) -> str:
    """Name the encoding of a file: that of its byte order mark or else of the feed.

    Args:
        staged: The file.
        file: What the ledger says of it.
        form: How it is written.

    Returns:
        Its name; `utf-8` whatever UTF-8 is called.
    """
    with _unpacked(staged, file.compression) as content:
        head = content.read(len(codecs.BOM_UTF32_LE))
    marked = (encoding for mark, encoding in _MARKS.items() if head.startswith(mark))
    encoding = next(marked, form.encoding)
    return _UTF8 if encoding == "utf-8-sig" else encoding


def _decoded(pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    if encoding == _UTF8:
        yield from pieces
        return
    decoder = codecs.getincrementaldecoder(encoding)(_UNDECODABLE)
    for piece in pieces:
        yield decoder.decode(piece).encode(_UTF8, "surrogatepass")
    yield decoder.decode(b"", final=True).encode(_UTF8, "surrogatepass")


def _kept(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    end = max(error.end, error.start + 1)
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : end]), end


codecs.register_error(_UNDECODABLE, _kept)
