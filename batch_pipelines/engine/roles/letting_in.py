"""Letting the pipelines in to the embedded server: a user who is a writer, and no more.

What docs/roles.md has a site grant to such a user of its own. Not here: making the user (`server`), and
what the writer may do in the ledger (`grants`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg import sql

from batch_pipelines.engine.roles.grants import LEDGER, STAGING, WRITER

if TYPE_CHECKING:
    from batch_pipelines.engine.postgres.database import Connection

# One at a time: two grants on one thing at once fail. 'b', 'p' and a number no other lock of ours has.
_LOCK = "SELECT pg_advisory_xact_lock(%s)"
_LOCK_KEY: Final = 0x62700010
_IS_WRITER = "SELECT pg_has_role(%s, %s, 'MEMBER')"
_SCHEMAS = """
SELECT nspname FROM pg_namespace
WHERE nspname <> ALL(%s) AND nspname NOT LIKE 'pg\\_%%' AND nspname <> 'information_schema'
"""
# Before the tables are made that ship with feeds, and those that people make in psql: who makes a
# table is asked no second time who may load it. MAINTAIN is for ANALYZE after a load.
_BY_DEFAULT = sql.SQL("""
ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO {login};
ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE, DELETE, MAINTAIN ON TABLES TO {login};
ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO {login}
""")
_BEFORE = sql.SQL("""
GRANT USAGE ON SCHEMA {schema} TO {login};
GRANT SELECT, INSERT, UPDATE, DELETE, MAINTAIN ON ALL TABLES IN SCHEMA {schema} TO {login};
GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {login}
""")
_JOIN = sql.SQL("GRANT {writer} TO {login}")
_OTHERS = """
SELECT nspname, relname, CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname = %s AND relkind IN ('r', 'p', 'v', 'S') AND relowner <> to_regrole(%s)
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i')
                    AND c.relkind = 'S' AND d.classid = 'pg_class'::regclass)
"""
_DATABASE_OWNER = """
SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()
"""
_GIVE_DATABASE = sql.SQL("ALTER DATABASE {} OWNER TO {}")
_PUBLIC: Final = "public"
_HAND_OVER = sql.SQL("ALTER {} {} OWNER TO {}")


def let_in(connection: Connection, login: str) -> None:
    """Give a user what the pipelines need of ledger and tables; nothing where it has it already.

    Args:
        connection: A connection in autocommit mode, of the server's owner, to a ledger with roles.
        login: The user.
    """
    if _is_writer(connection, login):
        return
    user = sql.Identifier(login)
    with connection.transaction():
        connection.execute(_LOCK, (_LOCK_KEY,))
        if _is_writer(connection, login):
            return
        connection.execute(_BY_DEFAULT.format(login=user))
        for (schema,) in connection.execute(_SCHEMAS, ([LEDGER, STAGING],)).fetchall():
            connection.execute(_BEFORE.format(schema=sql.Identifier(schema), login=user))
        # What waits there was made by who ran the pipelines before.
        _hand_over(connection, STAGING, login)
        connection.execute(_JOIN.format(writer=sql.Identifier(WRITER), login=user))


def give_database(connection: Connection, login: str) -> None:
    """Make a user the owner of a database that holds nothing but his own tables, as Dagster's storage.

    Args:
        connection: A connection to it in autocommit mode, of the server's owner.
        login: The user.
    """
    with connection.transaction():
        connection.execute(_LOCK, (_LOCK_KEY,))
        if connection.execute(_DATABASE_OWNER).fetchone() == (login,):
            return
        name, user = sql.Identifier(connection.info.dbname), sql.Identifier(login)
        connection.execute(_GIVE_DATABASE.format(name, user))
        _hand_over(connection, _PUBLIC, login)


def _hand_over(connection: Connection, schema: str, login: str) -> None:
    for within, name, kind in connection.execute(_OTHERS, (schema, login)).fetchall():
        connection.execute(
            _HAND_OVER.format(sql.SQL(kind), sql.Identifier(within, name), sql.Identifier(login))
        )


def _is_writer(connection: Connection, login: str) -> bool:
    row = connection.execute(_IS_WRITER, (login, WRITER)).fetchone()
    return bool(row and row[0])
