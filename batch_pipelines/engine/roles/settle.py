"""Giving a database its roles: who owns the ledger, and who may do what with it.

Roles belong to the whole server and may serve several ledgers; ownership and grants belong to one
database. Not here: which grants (`grants`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import psycopg
from psycopg import sql

from batch_pipelines.engine.errors import SettingsError
from batch_pipelines.engine.roles.grants import (
    EMBEDDED_LOGIN,
    FUNCTIONS,
    GRANTED,
    LEDGER,
    OWNER,
    RELATIONS,
    ROLES,
    SCHEMAS,
    STAGING,
    WRITER,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batch_pipelines.engine.postgres.database import Connection

FIRST_REVISION: Final = "0024"
"""The revision from which on a ledger has roles."""

_PUBLIC = "public"
# Another database of the server may make a role, or grant it, in the same moment.
_TRIES = 20
_FOUND = """
SELECT rolname, rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
FROM pg_roles WHERE rolname = ANY(%s)
"""
_CREATE = sql.SQL("CREATE ROLE {} NOLOGIN")
# What CREATEROLE gives who has it on 16 and newer is not enough to hand objects over.
_IS_MEMBER = {
    False: "SELECT pg_has_role(%s, 'USAGE')",
    True: "SELECT pg_has_role(%s, 'USAGE') AND pg_has_role(%s, 'SET')",
}
_JOIN = {
    False: sql.SQL("GRANT {} TO CURRENT_USER"),
    True: sql.SQL("GRANT {} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE"),
}
_SET_OPTION_SINCE = 160000
_WHO = "SELECT current_user"
_SCHEMAS = """
SELECT nspname, pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = ANY(%s)
"""
# A sequence of an identity column goes with its table.
_RELATIONS = """
SELECT c.relname, CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
       pg_get_userbyid(c.relowner), c.relispartition,
       array(SELECT attname::text FROM pg_attribute
             WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum)
FROM pg_class c
WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind IN ('r', 'p', 'v', 'S')
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'i'
                    AND c.relkind = 'S' AND d.classid = 'pg_class'::regclass)
ORDER BY 1
"""
_FUNCTIONS = """
SELECT format('%%s(%%s)', p.proname, replace(oidvectortypes(p.proargtypes), ', ', ',')),
       pg_get_userbyid(p.proowner)
FROM pg_proc p WHERE p.pronamespace = to_regnamespace(%s) ORDER BY 1
"""
_HELD = """
WITH mine AS (
    SELECT 'SCHEMA' AS kind, nspname::text AS name, '' AS "column", nspacl AS acl FROM pg_namespace
    WHERE nspname = ANY(%(schemas)s)
    UNION ALL
    SELECT 'TABLE', relname, '', relacl FROM pg_class
    WHERE relnamespace = to_regnamespace(%(ledger)s)
    UNION ALL
    SELECT 'TABLE', c.relname, a.attname, a.attacl
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = to_regnamespace(%(ledger)s) AND a.attacl IS NOT NULL AND NOT a.attisdropped
    UNION ALL
    SELECT 'FUNCTION', format('%%s(%%s)', proname, replace(oidvectortypes(proargtypes), ', ', ',')), '',
           coalesce(proacl, acldefault('f', proowner))
    FROM pg_proc WHERE pronamespace = to_regnamespace(%(ledger)s)
)
SELECT kind, name, "column", coalesce(r.rolname, 'public'), a.privilege_type
FROM mine CROSS JOIN LATERAL aclexplode(acl) AS a LEFT JOIN pg_roles AS r ON r.oid = a.grantee
WHERE r.rolname = ANY(%(roles)s) OR a.grantee = 0
"""
# Tables that were made there before, by whoever ran the pipelines then, are not lost to the writer.
_MAY_OPEN = """
SELECT pg_has_role(nspowner, 'USAGE') AND NOT has_schema_privilege(%s, %s, 'CREATE') FROM pg_namespace
WHERE nspname = %s
"""
_OPEN = sql.SQL("""
GRANT USAGE, CREATE ON SCHEMA {schema} TO {writer};
GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {writer};
GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO {writer}
""")
_REASSIGN = sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER")
_REVOKE_ALL = sql.SQL("""
REVOKE ALL ON ALL TABLES IN SCHEMA {ledger} FROM {roles};
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {ledger} FROM {roles};
REVOKE ALL ON SCHEMA {ledger} FROM {roles}
""")
_DROP = sql.SQL("DROP ROLE {}")
_HAS_MEMBERS = """
SELECT EXISTS (
    SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid
    WHERE r.rolname = %s AND m.member <> (SELECT oid FROM pg_roles WHERE rolname = current_user))
"""


class Grant(NamedTuple):
    """One privilege of one role on one thing.

    Attributes:
        kind: SCHEMA, TABLE (views are tables here) or FUNCTION.
        name: Its name; of a function with the types of its arguments.
        column: The column, where it is of one alone; else empty.
        role: The role; `public` is everybody.
        privilege: As in GRANT.
    """

    kind: str
    name: str
    column: str
    role: str
    privilege: str


class _Found(NamedTuple):
    schemas: dict[str, str]
    relations: dict[str, tuple[str, str, bool, list[str]]]
    functions: dict[str, str]


def ensure_roles(connection: Connection) -> None:
    """Make the roles that the server does not have yet, and let the current user act as the owner.

    Args:
        connection: A connection in autocommit mode.

    Raises:
        SettingsError: The current user may not, and what an administrator has to type instead; or a
            role of such a name is there that is more than a group.
    """
    found: dict[str, bool] = dict(connection.execute(_FOUND, (list(ROLES),)).fetchall())
    for name in ROLES:
        if found.get(name):
            raise SettingsError(
                f"Expected the role {name} to be a group without rights of its own; found one that "
                "may log in or is an administrator. Rename it (ALTER ROLE ... RENAME TO ...): "
                "batch-pipelines needs the name."
            )
    has_set = connection.info.server_version >= _SET_OPTION_SINCE
    try:
        for name in ROLES:
            if name not in found:
                _patiently(connection, _CREATE.format(sql.Identifier(name)))
        if not _is_member(connection, has_set=has_set):
            _patiently(connection, _JOIN[has_set].format(sql.Identifier(OWNER)))
    except psycopg.errors.InsufficientPrivilege:
        raise SettingsError(_for_an_administrator(connection, found, has_set=has_set)) from None


def settle(connection: Connection) -> None:
    """Hand the ledger to its owner, and have each role have just what `grants` says.

    Args:
        connection: A connection in autocommit mode, of who may act as the owner.
    """
    with connection.transaction():
        for statement in _handing_over(_look(connection)):
            connection.execute(statement)
        wanted, held = _wanted(_look(connection)), _held(connection)
        for grant in sorted(held - wanted):
            connection.execute(_statement("REVOKE", "FROM", grant))
        for grant in sorted(wanted - held):
            connection.execute(_statement("GRANT", "TO", grant))


def is_settled(connection: Connection) -> bool:
    """Say whether there is nothing for `settle` to do.

    Args:
        connection: A connection.

    Returns:
        Whether all is its owner's, and each role has just what `grants` says.
    """
    found = _look(connection)
    return not list(_handing_over(found)) and _wanted(found) == _held(connection)


def open_schema(connection: Connection, schema: str) -> None:
    """Make a schema in which the writer makes tables of its own, as Dagster's storage does.

    Args:
        connection: A connection in autocommit mode, of who may make schemas.
        schema: Its name.
    """
    name, writer = sql.Identifier(schema), sql.Identifier(WRITER)
    with connection.transaction():
        # Looked up first: IF NOT EXISTS asks for the right to create even where nothing is created.
        if not connection.execute(_SCHEMAS, ([schema],)).fetchall():
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
        row = connection.execute(_MAY_OPEN, (WRITER, schema, schema)).fetchone()
        if row is not None and row[0]:
            connection.execute(_OPEN.format(schema=name, writer=writer))


def leave(connection: Connection) -> None:
    """Take the roles' rights in this database back, and drop the roles that nobody needs any more.

    A role stays where another database of the server uses it, where it has members, or where the
    site has granted it rights on tables of its own.

    Args:
        connection: A connection in autocommit mode, of who may act as the owner.
    """
    present = {row[0] for row in connection.execute(_FOUND, (list(ROLES),))}
    if not present:
        return
    granted = sql.SQL(", ").join(sql.Identifier(role) for role in GRANTED if role in present)
    with connection.transaction():
        if OWNER in present:
            connection.execute(_REASSIGN.format(sql.Identifier(OWNER)))
        for schema in _look(connection).schemas:
            connection.execute(_REVOKE_ALL.format(ledger=sql.Identifier(schema), roles=granted))
    for role in present:
        row = connection.execute(_HAS_MEMBERS, (role,)).fetchone()
        if row is not None and not row[0]:
            try:
                connection.execute(_DROP.format(sql.Identifier(role)))
            except (
                psycopg.errors.DependentObjectsStillExist,
                psycopg.errors.InsufficientPrivilege,
                psycopg.errors.UndefinedObject,
            ):
                continue


def _patiently(connection: Connection, statement: sql.Composed) -> None:
    for left in reversed(range(_TRIES)):
        try:
            connection.execute(statement)
        except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
            return
        except psycopg.errors.InternalError_:
            # "tuple concurrently updated": the catalog of roles is every database's.
            if not left:
                raise
        else:
            return


def _is_member(connection: Connection, *, has_set: bool) -> bool:
    names = (OWNER,) * (1 + has_set)
    row = connection.execute(_IS_MEMBER[has_set], names).fetchone()
    return bool(row and row[0])


def _for_an_administrator(connection: Connection, found: Iterable[str], *, has_set: bool) -> str:
    ((user,),) = connection.execute(_WHO).fetchall()
    missing = [name for name in ROLES if name not in found]
    statements = [_CREATE.format(sql.Identifier(name)) for name in missing]
    to = sql.SQL("GRANT {} TO {}" + (" WITH INHERIT TRUE, SET TRUE" if has_set else ""))
    statements.append(to.format(sql.Identifier(OWNER), sql.Identifier(user)))
    typed = " ".join(f"{statement.as_string(connection)};" for statement in statements)
    return (
        f"The ledger needs roles that {user} may not make or use. Nothing was changed. Let an "
        f"administrator of the server type, once: {typed} Then run `batch-pipelines db upgrade` again."
    )


def _look(connection: Connection) -> _Found:
    schemas: dict[str, str] = dict(connection.execute(_SCHEMAS, ([LEDGER, STAGING],)).fetchall())
    relations = {row[0]: row[1:] for row in connection.execute(_RELATIONS, (LEDGER,))}
    functions: dict[str, str] = dict(connection.execute(_FUNCTIONS, (LEDGER,)).fetchall())
    return _Found(schemas, relations, functions)


def _handing_over(found: _Found) -> Iterable[sql.Composed]:
    owner = sql.Identifier(OWNER)
    for schema, has in found.schemas.items():
        if has != OWNER:
            yield sql.SQL("ALTER SCHEMA {} OWNER TO {}").format(sql.Identifier(schema), owner)
    for name, (kind, has, _, _) in found.relations.items():
        if has != OWNER:
            yield sql.SQL("ALTER {} {} OWNER TO {}").format(
                sql.SQL(kind), sql.Identifier(LEDGER, name), owner
            )
    for name, has in found.functions.items():
        if has != OWNER:
            yield sql.SQL("ALTER FUNCTION {} OWNER TO {}").format(_function(name), owner)


def _wanted(found: _Found) -> set[Grant]:
    """List the grants on what is there: a ledger may be older than the newest table."""
    wanted = {
        Grant("SCHEMA", schema, "", role, privilege)
        for schema in found.schemas
        for role, privileges in SCHEMAS[schema].items()
        for privilege in privileges
    }
    for name, (_, _, _, columns) in found.relations.items():
        if (grants := RELATIONS.get(name)) is None:
            continue
        for role in GRANTED:
            for privilege in grants.of(role):
                hidden = grants.values if privilege == "SELECT" else ()
                seen = [column for column in columns if column not in hidden] if hidden else [""]
                wanted |= {Grant("TABLE", name, column, role, privilege) for column in seen}
    return wanted | {
        Grant("FUNCTION", name, "", role, "EXECUTE")
        for name in found.functions
        for role in FUNCTIONS.get(name, ())
    }


def _held(connection: Connection) -> set[Grant]:
    # Nothing is granted to that user itself; it has rights by default on tables that its server's
    # owner makes, and migrations make some.
    roles = [*GRANTED, EMBEDDED_LOGIN]
    parameters = {"schemas": [LEDGER, STAGING], "ledger": LEDGER, "roles": roles}
    return {Grant(*row) for row in connection.execute(_HELD, parameters)}


def _statement(verb: str, preposition: str, grant: Grant) -> sql.Composed:
    match grant.kind:
        case "SCHEMA":
            thing: sql.Composable = sql.Identifier(grant.name)
        case "TABLE":
            thing = sql.Identifier(LEDGER, grant.name)
        case _:
            thing = _function(grant.name)
    columns = sql.SQL("({})").format(sql.Identifier(grant.column)) if grant.column else sql.SQL("")
    return sql.SQL("{} {}{} ON {} {} {} {}").format(
        sql.SQL(verb), sql.SQL(grant.privilege), columns, sql.SQL(grant.kind), thing,
        sql.SQL(preposition),
        sql.SQL("PUBLIC") if grant.role == _PUBLIC else sql.Identifier(grant.role),
    )  # fmt: skip


def _function(signature: str) -> sql.Composed:
    name, arguments = signature.removesuffix(")").split("(", 1)
    return sql.SQL("{}({})").format(sql.Identifier(LEDGER, name), sql.SQL(arguments))
