"""The embedded PostgreSQL 18: from a wheel, started when needed, stopped by the last who leaves.

What is alive is asked of the kernel, never of pid files, which outlive reboots and name strangers:
three `flock`s say it, and a killed holder loses its lock with its life.

- `server.lock`: held while somebody starts or stops the server; one at a time.
- `users.lock`: shared by everybody inside `use`. Who gets it alone at the end stops the server.
- `cluster.lock`: handed down to initdb and to every process of the server. While it is taken, one
  of them lives (perhaps orphaned, perhaps not answering yet); when it is free, all are dead.

Not here: the programs and their user (`programs`), which URL is used (`settings`), connections
(`database`), tables (`migrate`).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import psycopg
from psycopg import conninfo, pq, sql

from batch_pipelines.engine.errors import ServerError
from batch_pipelines.engine.postgres.locks import hold, open_lock, take
from batch_pipelines.engine.postgres.programs import (
    MAJOR_VERSION,
    OWN_DATABASE,
    SYSTEM_FOLDER,
    binaries,
    is_root,
    run_as_server,
    server_account,
)

if TYPE_CHECKING:
    import pwd
    from collections.abc import Iterator, Mapping

OWNER: Final = "postgres"
"""The superuser who owns the cluster."""
_PORT = "5432"  # only names the socket file; said aloud everywhere because PGPORT may be set
# bytes of sockaddr_un.sun_path less the final NUL: 107 on Linux, 103 on macOS
_SOCKET_PATH_LIMIT = 103
_WAIT_SECONDS = 120.0  # crash recovery replays at most about max_wal_size: 4 GB at 35 MB/s
_CONNECT_SECONDS = 5  # a live server on a socket answers within milliseconds
_POLL_SECONDS = 0.01
_LOG_BYTES = 10_000_000  # a longer log is moved to server.log.1 before the next start
_LOG_LINES = 12

# Written to postgresql.conf when the cluster is made, and the owner's to change from then on.
_SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",  # a bulk load should meet few checkpoints
    "checkpoint_timeout": "15min",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    # A server log must not hold rows: no statement with its values, no DETAIL with a key.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    # wal_compression stays off: the wheel has neither lz4 nor zstd, and pglz is slower than disks.
}
_INITDB = (
    f"--username={OWNER}",
    "--auth=trust",  # whoever can enter the socket's folder, and that is its owner (and root) alone
    "--encoding=UTF8",
    "--locale=C",  # the locale of PostgreSQL itself: the same order of text on every machine
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
)
_MISSING_LOGINS = """
SELECT name FROM unnest(%s::text[]) AS name WHERE name NOT IN (SELECT rolname FROM pg_roles)
"""
_MISSING_DATABASES = """
SELECT name FROM unnest(%s::text[]) AS name
WHERE name NOT IN (SELECT datname FROM pg_database)
"""
_OTHER_SESSIONS = """
SELECT count(*), string_agg(DISTINCT nullif(application_name, ''), ', ')
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


@dataclass(frozen=True)
class EmbeddedServer:
    """The PostgreSQL server that belongs to one home folder. Making this object touches nothing.

    Any number of processes and threads may use one server at once; each makes its own object.

    Attributes:
        home: BATCH_PIPELINES_HOME; symbolic links are resolved, so that each has one server only.
        databases: Databases that exist whenever the server is up; missing ones are created.
        settings: Server settings for a cluster that has to be made, over the built-in ones.
        logins: Users without any rights of their own who may log in; missing ones are created.
    """

    home: Path
    databases: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    logins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Once and for all: a later change of the working folder must not lead to another server.
        object.__setattr__(self, "home", self.home.resolve())

    @property
    def folder(self) -> Path:
        """Where the cluster lives: data, socket and log. For root it is below /var/lib."""
        if not is_root():
            return self._state
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()
        return SYSTEM_FOLDER / digest[:12]

    @property
    def socket_folder(self) -> Path:
        """The private folder of the server's socket; it is the same for every process of a user."""
        folder = self.folder / "run"
        # libpq splits hosts at commas, SQLAlchemy at colons, the server at commas and quotes.
        readable = not set(',:"') & set(str(folder))
        if readable and len(os.fsencode(folder / f".s.PGSQL.{_PORT}")) <= _SOCKET_PATH_LIMIT:
            return folder
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        # Not TMPDIR or XDG_RUNTIME_DIR: cron and a login would look in different places, and the
        # latter goes at logout. _make_private trusts nothing that it finds here.
        return Path(f"/tmp/batch-pipelines-{os.geteuid()}-{digest}")  # noqa: S108

    def url(self, database: str, user: str = OWNER) -> str:
        """Say how to connect; the server need not be running.

        Args:
            database: Name of the database.
            user: Who logs in.

        Returns:
            A connection string for libpq and SQLAlchemy.
        """
        socket = quote(str(self.socket_folder))
        return f"postgresql://{user}@/{quote(database, safe='')}?host={socket}&port={_PORT}"

    def is_running(self) -> bool:
        """Try to connect.

        Returns:
            Whether the server answers and lets clients in.
        """
        return self._ping() == pq.Ping.OK

    @contextmanager
    def use(self) -> Iterator[None]:
        """Keep the server running for as long as the block lasts, starting it if need be.

        At the end it is stopped, unless another process or block uses it or `start` keeps it up.

        Yields:
            Nothing; connect with `url`.

        Raises:
            ServerError: It cannot be made, started or stopped.
        """
        with ExitStack() as user:
            with self._one_at_a_time():
                users = user.enter_context(hold(self._state / "users.lock", fcntl.LOCK_SH))
            try:
                with self._one_at_a_time():
                    self._bring_up()
                yield
            finally:
                with self._one_at_a_time():
                    if not self._keep.exists() and take(users):
                        self._shut_down()
                    user.close()  # in here, or the next to leave could believe us still inside

    def start(self) -> None:
        """Start the server, if it is not running, and keep it up until `stop`.

        Raises:
            ServerError: It cannot be made or started.
        """
        with self._one_at_a_time():
            self._bring_up()
            self._keep.touch()

    def stop(self, *, force: bool = False) -> None:
        """Stop the server, ending the sessions of clients; nothing happens if it is not running.

        Args:
            force: Stop it even while others are inside `use`.

        Raises:
            ServerError: Others use it, or it does not stop.
        """
        if not self._state.exists():
            return
        with self._one_at_a_time():
            with open_lock(self._state / "users.lock") as users:
                if not force and not take(users):
                    raise ServerError(
                        f"Expected nobody to use the embedded PostgreSQL of {self.home}; found at "
                        f"least one process that does ({self._sessions()}). Let it finish, or stop "
                        "the server by force, which fails whatever is running."
                    )
            self._keep.unlink(missing_ok=True)
            self._shut_down()

    @property
    def _state(self) -> Path:
        return self.home / "postgres"

    @property
    def _keep(self) -> Path:
        return self._state / "keep"

    @property
    def _location(self) -> Path:
        return self._state / "LOCATION"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _unfinished(self) -> Path:
        return self.folder / "data.new"

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Hold `server.lock`; what the system refuses meanwhile becomes a sentence."""
        try:
            self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
            with hold(self._state / "server.lock", fcntl.LOCK_EX):
                yield
        except OSError as error:
            raise ServerError(
                f"The embedded PostgreSQL of {self.home} has to write below {self.folder}; found: "
                f"{error.strerror} ({error.filename or 'no file named'}). Mend that, or set "
                f"BATCH_PIPELINES_HOME to a folder of yours with space. {OWN_DATABASE}"
            ) from error

    def _ping(self) -> pq.Ping:
        target = conninfo.make_conninfo(self.url("postgres"), connect_timeout=_CONNECT_SECONDS)
        return pq.Ping(pq.PGconn.ping(target.encode()))

    def _connect(self) -> psycopg.Connection | None:
        try:
            return psycopg.connect(
                self.url("postgres"), autocommit=True, connect_timeout=_CONNECT_SECONDS
            )
        except psycopg.OperationalError:
            return None

    def _bring_up(self) -> None:
        """Wait until the server answers; whenever all its processes are dead, start it (once)."""
        self._prepare_folders()
        deadline = time.monotonic() + _WAIT_SECONDS
        log_start: int | None = None
        while (connection := self._connect()) is None:
            with open_lock(self.folder / "cluster.lock") as cluster:
                if take(cluster):
                    if log_start is not None:
                        raise self._failure("It ended at once", log_start)
                    log_start = self._launch(cluster)
            if time.monotonic() > deadline:
                raise self._failure(f"It did not answer within {_WAIT_SECONDS:.0f} s", log_start)
            time.sleep(_POLL_SECONDS)
        with connection:
            self._create_missing(connection)

    def _prepare_folders(self) -> None:
        account = server_account()
        made = self._data.exists()
        if account is None and self._location.exists():
            found = f"{self._location}: its database was made by root. Run as root"
        elif account is not None and (self._state / "data").exists():
            found = f"{self._state / 'data'}, made by an ordinary user. Run as that user"
        elif self._location.exists() and self._location.read_text().strip() != str(self.folder):
            found = (
                f"{self._location} naming another place: the home was moved or copied. If moved, "
                f"move the folder named there to {self.folder} and write that into LOCATION; if "
                "copied, remove LOCATION to begin with an empty database"
            )
        elif self._location.exists() and not made and not self._unfinished.exists():
            found = (
                "nothing there: the database is lost (a container made anew?). Bring the folder "
                f"back, or remove {self._location} to begin with an empty database"
            )
        elif account is not None and made and not self._location.exists():
            found = (
                "the database of an earlier home of this name. To begin with an empty one, run "
                "`batch-pipelines db stop` and remove that folder; to keep it, write its path "
                f"into {self._location}"
            )
        else:
            _make_private(self.folder, account)
            _make_private(self.socket_folder, account)
            return
        raise ServerError(
            f"Expected the database of {self.home} in {self.folder}; found {found}. {OWN_DATABASE}"
        )

    def _launch(self, cluster: int) -> int:
        """Start the server without waiting for it; `cluster` is the lock that it inherits.

        Returns:
            Where in the log its story begins, in bytes.
        """
        # The lock proves that no process of this cluster is alive, so these name nobody, or, after
        # a reboot or in a new container, a stranger for whom PostgreSQL would refuse to start.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        (self.socket_folder / f".s.PGSQL.{_PORT}.lock").unlink(missing_ok=True)
        if not self._data.exists():
            self._create_cluster(cluster)
        self._check_version()
        if self._log.exists() and self._log.stat().st_size > _LOG_BYTES:
            self._log.replace(self._log.with_name("server.log.1"))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with os.fdopen(os.open(self._log, flags, 0o600), "ab") as log:
            log_start = log.tell()
            run_as_server(
                # The shell goes at once, so that the server is nobody's child and leaves no zombie.
                # Not pg_ctl, which pastes paths into a shell command: a "$" in one would be run.
                *("/bin/sh", "-c", '"$@" &', "sh", str(binaries() / "postgres")),
                *("-D", str(self._data), "-p", _PORT, "-k", str(self.socket_folder)),
                *("-c", "listen_addresses=", "-c", "unix_socket_permissions=0700"),
                lock=cluster,
                output=log.fileno(),
            )
        return log_start

    def _create_cluster(self, cluster: int) -> None:
        # LOCATION is there before the cluster is: one without the other is then no crash of ours.
        self._location.unlink(missing_ok=True)
        if self._unfinished.exists():
            shutil.rmtree(self._unfinished)
        settings = {**_SETTINGS, **self.settings}
        flags = [f"--set={name}={value}" for name, value in settings.items()]
        if settings.get("fsync") == "off":
            flags.append("--no-sync")
        result = run_as_server(
            *(str(binaries() / "initdb"), *_INITDB, *flags, "-D", str(self._unfinished)),
            lock=cluster,
        )
        if result.returncode:
            raise ServerError(
                f"Expected initdb to make a database in {self.folder}; it failed:\n"
                f"{_last_lines(result.stdout)}\nMend what it names (often a full disk). "
                f"{OWN_DATABASE}"
            )
        if is_root():
            self._location.write_text(f"{self.folder}\n")
        self._unfinished.rename(self._data)

    def _check_version(self) -> None:
        found = (self._data / "PG_VERSION").read_text().strip()
        if found != MAJOR_VERSION:
            raise ServerError(
                f"Expected a database of PostgreSQL {MAJOR_VERSION} in {self._data}; found one of "
                f"{found}. Dump it with the version of batch-pipelines that made it, move the "
                f"folder away and restore the dump into the new one. {OWN_DATABASE}"
            )

    def _create_missing(self, connection: psycopg.Connection) -> None:
        try:
            for (name,) in connection.execute(_MISSING_LOGINS, [list(self.logins)]).fetchall():
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
            missing = connection.execute(_MISSING_DATABASES, [list(self.databases)]).fetchall()
            for (name,) in missing:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except psycopg.Error as error:
            raise ServerError(
                f"Expected the databases {', '.join(self.databases)} on the embedded PostgreSQL of "
                f"{self.home}; could not look them up or create them (SQLSTATE {error.sqlstate}). "
                f"Its log, {self._log}, says why (often a full disk). {OWN_DATABASE}"
            ) from error

    def _shut_down(self) -> None:
        """Stop the server fast and wait until its last process has gone."""
        deadline = time.monotonic() + _WAIT_SECONDS
        asked = False
        while self._has_processes():
            # pg_ctl signals the pid in postmaster.pid, which is the server's only if one answers.
            if not asked and self._ping() != pq.Ping.NO_RESPONSE:
                pg_ctl = str(binaries() / "pg_ctl")
                run_as_server(pg_ctl, "stop", "-D", str(self._data), "--mode=fast", "--no-wait")
                asked = True
            if time.monotonic() > deadline:
                raise self._failure(f"It did not stop within {_WAIT_SECONDS:.0f} s", None)
            time.sleep(_POLL_SECONDS)

    def _has_processes(self) -> bool:
        if not self._data.exists():
            return False
        with open_lock(self.folder / "cluster.lock") as cluster:
            return not take(cluster)

    def _sessions(self) -> str:
        connection = self._connect()
        if connection is None:
            return "the server does not answer"
        with connection:
            count, names = connection.execute(_OTHER_SESSIONS).fetchone() or (0, None)
        return f"{count} open sessions" + (f" of {names}" if names else "")

    def _failure(self, what: str, log_start: int | None) -> ServerError:
        lines = ""
        if log_start is not None and self._log.exists():
            lines = _last_lines(self._log.read_bytes()[log_start:])
        return ServerError(
            f"Expected the embedded PostgreSQL of {self.home} in {self.folder} to start and stop "
            f"when asked. {what}. Its log, {self._log}, ends with:\n{lines or '(nothing new)'}\n"
            f"Mend what it names (a full disk, a setting in {self._data / 'postgresql.conf'}); "
            f"`lsof {self.folder / 'cluster.lock'}` names its processes. {OWN_DATABASE}"
        )


def _make_private(folder: Path, account: pwd.struct_passwd | None) -> None:
    """Make a folder that the server's user alone may enter, or prove that it is one."""
    if not folder.exists():
        folder.mkdir(mode=0o700)
    owner = os.geteuid() if account is None else account.pw_uid
    if account is not None and folder.lstat().st_uid == 0:  # new, or we were killed right here
        os.chown(folder, account.pw_uid, account.pw_gid, follow_symlinks=False)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
        raise ServerError(
            f"Expected {folder} to be a folder that only user id {owner} can enter; found "
            f"{stat.filemode(found.st_mode)} of user id {found.st_uid}. Whoever enters it enters "
            "the database: remove it if it is not yours, or `chmod 700` it if it is."
        )


def _last_lines(output: bytes) -> str:
    return "\n".join(output.decode(errors="replace").splitlines()[-_LOG_LINES:])
