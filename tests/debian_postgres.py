"""A private server from Debian's PostgreSQL packages, to run the tests on an older version too."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support_memory import server_folder

if TYPE_CHECKING:
    from collections.abc import Mapping


def debian_binaries(version: str) -> Path | None:
    """Find the programs of a version where Debian and its relatives put them."""
    folder = Path("/usr/lib/postgresql") / version / "bin"
    return folder if (folder / "initdb").exists() else None


class DebianServer:
    """A cluster in a folder of its own, listening on a socket there, up for a `with` block."""

    def __init__(self, binaries: Path, settings: Mapping[str, str]) -> None:
        self._binaries = binaries
        self._settings = settings
        self._stack = ExitStack()
        # PostgreSQL does not run as root; the user that Debian's package made for it does.
        self._user = "postgres" if os.geteuid() == 0 else None

    def __enter__(self) -> str:
        self._folder = self._stack.enter_context(server_folder())
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = {"listen_addresses": "", "unix_socket_directories": str(self._folder)}
        flags = " ".join(f"-c {k}='{v}'" for k, v in (options | dict(self._settings)).items())
        self._run("pg_ctl", "-D", data, "-o", flags, "-l", f"{data}/log", "-w", "start")
        return f"postgresql://postgres@/postgres?host={self._folder}"

    def __exit__(self, *_: object) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "-w", "stop")
        self._stack.close()

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._binaries / program), *arguments],
            user=self._user,
            cwd="/",
            check=True,
            stdout=subprocess.DEVNULL,
        )
