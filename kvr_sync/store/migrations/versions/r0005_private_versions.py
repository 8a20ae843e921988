"""Every version of a private value, in force or not: what came late or is missing, and what was erased."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

_INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_INT32 = sa.Integer()
_TEXT = sa.Text()
_BYTES = sa.LargeBinary()
_TIME = postgresql.TIMESTAMP(timezone=True).with_variant(sa.Text(), "sqlite")

_TABLE = "ledger_private_value"
_KEY = ("key_id", "block_number", "tx_number", "write_number")
_KEPT = (*_KEY, "key", "value", "value_hash", "expiring_block")
"""Columns of before."""
_NEVER_ASKED = "1970-01-01T00:00:00.000000Z"
_COMMENT = "Each value of a private key of a collection of the organisation: in force, outdated, missing or erased."
_NEW_COMMENTS = {
    "key": "The private key itself; NULL: the value is missing, or was erased.",
    "value": "The private value; NULL: it is missing (due_at), or was erased (erased_block).",
    "block_number": "Block of the write that gave the value.",
    "expiring_block": "Block with which the value is to be erased; NULL: none, or it was erased.",
}


def upgrade(schema: str | None) -> None:
    """Give the table a row for each version, in the schema of one channel; what it holds is in force."""
    if op.get_bind().dialect.name == "postgresql":
        _alter(schema)
    else:
        _make_anew()
    op.create_index(f"{_TABLE}_due_at_idx", _TABLE, ["due_at"], schema=schema)
    op.add_column("ledger_private_member", _column("ready_block", _INT64, _READY_COMMENT), schema=schema)
    _tell_status(schema)


def _columns() -> tuple[sa.Column[Any], ...]:
    """Give the columns that are new."""
    return (
        _column("ended_block", _INT64, "Block with which it came out of force; NULL: it is in force."),
        _column("erased_block", _INT64, "Block with which value and key were erased; NULL: they were not."),
        _column("erased_by", _TEXT, "purge or expiry; NULL: not erased."),
        _column("attempts", _INT32, "How often peers were asked for the missing value in vain; NULL: not missing."),
        _column("due_at", _TIME, "When they are to be asked again; NULL: the value is not missing."),
    )


def _column(name: str, kind: sa.types.TypeEngine[Any], comment: str, *, nullable: bool = True) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=nullable, autoincrement=False, comment=comment)


def _alter(schema: str | None) -> None:
    quoted = op.get_bind().dialect.identifier_preparer.quote_schema(schema or "public")
    name = f"{quoted}.{_TABLE}"
    op.drop_constraint(f"{_TABLE}_pkey", _TABLE, schema=schema)
    op.create_primary_key(f"{_TABLE}_pkey", _TABLE, list(_KEY), schema=schema)
    for column in _columns():
        op.add_column(_TABLE, column, schema=schema)
    op.execute(f"UPDATE {name} SET attempts = 0, due_at = '{_NEVER_ASKED}' WHERE value IS NULL")  # noqa: S608  ours
    op.execute(f"COMMENT ON TABLE {name} IS '{_COMMENT}'")
    for column_name, comment in _NEW_COMMENTS.items():
        op.execute(f"COMMENT ON COLUMN {name}.{column_name} IS '{comment}'")


def _make_anew() -> None:
    """SQLite cannot change a primary key."""
    listed = ", ".join(f'"{name}"' for name in _KEPT)
    op.execute(f"CREATE TEMPORARY TABLE kvr_kept AS SELECT {listed} FROM {_TABLE}")  # noqa: S608  ours
    op.drop_table(_TABLE)
    op.create_table(
        _TABLE,
        _column("key_id", _INT64, "", nullable=False),
        _column("block_number", _INT64, "", nullable=False),
        _column("tx_number", _INT32, "", nullable=False),
        _column("write_number", _INT32, "", nullable=False),
        _column("key", _BYTES, ""),
        _column("value", _BYTES, ""),
        _column("value_hash", _BYTES, "", nullable=False),
        _column("expiring_block", _INT64, ""),
        *_columns(),
        sa.PrimaryKeyConstraint(*_KEY, name=f"{_TABLE}_pkey"),
    )
    op.execute(
        f"INSERT INTO {_TABLE} ({listed}, attempts, due_at) SELECT {listed},"  # noqa: S608  ours
        f" CASE WHEN value IS NULL THEN 0 END, CASE WHEN value IS NULL THEN '{_NEVER_ASKED}' END FROM kvr_kept"
    )
    op.execute("DROP TABLE kvr_kept")
    op.create_index(f"{_TABLE}_expiring_block_idx", _TABLE, ["expiring_block"])


def _tell_status(schema: str | None) -> None:
    """Count in `sync_status` what is missing, and tell whether private rows can be relied on; its columns stay."""
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    prefix = ""
    if is_postgresql:
        prefix = f"{op.get_bind().dialect.identifier_preparer.quote_schema(schema or 'public')}."
    else:
        op.execute("DROP VIEW sync_status")
    op.execute(
        _VIEW.format(
            create="CREATE OR REPLACE" if is_postgresql else "CREATE",
            prefix=prefix,
            seconds=_POSTGRESQL_SECONDS if is_postgresql else _SQLITE_SECONDS,
        )
    )
    if is_postgresql:
        op.execute(f"COMMENT ON COLUMN {prefix}sync_status.private_missing IS '{_MISSING_COMMENT}'")
        op.execute(f"COMMENT ON COLUMN {prefix}sync_status.private_ready IS '{_STATUS_COMMENT}'")


_VIEW = """
    {create} VIEW {prefix}sync_status AS
    SELECT c.channel, c.block_number, c.height, p.peer_height, p.peer_seen_at,
        CASE WHEN p.peer_height > c.height THEN p.peer_height - c.height WHEN p.peer_height >= 0 THEN 0 END
            AS lag_blocks,
        CASE WHEN p.peer_height > c.height THEN {seconds} WHEN p.peer_height >= 0 THEN 0 END AS lag_seconds,
        c.updated_at,
        (SELECT max(version) FROM {prefix}sync_mapping) AS mapping_version,
        (SELECT count(*) FROM {prefix}ledger_quarantine WHERE closed_block IS NULL) AS quarantined,
        (SELECT count(*) FROM {prefix}ledger_private_value WHERE due_at IS NOT NULL) AS private_missing,
        NOT EXISTS (
            SELECT 1 FROM {prefix}ledger_private_member WHERE ready_block > coalesce(c.block_number, -1)
        ) AS private_ready
    FROM (
        SELECT max(channel) AS channel, max(block_number) AS block_number,
            coalesce(max(block_number) + 1, 0) AS height, max(updated_at) AS updated_at
        FROM {prefix}ledger_checkpoint
    ) c, (
        SELECT max(height) AS peer_height, max(seen_at) AS peer_seen_at, min(behind_since) AS behind_since
        FROM {prefix}sync_peer
    ) p
"""
_POSTGRESQL_AGE = "statement_timestamp() - coalesce(p.behind_since, p.peer_seen_at)"
_POSTGRESQL_SECONDS = f"greatest(extract(epoch FROM {_POSTGRESQL_AGE}), 0)::double precision"
_SQLITE_SECONDS = "max((julianday('now') - julianday(coalesce(p.behind_since, p.peer_seen_at))) * 86400.0, 0.0)"
_MISSING_COMMENT = "Private values that should be held and are not, those of outdated versions too."
_READY_COMMENT = (
    "Newest block that the peers had when an engine last began; before it, erased values may still stand here."
)
_STATUS_COMMENT = "Whether private rows have passed the newest block that the peers had when an engine last began."
