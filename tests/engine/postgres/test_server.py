"""The embedded server: real servers in temporary homes, real kills, no mocks.

Run by root, the tests exercise root's server and, in a child process, an ordinary user's.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import TYPE_CHECKING

import psycopg
import pytest

from batch_pipelines.engine.errors import ServerError
from batch_pipelines.engine.postgres.programs import binaries
from batch_pipelines.engine.postgres.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_FSYNC = {"fsync": "off"}  # nobody cuts the power in here
IS_ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not IS_ROOT, reason="only root has a server user of its own")

IN_USE = """
import sys
from pathlib import Path
from batch_pipelines.engine.postgres.server import EmbeddedServer
with EmbeddedServer(Path(sys.argv[1]), settings={"fsync": "off"}).use():
    print("in use", flush=True)
    sys.stdin.read()
"""
START = """
import sys
from pathlib import Path
from batch_pipelines.engine.postgres.server import EmbeddedServer
EmbeddedServer(Path(sys.argv[1]), settings={"fsync": "off"}).start()
"""
ORDINARY_USER = """
import os, stat, sys
from pathlib import Path
import psycopg
from batch_pipelines.engine.errors import ServerError
from batch_pipelines.engine.postgres.server import EmbeddedServer
os.umask(0)  # the worst one
home = Path(sys.argv[1])
server = EmbeddedServer(home / "h", databases=("one",), settings={"fsync": "off"})
with server.use(), psycopg.connect(server.url("one")) as connection:
    assert connection.execute("SHOW data_directory").fetchone()[0] == f"{home}/h/postgres/data"
    for folder in (home / "h/postgres", home / "h/postgres/run", home / "h/postgres/data"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
assert not server.is_running()

deep = EmbeddedServer(home / ("d" * 100), settings={"fsync": "off"})
elsewhere = deep.socket_folder
try:
    assert elsewhere.parent == Path("/tmp"), elsewhere
    elsewhere.mkdir(mode=0o755)
    try:
        deep.start()
    except ServerError as error:
        assert "chmod 700" in str(error), error
    else:
        raise AssertionError("trusted a folder that others can enter")
    elsewhere.rmdir()
    with deep.use(), psycopg.connect(deep.url("postgres")):
        assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o700
    assert not deep.is_running()
finally:
    elsewhere.rmdir()

closed = home / "closed"
closed.mkdir(mode=0o500)
if os.geteuid():
    try:
        EmbeddedServer(closed).start()
    except ServerError as error:
        assert "Permission denied" in str(error), error
    else:
        raise AssertionError("wrote where it may not")
print("done")
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server in a home that does not exist yet."""
    with removed_at_the_end(tmp_path / "home") as server:
        yield server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with removed_at_the_end(tmp_path_factory.mktemp("made") / "home") as server:
        with server.use():
            pass
        yield server


@pytest.fixture
def made(cluster: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """A server whose cluster is made, and which is stopped (initdb takes a second)."""
    yield cluster
    cluster.stop(force=True)


@contextmanager
def removed_at_the_end(home: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(home, ("one", 'two "$x'), NO_FSYNC)
    try:
        yield server
    finally:
        server.stop(force=True)
        shutil.rmtree(server.folder, ignore_errors=True)


def ask(server: EmbeddedServer, query: str, database: str = "postgres") -> str:
    with psycopg.connect(server.url(database), autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return str(row[0])


def identity(server: EmbeddedServer) -> str:
    return ask(server, "SELECT pg_postmaster_start_time()")


def postmaster(server: EmbeddedServer) -> int:
    return int((server.folder / "data" / "postmaster.pid").read_text().split()[0])


def launch(script: str, server: EmbeddedServer) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(server.home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def leave(user: subprocess.Popen[str]) -> None:
    user.communicate(timeout=120)
    assert user.returncode == 0


@contextmanager
def another_user(server: EmbeddedServer) -> Iterator[subprocess.Popen[str]]:
    """Another process that is inside `use`."""
    with launch(IN_USE, server) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "in use\n"
        try:
            yield user
        finally:
            user.kill()


def test_starts_from_nothing_and_stops_at_the_end(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATABASE", "nonsense")
    assert not server.is_running()
    with server.use():
        assert server.is_running()
        assert ask(server, "SELECT current_database()", "one") == "one"
        assert ask(server, "SELECT current_database()", 'two "$x') == 'two "$x'
        assert ask(server, "SHOW listen_addresses") == ""
        assert ask(server, "SHOW max_wal_size") == "4GB"
        assert ask(server, "SHOW timezone") == "UTC"
        assert ask(server, "SHOW data_checksums") == "on"
        assert ask(server, "SHOW fsync") == "off"
        assert ask(server, "SELECT upper('é') || (SELECT 'a' > 'B')") == "Étrue"
        assert server.socket_folder.stat().st_mode & 0o777 == 0o700
    assert not server.is_running()
    assert not (server.folder / "data" / "postmaster.pid").exists()


def test_a_second_process_finds_it_and_the_last_one_stops_it(made: EmbeddedServer) -> None:
    with another_user(made) as other:
        with made.use():
            first = identity(made)
        assert made.is_running()
        with made.use():
            leave(other)
            assert identity(made) == first
    assert not made.is_running()


def test_blocks_nest_and_threads_share(made: EmbeddedServer) -> None:
    together = Barrier(3, timeout=120)
    seen: list[str] = []

    def work() -> None:
        with made.use():
            together.wait()
            seen.append(identity(made))

    threads = [Thread(target=work) for _ in range(2)]
    with made.use():
        with made.use():
            pass
        assert made.is_running()
        for thread in threads:
            thread.start()
        together.wait()
        for thread in threads:
            thread.join()
        assert seen == [identity(made)] * 2
    assert not made.is_running()


def test_start_keeps_it_up_until_stop(made: EmbeddedServer) -> None:
    made.start()
    first = identity(made)
    with made.use():
        pass
    assert identity(made) == first
    made.stop()
    assert not made.is_running()
    made.stop()
    with made.use():
        pass
    assert not made.is_running()


def test_stop_refuses_while_others_use_it(made: EmbeddedServer) -> None:
    with another_user(made) as other:
        with (
            psycopg.connect(made.url("postgres"), application_name="a sleeper"),
            pytest.raises(ServerError, match="1 open sessions of a sleeper"),
        ):
            made.stop()
        assert made.is_running()
        made.stop(force=True)
        assert not made.is_running()
        leave(other)


def test_stopping_what_never_was_makes_nothing(server: EmbeddedServer) -> None:
    server.stop()
    assert not server.home.exists()


def test_several_processes_may_start_at_once(server: EmbeddedServer) -> None:
    users = [launch(IN_USE, server) for _ in range(4)]
    for user in users:
        assert user.stdout is not None
        assert user.stdout.readline() == "in use\n"
    for user in users:
        leave(user)
    assert not server.is_running()


def test_a_killed_user_leaves_nothing_behind(made: EmbeddedServer) -> None:
    with another_user(made) as other:
        first = identity(made)
        os.killpg(other.pid, signal.SIGKILL)
        other.wait()
    assert identity(made) == first
    with made.use():
        assert identity(made) == first
    assert not made.is_running()


def test_a_dead_postmasters_pid_may_be_a_strangers_by_now(made: EmbeddedServer) -> None:
    made.start()
    os.kill(postmaster(made), signal.SIGKILL)
    account = pwd.getpwuid(made.folder.stat().st_uid)
    stranger = subprocess.Popen(["/bin/sleep", "60"], user=account.pw_uid, cwd="/")
    try:
        for lock in (
            made.folder / "data" / "postmaster.pid",
            made.socket_folder / ".s.PGSQL.5432.lock",
        ):
            first, *rest = lock.read_text().splitlines()
            assert first.isdigit()
            lock.write_text("\n".join([str(stranger.pid), *rest]) + "\n")
        with made.use():
            assert made.is_running()
        made.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_dead_postmasters_busy_backends_are_waited_for(made: EmbeddedServer) -> None:
    gone = Event()

    def be_busy() -> None:
        with (
            suppress(psycopg.OperationalError),
            psycopg.connect(made.url("postgres"), application_name="busy") as connection,
        ):
            connection.execute("SELECT factorial(30000)")  # a second in which it looks at nothing
        gone.set()

    with made.use():
        thread = Thread(target=be_busy)
        thread.start()
        busy = "FROM pg_stat_activity WHERE application_name = 'busy' AND query ~ 'factorial'"
        while ask(made, f"SELECT count(*) {busy}") == "0":
            time.sleep(0.01)
        os.kill(postmaster(made), signal.SIGKILL)
        assert not gone.is_set()
        with made.use():
            assert gone.wait(1)
        thread.join()
    assert not made.is_running()


@pytest.mark.parametrize("milestone", ["data.new", "data", "data/postmaster.pid", "run/.s.PGSQL*"])
def test_a_start_may_be_killed_at_any_instant(server: EmbeddedServer, milestone: str) -> None:
    with launch(START, server) as starter:
        while starter.poll() is None and not list(server.folder.glob(milestone)):
            time.sleep(0.001)
        starter.kill()
    with server.use():
        assert ask(server, "SELECT 1", "one") == "1"
        assert not (server.folder / "data.new").exists()


def test_initdb_may_be_killed(server: EmbeddedServer) -> None:
    with launch(START, server) as starter:
        while starter.poll() is None and not (server.folder / "data.new" / "base").exists():
            time.sleep(0.001)
        children = Path(f"/proc/{starter.pid}/task/{starter.pid}/children").read_text().split()
        starter.kill()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
    assert not (server.folder / "data").exists()
    with server.use():
        assert ask(server, "SELECT 1", "one") == "1"


def test_it_outlives_its_starters_group_and_holds_no_pipe_of_it(made: EmbeddedServer) -> None:
    with launch(START, made) as starter:
        output, _ = starter.communicate(timeout=120)  # would hang if the server held the pipe
        assert output == ""
        with pytest.raises(ProcessLookupError):
            os.killpg(starter.pid, signal.SIGKILL)
    assert os.getsid(postmaster(made)) != starter.pid
    held = [link.readlink() for link in Path(f"/proc/{postmaster(made)}/fd").iterdir()]
    assert [file for file in held if file.suffix == ".lock"] == [made.folder / "cluster.lock"]


def test_another_major_version_is_named(made: EmbeddedServer) -> None:
    version = made.folder / "data" / "PG_VERSION"
    version.write_text("17\n")
    try:
        with pytest.raises(ServerError, match=r"PostgreSQL 18 .* found one of 17"):
            made.start()
    finally:
        version.write_text("18\n")


def test_a_failing_initdb_is_quoted(server: EmbeddedServer) -> None:
    wrong = EmbeddedServer(server.home, settings={"nonsense": "1"})
    with pytest.raises(ServerError, match='unrecognized configuration parameter "nonsense"'):
        wrong.start()


def test_a_failing_start_is_quoted(made: EmbeddedServer) -> None:
    settings = made.folder / "data" / "postgresql.conf"
    before = settings.read_text()
    settings.write_text(before + "shared_buffers = 'plenty'\n")
    try:
        with pytest.raises(ServerError, match='invalid value for parameter "shared_buffers"'):
            made.start()
    finally:
        settings.write_text(before)


def test_a_home_that_cannot_be_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServerError, match="Not a directory"):
        EmbeddedServer(tmp_path / "file" / "home").start()


def test_a_block_that_cannot_begin_leaves_no_server_running(made: EmbeddedServer) -> None:
    wrong = EmbeddedServer(made.home, databases=("",))
    with pytest.raises(ServerError, match="SQLSTATE 42601"), wrong.use():
        pytest.fail("the block was entered")
    assert not made.is_running()


@as_root
def test_root_opens_nobodys_folder(server: EmbeddedServer) -> None:
    folders = [server.home, *server.home.parents, Path(sys.prefix), *Path(sys.prefix).parents]
    folders += [Path("/root"), Path("/var/lib")]
    server.home.mkdir(mode=0o700)
    before = {folder: folder.stat() for folder in folders}
    with server.use():
        pass
    for folder in folders:
        after = folder.stat()
        assert (after.st_mode, after.st_uid) == (before[folder].st_mode, before[folder].st_uid)
    assert (server.home / "postgres" / "LOCATION").read_text() == f"{server.folder}\n"
    assert server.folder.parent == Path("/var/lib/batch-pipelines")
    assert server.folder.stat().st_mode & 0o777 == 0o700
    assert pwd.getpwuid(server.folder.stat().st_uid).pw_name == "batch-pipelines"
    assert binaries().stat().st_mode & 0o777 == 0o755
    assert binaries().is_relative_to("/var/lib/batch-pipelines")


@as_root
def test_a_home_and_its_database_are_not_mixed_up(server: EmbeddedServer, tmp_path: Path) -> None:
    with server.use():
        pass
    moved = EmbeddedServer(server.home.rename(tmp_path / "moved"))
    with pytest.raises(ServerError, match="the home was moved or copied"):
        moved.start()
    with pytest.raises(ServerError, match="the database of an earlier home"):
        server.start()
    moved.home.rename(server.home.with_name("away"))
    shutil.rmtree(server.home)
    server.home.with_name("away").rename(server.home)
    with server.use():
        pass
    shutil.rmtree(server.folder)
    with pytest.raises(ServerError, match="the database is lost"):
        server.start()


def test_an_ordinary_user() -> None:
    user = pwd.getpwnam("nobody") if IS_ROOT else pwd.getpwuid(os.geteuid())
    home = Path(tempfile.mkdtemp(dir="/tmp"))  # the folders of pytest are root's

    def run(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-B", "-c", script, str(home)],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={"PATH": os.defpath},
            user=user.pw_uid if IS_ROOT else None,
            group=user.pw_gid if IS_ROOT else None,
            extra_groups=[] if IS_ROOT else None,
        )

    try:
        os.chown(home, user.pw_uid, user.pw_gid)
        try:
            closed = run("import batch_pipelines.engine.postgres.server").returncode != 0
        except PermissionError:  # Python itself lies below a folder that is root's alone
            closed = True
        if closed:
            pytest.skip("an ordinary user cannot read the virtual environment")
        result = run(ORDINARY_USER)
        assert result.stdout == "done\n", result.stderr
    finally:
        shutil.rmtree(home)
