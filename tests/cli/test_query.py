"""A feed whose source is a query, by the command line; and its URL, which appears nowhere."""

from __future__ import annotations

import io
import signal
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from tests.support_process import command
from tests.support_query import PASSWORD, VARIABLE, old_shop, read_from_query
from tests.support_shop import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Cli
    from tests.support_shop import Shop


@pytest.fixture
def legacy(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The shop reads from the other database; gives its URL."""
    read_from_query(shop.settings.feeds)
    with old_shop(shop.database.url) as url:
        monkeypatch.setenv(VARIABLE, url)
        yield url


def everything(shop: Shop) -> bytes:
    """Dump all that the program has stored: ledger, tables, Dagster's storage, files."""
    out = io.BytesIO()
    with psycopg.connect(shop.database.url) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname !~ '^(pg_|information_)'"
        ).fetchall()
        for table in tables:
            with connection.cursor().copy(
                sql.SQL("COPY (SELECT * FROM {}) TO STDOUT").format(sql.Identifier(*table))
            ) as copied:
                out.writelines(bytes(block) for block in copied)
    for path in shop.folder.rglob("*"):
        if path.is_file():
            out.write(path.read_bytes())
    return out.getvalue()


def test_import_check_and_list(cli: Cli, shop: Shop, legacy: str) -> None:
    assert cli("feeds", "check").code == 0
    listed = cli("feeds", "list")
    assert listed.code == 0
    assert "a query in the database of LEGACY_URL" in " ".join(listed.out.split())
    dry = cli("import", "orders", "--dry-run")
    assert (dry.code, shop.rows()) == (0, [])
    ran = cli("import", "orders", "--json")
    assert ran.code == 0
    assert [each["batch"]["status"] for each in ran.json] == ["SUCCESS", "SUCCESS"]
    with psycopg.connect(legacy) as connection:
        old = connection.execute("SELECT id, amount FROM sales.orders ORDER BY 1").fetchall()
    assert [(row[0], row[3]) for row in shop.rows()] == old
    assert len(old) == 50
    again = cli("import", "orders", "--batch", "2024-01", "--json")
    assert [each["batch"]["status"] for each in again.json] == ["DUPLICATE"]
    assert "rows-000000000001-000000000007.parquet" in cli("show", "orders/2024-01").out


def test_the_url_appears_nowhere(
    cli: Cli, shop: Shop, legacy: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    said = [cli("feeds", "check"), cli("import", "orders")]
    with psycopg.connect(legacy, autocommit=True) as connection:
        connection.execute("ALTER TABLE sales.orders RENAME note TO remark")
    said += [
        cli("feeds", "check"),
        cli("feeds", "list"),
        cli("import", "orders", "--batch", "2024-02"),
    ]
    for broken in (
        f"postgresql://postgres:{PASSWORD}@127.0.0.1:1/shop",
        f"postgresql://postgres:{PASSWORD}@127.0.0.1:port/shop",
        f"postgresql://postgres:{PASSWORD}@/shop?{PASSWORD}=1",
        f"oracle://postgres:{PASSWORD}@host/shop",
        f"nothing://postgres:{PASSWORD}@host/shop",
        PASSWORD,
        f"sqlite:////no/{PASSWORD}.db",
    ):
        monkeypatch.setenv(VARIABLE, broken)
        said += [cli("feeds", "check"), cli("import", "orders", "--batch", "2024-02")]
        assert said[-1].code in {1, 2}
        assert VARIABLE in said[-1].err, said[-1].err
    for each in said:
        assert PASSWORD not in each.out + each.err
    stored = everything(shop)
    assert b"The database of LEGACY_URL does not let us in" in stored
    assert PASSWORD.encode() not in stored
    assert PASSWORD not in caplog.text
    assert {batch.status for batch in shop.batches()} == {"SUCCESS", "FAILED"}


def test_check_says_what_does_not_fit(cli: Cli, shop: Shop, legacy: str) -> None:
    path = shop.settings.feeds / "orders.yaml"
    right = path.read_text()
    for was, becomes, reason in (
        ("SELECT id,", "SELECT id AS number,", "has no column 'id', which is of the `key`"),
        ("amount, note", "amount AS amout, note", "column 'amout' is not in public.orders"),
        ("FROM sales.orders\n", "FROM sales.order\n", "refused the query (SQLSTATE 42P01)"),
        ("{batch}", "{batch}::no_such_type", "refused the query (SQLSTATE 42704)"),
        ("keys: SELECT to_char(placed, 'YYYY-MM'),", "keys: SELECT 'a/' || (id % 3),",
         "`keys` lists 3 that are no partition keys"),
    ):  # fmt: skip
        assert was in right
        path.write_text(right.replace(was, becomes))
        ran = cli("feeds", "check")
        assert (ran.code, reason in " ".join(ran.err.split())) == (2, True), ran.err


def test_check_says_where_the_database_was_not_reached(
    cli: Cli, shop: Shop, legacy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "postgresql://postgres@127.0.0.1:1/shop")
    ran = cli("feeds", "check")
    assert ran.code == 0
    assert (
        "orders: its query was not checked. The database of LEGACY_URL does not let us in"
        in ran.err
    )
    assert len(cli("feeds", "check", "--json").json["unchecked"]) == 1
    listed = cli("feeds", "list")
    assert (listed.code, "?" in listed.out) == (1, True)
    monkeypatch.delenv(VARIABLE)
    ran = cli("feeds", "check")
    assert (ran.code, "LEGACY_URL is not set" in ran.err) == (2, True)
    assert cli("feeds", "list").code == 1


def test_without_keys_a_partition_must_be_named(cli: Cli, shop: Shop, legacy: str) -> None:
    path = shop.settings.feeds / "orders.yaml"
    path.write_text("".join(
        line for line in path.read_text().splitlines(keepends=True) if "keys:" not in line
    ))  # fmt: skip
    ran = cli("import", "orders")
    assert (ran.code, "say which, by --batch KEY" in ran.err) == (1, True)
    assert cli("import", "orders", "--batch", "2024-01").code == 0
    assert "not a partition key" in cli("import", "orders", "--batch", "a/b").err


def test_killed_in_mid_read_the_same_command_completes_it(
    cli: Cli, shop: Shop, legacy: str
) -> None:
    surroundings = environment(shop.folder, shop.settings.home, shop.database.url)
    typed = ("import", "orders", "--batch", "2024-01")
    killed = command(*typed, environment=surroundings, killed_at="ingest.range")
    assert killed.returncode == -signal.SIGKILL
    assert shop.rows() == []
    assert cli(*typed).code == 0
    assert len(shop.rows()) == 30
    assert [batch.status for batch in shop.batches()] == ["FAILED", "SUCCESS"]
    assert [*shop.settings.staging.iterdir()] == []
