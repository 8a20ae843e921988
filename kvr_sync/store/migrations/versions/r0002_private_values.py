"""Private values: what a member organisation's database holds of the private state."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_INT32 = sa.Integer()
_TEXT = sa.Text()
_BYTES = sa.LargeBinary()


def upgrade(schema: str | None) -> None:
    """Create the tables, in the schema of one channel."""
    op.create_table(
        "ledger_private_value",
        _column("key_id", _INT64, "Key by its hash (ledger_key, which names chaincode and collection)."),
        _column("key", _BYTES, "The private key itself; NULL: the value is missing.", nullable=True),
        _column("value", _BYTES, "The private value; NULL: it is missing.", nullable=True),
        _column("value_hash", _BYTES, "SHA-256 of the value, as the chain holds it."),
        _column("block_number", _INT64, "Block of the version."),
        _column("tx_number", _INT32, "Position of its transaction in the block."),
        _column("write_number", _INT32, "Position of the write that gave the value."),
        _column("expiring_block", _INT64, "Block with which the key leaves the state; NULL: none.", nullable=True),
        sa.PrimaryKeyConstraint("key_id", name="ledger_private_value_pkey"),
        schema=schema,
        comment="The private state as the organisation holds it now; purged, deleted and expired keys have no row.",
    )
    op.create_index(
        "ledger_private_value_expiring_block_idx", "ledger_private_value", ["expiring_block"], schema=schema
    )
    op.create_table(
        "ledger_private_member",
        _column("msp_id", _TEXT, "Organisation whose private data these tables hold."),
        sa.PrimaryKeyConstraint("msp_id", name="ledger_private_member_pkey"),
        schema=schema,
        comment="One row where private data is held, none where it is not.",
    )


def _column(name: str, kind: sa.types.TypeEngine[Any], comment: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=nullable, autoincrement=False, comment=comment)
