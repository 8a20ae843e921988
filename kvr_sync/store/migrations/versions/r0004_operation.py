"""Operation: what peers were seen to have, what operators did, and where the tables stand in one row."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

_INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXT = sa.Text()
_BYTES = sa.LargeBinary()
_TIME = postgresql.TIMESTAMP(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade(schema: str | None) -> None:
    """Create tables and view, and on PostgreSQL the function, in the schema of one channel."""
    op.create_table(
        "sync_peer",
        _column("peer", _TEXT, "Address of the peer."),
        _column("height", _INT64, "Blocks that it was last seen to have: the number of its newest, and one."),
        _column("seen_at", _TIME, "When the engine last knew this; old: no engine runs."),
        _column(
            "behind_since", _TIME, "Since when it has had a block that the tables lack; NULL: none.", nullable=True
        ),
        sa.PrimaryKeyConstraint("peer", name="sync_peer_pkey"),
        schema=schema,
        comment="What each peer was seen to have, written while the engine reads from peers, once a second at most.",
    )
    op.create_table(
        "sync_job",
        _column("job", _TEXT, "Name of the job."),
        _column("started_at", _TIME, "When it last began."),
        _column("ended_at", _TIME, "When that ended; NULL: it runs, or was killed.", nullable=True),
        _column("succeeded_at", _TIME, "When it last ended without an error; NULL: never.", nullable=True),
        _column("error_code", _TEXT, "Code of the error of the last time; NULL: none.", nullable=True),
        sa.PrimaryKeyConstraint("job", name="sync_job_pkey"),
        schema=schema,
        comment="What the service did beside applying blocks, and when: what is due after a restart follows from it.",
    )
    op.create_table(
        "operation_log",
        sa.Column("operation_id", _INT64, sa.Identity(), nullable=False, comment="Number of the entry."),
        _column("logged_at", _TIME, "When, by the clock of the machine that the command ran on."),
        _column("operation", _TEXT, "The command."),
        _column("operator", _TEXT, "Who: user of the operating system, and of the database where it has users."),
        _column("reason", _TEXT, "Why, in the operator's words; NULL: not said.", nullable=True),
        _column("detail", _TEXT, "What exactly, as JSON; never values of the ledger.", nullable=True),
        _column("before_block", _INT64, "Checkpoint before it; NULL: no block yet.", nullable=True),
        _column("before_header_hash", _BYTES, "Header hash of that block.", nullable=True),
        _column("after_block", _INT64, "Checkpoint after it; NULL: no block yet.", nullable=True),
        _column("after_header_hash", _BYTES, "Header hash of that block.", nullable=True),
        sa.PrimaryKeyConstraint("operation_id", name="operation_log_pkey"),
        schema=schema,
        comment="What operators did to these tables beside following the chain. Entries are added and never changed.",
    )
    if op.get_bind().dialect.name == "postgresql":
        _create_on_postgresql(schema)
    else:
        op.execute(_view("sync_status", "", _SQLITE_SECONDS))


def _create_on_postgresql(schema: str | None) -> None:
    quoted = op.get_bind().dialect.identifier_preparer.quote_schema(schema or "public")
    view = f"{quoted}.sync_status"
    op.execute(_view(view, f"{quoted}.", _POSTGRESQL_SECONDS))
    for name, comment in (("", _VIEW_COMMENT), *((f".{name}", comment) for name, comment in _COLUMN_COMMENTS.items())):
        kind = "COLUMN" if name else "VIEW"
        op.execute(f"COMMENT ON {kind} {view}{name} IS '{comment}'")
    op.execute(_WAIT_FUNCTION.format(schema=quoted))
    op.execute(f"COMMENT ON FUNCTION {quoted}.kvr_wait_for_block(bigint, interval) IS '{_WAIT_COMMENT}'")


def _column(name: str, kind: sa.types.TypeEngine[Any], comment: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=nullable, autoincrement=False, comment=comment)


def _view(name: str, prefix: str, seconds: str) -> str:
    """One row, also before the first block. `seconds`: an expression for the time since `behind_since`."""
    text = """
        CREATE VIEW {name} AS
        SELECT c.channel, c.block_number, c.height, p.peer_height, p.peer_seen_at,
            CASE WHEN p.peer_height > c.height THEN p.peer_height - c.height WHEN p.peer_height >= 0 THEN 0 END
                AS lag_blocks,
            CASE WHEN p.peer_height > c.height THEN {seconds} WHEN p.peer_height >= 0 THEN 0 END AS lag_seconds,
            c.updated_at,
            (SELECT max(version) FROM {prefix}sync_mapping) AS mapping_version,
            (SELECT count(*) FROM {prefix}ledger_quarantine WHERE closed_block IS NULL) AS quarantined,
            (SELECT count(*) FROM {prefix}ledger_private_value WHERE value IS NULL) AS private_missing
        FROM (
            SELECT max(channel) AS channel, max(block_number) AS block_number,
                coalesce(max(block_number) + 1, 0) AS height, max(updated_at) AS updated_at
            FROM {prefix}ledger_checkpoint
        ) c, (
            SELECT max(height) AS peer_height, max(seen_at) AS peer_seen_at, min(behind_since) AS behind_since
            FROM {prefix}sync_peer
        ) p
    """
    return text.format(name=name, prefix=prefix, seconds=seconds)


_POSTGRESQL_AGE = "statement_timestamp() - coalesce(p.behind_since, p.peer_seen_at)"
_POSTGRESQL_SECONDS = f"greatest(extract(epoch FROM {_POSTGRESQL_AGE}), 0)::double precision"
_SQLITE_SECONDS = "max((julianday('now') - julianday(coalesce(p.behind_since, p.peer_seen_at))) * 86400.0, 0.0)"

_VIEW_COMMENT = "Where the tables stand, in one row: how far, and how far behind the peers."
_COLUMN_COMMENTS = {
    "channel": "Channel of these tables; NULL before the first block.",
    "block_number": "Last block applied.",
    "height": "Number of blocks applied.",
    "peer_height": "Most blocks that a peer was seen to have; NULL where blocks come from files.",
    "peer_seen_at": "When peers were last seen; old: no engine runs, or no peer answers, and the lag is not known.",
    "lag_blocks": "Blocks that the peers have and the tables lack, as seen at peer_seen_at.",
    "lag_seconds": "Since when the oldest of them has been known.",
    "updated_at": "When the last block was applied.",
    "mapping_version": "Version of the mapping; NULL: no mapped tables.",
    "quarantined": "Values in quarantine, as far as no later write or release has closed the entry.",
    "private_missing": "Private keys whose value is missing.",
}

# Each statement of a volatile function sees what was committed before it, but only under READ COMMITTED: elsewhere the
# first statement of the transaction has fixed what it can ever see, and waiting would be in vain.
_WAIT_FUNCTION = """
    CREATE FUNCTION {schema}.kvr_wait_for_block(wanted bigint, timeout interval) RETURNS boolean
    LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $function$
    DECLARE
        deadline timestamptz := clock_timestamp() + timeout;
    BEGIN
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'kvr_wait_for_block cannot see new blocks under %',
                current_setting('transaction_isolation')
                USING ERRCODE = 'invalid_transaction_state',
                HINT = 'Call it in a transaction of its own, or under READ COMMITTED, and begin reading afterwards.';
        END IF;
        IF timeout > interval '1 hour' THEN
            RAISE EXCEPTION 'kvr_wait_for_block waits for one hour at the longest'
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        LOOP
            PERFORM 1 FROM {schema}.ledger_checkpoint WHERE block_number >= wanted;
            IF FOUND THEN
                RETURN true;
            END IF;
            IF clock_timestamp() >= deadline THEN
                RETURN false;
            END IF;
            PERFORM pg_sleep(least(0.02, greatest(extract(epoch FROM deadline - clock_timestamp()), 0)));
        END LOOP;
    END
    $function$
"""
_WAIT_COMMENT = (
    "Waits until block `wanted` is applied (true) or the time is over (false). Statements that begin afterwards see the"
    " block. Under READ COMMITTED only."
)
