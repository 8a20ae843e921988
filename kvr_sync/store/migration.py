"""From no tables, or those of an older version, to the tables of this version."""

import threading
from typing import Final

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select, text
from sqlalchemy.schema import CreateSchema

from kvr_sync.errors import ConfigurationError, SchemaDriftError
from kvr_sync.store.drift import REVISION_TABLE

NEWEST_REVISION: Final = "0006"
"""Of the tables that this version makes: known without Alembic, which a start that has nothing to make does without."""

_SCRIPTS = "kvr_sync.store:migrations"

_ALEMBIC = threading.Lock()
"""What a migration works on is global in Alembic; a service opens the tables of several channels at once."""


def upgrade(connection: Connection, schema: str | None, *, place: str, create: bool) -> None:
    """Bring the channel's tables to this version, inside the caller's transaction.

    Raises ConfigurationError where there is no store and `create` is false; SchemaDriftError where the tables come
    from a newer version, or stand there without a revision.
    """
    revision = stored_revision(connection, schema)
    if revision == NEWEST_REVISION:
        return
    from alembic import command  # noqa: PLC0415  half a second, for the few starts that need it
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config(attributes={"connection": connection, "schema": schema})
    config.set_main_option("script_location", _SCRIPTS)
    scripts = ScriptDirectory.from_config(config)
    where = f"{place}, schema {schema}" if schema else place
    if revision is None:
        strangers = set(inspect(connection).get_table_names(schema=schema)) - {REVISION_TABLE}
        if strangers:
            raise SchemaDriftError(
                f"{where}: there is a table {min(strangers)}, but no revision of ours; use an empty place"
            )
        if not create:
            raise ConfigurationError(f"{where}: nothing has been synced here yet")
        refuse_without_ddl(connection, schema, place=place, what="made")
        if schema is not None and not inspect(connection).has_schema(schema):
            connection.execute(CreateSchema(schema))
    elif revision not in {script.revision for script in scripts.walk_revisions()}:
        raise SchemaDriftError(
            f"{where}: the tables are at revision {revision}, which this version does not know"
            f" (its newest is {NEWEST_REVISION}); use the version that made them, or a newer one"
        )
    else:
        refuse_without_ddl(
            connection, schema, place=place, what=f"brought from revision {revision} to {NEWEST_REVISION}"
        )
    with _ALEMBIC:
        command.upgrade(config, "head")


def refuse_without_ddl(
    connection: Connection, schema: str | None, *, place: str, what: str, command: str = "migrate"
) -> None:
    """Raise ConfigurationError, naming the owner's command, unless who is connected may make and change tables.

    `what` has to be done to them, as "made", by `command`. An engine that has no more than a writer's rights cannot.
    """
    if schema is None:
        return
    may = text(
        "SELECT CASE WHEN n.oid IS NULL THEN has_database_privilege(current_database(), 'CREATE')"
        " ELSE has_schema_privilege(n.oid, 'CREATE') AND coalesce(bool_and(pg_has_role(c.relowner, 'USAGE')), true)"
        " END FROM (SELECT CAST(:schema AS name) AS name) s LEFT JOIN pg_namespace n ON n.nspname = s.name"
        " LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'v') GROUP BY n.oid"
    )
    if not connection.scalar(may, {"schema": schema}):
        raise ConfigurationError(
            f"{place}, schema {schema}: the tables have to be {what}, and this database user may not;"
            f" their owner runs `kvr sync {command}`, and `kvr sync roles` after it"
        )


def refuse_without_schema(connection: Connection, schema: str | None, *, place: str) -> None:
    """Raise ConfigurationError, with what an administrator does, where a schema is not there and cannot be made."""
    if schema is None:
        return
    usable = text(
        "SELECT CASE WHEN n.oid IS NULL THEN has_database_privilege(current_database(), 'CREATE')"
        " ELSE pg_has_role(n.nspowner, 'USAGE') END"
        " FROM (SELECT CAST(:schema AS name) AS name) s LEFT JOIN pg_namespace n ON n.nspname = s.name"
    )
    if not connection.scalar(usable, {"schema": schema}):
        owner = connection.scalar(text("SELECT current_user"))
        quoted = [connection.dialect.identifier_preparer.quote(str(name)) for name in (schema, owner)]
        raise ConfigurationError(
            f"{place}: there is no schema {schema} of {owner}, who may not make one. An administrator runs:"
            f" CREATE SCHEMA {quoted[0]} AUTHORIZATION {quoted[1]};"
        )


def stored_revision(connection: Connection, schema: str | None) -> str | None:
    """Give the revision that the channel's tables are at; None where there are none.

    Raises SchemaDriftError where more than one is recorded.
    """
    if not inspect(connection).has_table(REVISION_TABLE, schema=schema):
        return None
    table = Table(REVISION_TABLE, MetaData(), Column("version_num", String), schema=schema)
    heads = connection.scalars(select(table.c.version_num)).all()
    if len(heads) > 1:
        raise SchemaDriftError(f"the tables are recorded at more than one revision: {', '.join(heads)}")
    return heads[0] if heads else None
