"""Mappings beside each other: which version of the API each is of."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade(schema: str | None) -> None:
    """Give the record of mappings its column, in the schema of one channel; those there are of the first version."""
    comment = "Version of the API that its tables are of: later ones have a schema of their own."
    column: sa.Column[Any] = sa.Column(
        "api_version", sa.Integer(), nullable=False, server_default="1", autoincrement=False, comment=comment
    )
    op.add_column("sync_mapping", column, schema=schema)
    prefix = ""
    if op.get_bind().dialect.name == "postgresql":
        prefix = f"{op.get_bind().dialect.identifier_preparer.quote_schema(schema or 'public')}."
        op.execute(f"COMMENT ON COLUMN {prefix}sync_mapping.content IS '{_CONTENT}'")
        op.execute(f"COMMENT ON COLUMN {prefix}sync_mapping.applied_at_block IS '{_APPLIED}'")
        create, seconds = "CREATE OR REPLACE", _POSTGRESQL_SECONDS
    else:
        op.execute("DROP VIEW sync_status")
        create, seconds = "CREATE", _SQLITE_SECONDS
    op.execute(_VIEW.format(create=create, prefix=prefix, seconds=seconds))


_CONTENT = "The mapping as canonical JSON; empty: the tables of this version of the API were taken away."
_APPLIED = "First block mapped by it; -1: its tables are not filled yet; -2: they are being filled, beside others."

_VIEW = """
    {create} VIEW {prefix}sync_status AS
    SELECT c.channel, c.block_number, c.height, p.peer_height, p.peer_seen_at,
        CASE WHEN p.peer_height > c.height THEN p.peer_height - c.height WHEN p.peer_height >= 0 THEN 0 END
            AS lag_blocks,
        CASE WHEN p.peer_height > c.height THEN {seconds} WHEN p.peer_height >= 0 THEN 0 END AS lag_seconds,
        c.updated_at,
        (SELECT max(version) FROM {prefix}sync_mapping WHERE applied_at_block <> -2) AS mapping_version,
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
