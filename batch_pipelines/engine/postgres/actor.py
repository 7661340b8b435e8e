"""Who acts over a connection, and from where: what the audit trail says of it."""

from __future__ import annotations

import os
import pwd
import socket
import sys
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

UNAUTHENTICATED: Final = "unauthenticated"
"""Who has asked for something where nobody has proven who it was."""
_BY_SYSTEM, _BY_PROXY = " (command line)", " (proxy)"


@dataclass(frozen=True)
class Actor:
    """Who acts, and from where.

    Attributes:
        principal_id: Who, as it was established: by the operating system, a proxy, or as a part of the
            program; None where the ledger knows better (of a batch: who asked for it).
        session: From where: program, host, process, run.
    """

    principal_id: str | None = None
    session: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of_process(cls) -> Actor:
        """Say who runs this process."""
        return cls(command_line(), here())


def behind_proxy(name: str) -> str:
    """Name who a proxy has logged in, as a principal."""
    return f"{name}{_BY_PROXY}"


def command_line() -> str:
    """Name who runs this process, as a principal."""
    return f"{user()}{_BY_SYSTEM}"


def person(principal_id: str) -> str:
    """Say who a principal is, however it was established: `ada (proxy)` is `ada (command line)`."""
    return principal_id.removesuffix(_BY_PROXY).removesuffix(_BY_SYSTEM)


def user() -> str:
    """Say who runs this process, as the operating system has it and not as LOGNAME claims."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user id {os.geteuid()}"


def here() -> dict[str, object]:
    """Say what program this is and where it runs."""
    program = PurePath(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    return {
        "program": program,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "user": user(),
    }
