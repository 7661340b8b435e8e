"""Every step that changes state, seen where it leaves the process: at the driver and the file system.

No list of places is kept. Whatever the engine commits, executes or does to a file passes here, also what
is written tomorrow; a step is named by the function that takes it. Only for processes that end soon: a
hook on files cannot be taken away again.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import psycopg
from psycopg import pq, sql
from psycopg.transaction import BaseTransaction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

Kind = Literal["commit", "statement", "write", "read"]

CHANGING = re.compile(
    r"\s*(?:WITH\b.*?\b)?(INSERT\s+INTO|UPDATE|DELETE\s+FROM|MERGE\s+INTO|TRUNCATE|COPY|GRANT|REVOKE"
    r"|(?:ALTER|CREATE|DROP)\s+(?:(?:UNLOGGED|UNIQUE)\s+)?\w+)\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?([\w.\"]+)?",
    re.DOTALL,
)
_PRIVATE = re.compile(r"\s*(?:CREATE\s+TEMP|COPY\s*\(|COPY\b.*\bTO\s+STDOUT)", re.DOTALL)
# Ids of batches and runs, and names of temporary folders.
_RANDOM = re.compile(r"[0-9a-f]{8}[0-9a-f_-]*|(?<=-)[a-z0-9_]{8}$")
_ENGINE = f"{os.sep}batch_pipelines{os.sep}engine{os.sep}"
# They pass on what others do.
_THIN = ("writing/settling", "failpoints")


@dataclass(frozen=True)
class Step:
    """A step that changes state, or reads what an earlier one has left.

    Attributes:
        stage: What is being done as a whole: a stage, or `lease`.
        place: The engine's function, and what it does.
        kind: A transaction that ends; a statement within one; a file or folder that is changed; one that
            is read.
        number: Which of the steps that are named alike, from one.
    """

    stage: str
    place: str
    kind: Kind
    number: int = 1

    @property
    def name(self) -> str:
        """Its name, which is the same in each run."""
        return f"{self.stage} | {self.place}"


class Observer(Protocol):
    """Is told of each step."""

    def before(self, step: Step, subject: Any) -> None:
        """A step is about to happen to a connection or a path."""

    def after(self, step: Step, subject: Any) -> None:
        """It has happened; told of transactions and lone statements."""


@dataclass
class Watch:
    """Tells an observer of all steps.

    Attributes:
        observer: Who is told.
        folder: Files outside it count for nothing.
        stage: What is being done.
        texts: What was executed of statements that change state.
    """

    observer: Observer
    folder: Path
    stage: str = ""
    texts: set[str] = field(default_factory=set)
    _passed: Counter[tuple[str, str]] = field(default_factory=Counter)
    _own: threading.local = field(default_factory=threading.local)

    def start(self) -> None:
        """Watch until the process ends."""
        self._watch_transactions()
        self._watch_statements()
        sys.addaudithook(self._file_event)

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Do something oneself."""
        self._own.busy = True
        try:
            yield
        finally:
            self._own.busy = False

    def _step(self, what: str, kind: Kind) -> Step | None:
        if getattr(self._own, "busy", False) or threading.current_thread().name == "lease":
            return None
        function = _function(sys._getframe())
        if function is None:
            return None
        stage = "lease" if function.startswith("postgres/lease") else self.stage
        place = f"{function} {_RANDOM.sub('*', what)}"
        self._passed[stage, place] += 1
        return Step(stage, place, kind, self._passed[stage, place])

    def _watch_transactions(self) -> None:
        commit_gen = BaseTransaction._commit_gen  # where the driver commits

        def watched(transaction: BaseTransaction[Any]) -> Iterator[Any]:
            connection = transaction._conn
            is_outer = transaction._outer_transaction
            step = self._step("COMMIT", "commit") if is_outer else None
            if step is not None:
                with self.unseen():
                    self.observer.before(step, connection)
            yield from commit_gen(transaction)
            if step is not None:
                with self.unseen():
                    self.observer.after(step, connection)

        BaseTransaction._commit_gen = watched  # type: ignore[method-assign,assignment]

    def _watch_statements(self) -> None:
        execute, executemany, copy, stream = (
            psycopg.Cursor.execute, psycopg.Cursor.executemany, psycopg.Cursor.copy,
            psycopg.Cursor.stream,
        )  # fmt: skip

        def executing(cursor: Any, query: Any, *rest: Any, **more: Any) -> Any:
            with self._around(cursor.connection, query):
                return execute(cursor, query, *rest, **more)

        def executing_many(cursor: Any, query: Any, *rest: Any, **more: Any) -> Any:
            with self._around(cursor.connection, query):
                return executemany(cursor, query, *rest, **more)

        @contextmanager
        def copying(cursor: Any, query: Any, *rest: Any, **more: Any) -> Iterator[Any]:
            with self._around(cursor.connection, query), copy(cursor, query, *rest, **more) as it:
                yield it

        def streaming(cursor: Any, query: Any, *rest: Any, **more: Any) -> Iterator[Any]:
            with self._around(cursor.connection, query):
                yield from stream(cursor, query, *rest, **more)

        psycopg.Cursor.execute = executing  # type: ignore[method-assign,assignment]
        psycopg.Cursor.executemany = executing_many  # type: ignore[method-assign,assignment]
        psycopg.Cursor.copy = copying  # type: ignore[method-assign,assignment]
        psycopg.Cursor.stream = streaming  # type: ignore[method-assign,assignment]

    @contextmanager
    def _around(self, connection: Any, query: Any) -> Iterator[None]:
        text = text_of(query, connection)
        alone = connection.info.transaction_status == pq.TransactionStatus.IDLE
        found = CHANGING.match(text)
        step: Step | None = None
        if found is not None:
            self.texts.add(" ".join(text.split()))
            if not _PRIVATE.match(text) and "pg_temp" not in text[: found.end() + 20]:
                what = " ".join(" ".join(part for part in found.groups() if part).split())
                step = self._step(what, "commit" if alone else "statement")
        elif text.strip() == "COMMIT":
            step = self._step("COMMIT", "commit")
        if step is not None:
            with self.unseen():
                self.observer.before(step, connection)
        yield
        if step is not None and step.kind == "commit":
            with self.unseen():
                self.observer.after(step, connection)

    def _file_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        what = _FILE_EVENTS.get(event)
        if what is None or not isinstance(arguments[0], str | os.PathLike | bytes):
            return
        path = os.fsdecode(arguments[0])
        folder = arguments[-1]
        if event in _RELATIVE and isinstance(folder, int) and folder >= 0:
            path = f"{Path(f'/proc/self/fd/{folder}').readlink()}/{path}"
        if not path.startswith(str(self.folder)):
            return
        kind: Kind = "write"
        if event == "open":
            flags = arguments[2] or 0
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                kind, what = "read", "read"
        where = next(iter(Path(os.path.relpath(path, self.folder)).parts), "home")
        step = self._step(f"{what} in {where}", kind)
        if step is not None:
            with self.unseen():
                self.observer.before(step, path)


_FILE_EVENTS = {
    "open": "write", "os.rename": "rename", "os.remove": "remove", "os.rmdir": "remove folder",
    "os.mkdir": "make folder", "os.link": "link", "os.symlink": "link", "os.truncate": "truncate",
}  # fmt: skip
# Their last argument is the folder that a path is relative to, where it is.
_RELATIVE = frozenset({"os.remove", "os.rmdir", "os.mkdir"})


def text_of(query: Any, connection: Any = None) -> str:
    """Give a statement as text."""
    if isinstance(query, bytes):
        return query.decode()
    if isinstance(query, sql.Composable):
        return query.as_string(connection)
    return str(query)


def _function(frame: FrameType | None) -> str | None:
    """Name the engine's function that takes a step: the innermost that is more than a passage."""
    while frame is not None:
        path = frame.f_code.co_filename
        if _ENGINE in path:
            module = path.partition(_ENGINE)[2].removesuffix(".py")
            if module not in _THIN:
                return f"{module}.{frame.f_code.co_name}"
        frame = frame.f_back
    return None
