"""The ledger layer completed (endorsers, key metadata, definitions, first-seen times), and the change feed."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

_INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_INT32 = sa.Integer()
_INT16 = sa.SmallInteger().with_variant(sa.Integer(), "sqlite")
_TEXT = sa.Text()
_BYTES = sa.LargeBinary()
_FLAG = sa.Boolean()
_TIME = postgresql.TIMESTAMP(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade(schema: str | None) -> None:
    """Create the tables, in the schema of one channel."""
    _add_columns(schema)
    _create_endorsers(schema)
    _create_key_metadata(schema)
    _create_definitions(schema)
    _create_change_feed(schema)


def _column(name: str, kind: sa.types.TypeEngine[Any], comment: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=nullable, autoincrement=False, comment=comment)


def _add_columns(schema: str | None) -> None:
    for table, column in (
        (
            "ledger_block",
            _column(
                "first_seen_at", _TIME, "When this engine, or the one it took over from, received it.", nullable=True
            ),
        ),
        (
            "ledger_transaction",
            _column("endorser_set_id", _INT64, "Who endorsed it (ledger_endorser); NULL: nobody named.", nullable=True),
        ),
        (
            "ledger_quarantine",
            _column("closed_block", _INT64, "Checkpoint with which the entry was closed; NULL: open.", nullable=True),
        ),
        (
            "ledger_quarantine",
            _column("closed_by", _TEXT, "overwritten, deleted, released or erased; NULL: open.", nullable=True),
        ),
    ):
        op.add_column(table, column, schema=schema)


def _create_endorsers(schema: str | None) -> None:
    op.create_table(
        "ledger_endorser_set",
        _column("endorser_set_id", _INT64, "Number of the set."),
        _column("digest", _BYTES, "SHA-256 over the digests of the identities in their order."),
        sa.PrimaryKeyConstraint("endorser_set_id", name="ledger_endorser_set_pkey"),
        sa.UniqueConstraint("digest", name="ledger_endorser_set_digest_key"),
        schema=schema,
        comment="Each list of endorsers that transactions name, once.",
    )
    op.create_table(
        "ledger_endorser",
        _column("endorser_set_id", _INT64, "The list (ledger_transaction.endorser_set_id)."),
        _column("position", _INT32, "Position in the list, from 0."),
        _column("identity_id", _INT64, "Identity that the endorsement names (ledger_identity)."),
        sa.PrimaryKeyConstraint("endorser_set_id", "position", name="ledger_endorser_pkey"),
        schema=schema,
        comment="Who stands in each list. Peers checked the signatures of valid transactions alone.",
    )


def _create_key_metadata(schema: str | None) -> None:
    op.create_table(
        "ledger_key_metadata",
        _column("key_id", _INT64, "Key (ledger_key)."),
        _column("block_number", _INT64, "Block of the write."),
        _column("tx_number", _INT32, "Position of its transaction in the block."),
        _column("write_number", _INT32, "Position of the write in the transaction (ledger_key_history)."),
        _column("position", _INT32, "Position of the entry, from 0."),
        _column("name", _TEXT, "VALIDATION_PARAMETER: the key-level endorsement policy."),
        _column("value", _BYTES, "Its value, for that name a serialised SignaturePolicyEnvelope."),
        sa.PrimaryKeyConstraint(
            "key_id", "block_number", "tx_number", "write_number", "position", name="ledger_key_metadata_pkey"
        ),
        schema=schema,
        comment="Entries of each write that set metadata of a key; a later such write, or a delete, replaces them all.",
    )


def _create_definitions(schema: str | None) -> None:
    op.create_table(
        "ledger_chaincode_definition",
        _column("chaincode", _TEXT, "Name of the chaincode."),
        _column("block_number", _INT64, "Block that committed the definition; it rules the blocks above."),
        _column("sequence", _INT64, "Sequence; NULL: what is written there is no definition.", nullable=True),
        _column("version", _TEXT, "Version that the organisations agreed on.", nullable=True),
        _column("init_required", _FLAG, "Whether the chaincode has to be initialised first.", nullable=True),
        _column("endorsement_plugin", _TEXT, "Usually escc.", nullable=True),
        _column("validation_plugin", _TEXT, "Usually vscc.", nullable=True),
        _column("validation_parameter", _BYTES, "Endorsement policy: a serialised ApplicationPolicy.", nullable=True),
        sa.PrimaryKeyConstraint("chaincode", "block_number", name="ledger_chaincode_definition_pkey"),
        schema=schema,
        comment="Each chaincode definition that came into force, by height.",
    )
    op.create_table(
        "ledger_collection_definition",
        _column("chaincode", _TEXT, "Name of the chaincode."),
        _column("block_number", _INT64, "Block of the definition (ledger_chaincode_definition)."),
        _column("collection", _TEXT, "Name of the private data collection."),
        _column("member_policy", _BYTES, "Who is a member: a serialised SignaturePolicyEnvelope."),
        _column("required_peer_count", _INT32, "Peers that must have got the data before endorsement."),
        _column("maximum_peer_count", _INT32, "Peers that are to get it."),
        _column("block_to_live", _INT64, "Blocks that a value lives; 0: for ever."),
        _column("member_only_read", _FLAG, "Whether chaincode reads it for members only."),
        _column("member_only_write", _FLAG, "Whether chaincode writes it for members only."),
        _column("endorsement_policy", _BYTES, "A serialised ApplicationPolicy; NULL: the chaincode's.", nullable=True),
        sa.PrimaryKeyConstraint("chaincode", "block_number", "collection", name="ledger_collection_definition_pkey"),
        schema=schema,
        comment="The explicit collections of each chaincode definition.",
    )


def _create_change_feed(schema: str | None) -> None:
    op.create_table(
        "sync_table",
        _column("table_id", _INT32, "Number of the mapped table."),
        _column("name", _TEXT, "Its name in the mapping."),
        _column("mapping_version", _INT32, "The mapping that has it (sync_mapping)."),
        _column("last_change_id", _INT64, "The last number given to a change of it; 0: none."),
        sa.PrimaryKeyConstraint("table_id", name="sync_table_pkey"),
        sa.UniqueConstraint("mapping_version", "name", name="sync_table_mapping_version_name_key"),
        schema=schema,
        comment="The mapped tables, and how far their change feeds reach.",
    )
    op.create_table(
        "sync_change",
        _column("table_id", _INT32, "Mapped table (sync_table)."),
        _column("change_id", _INT64, "Number of the change: from 1, without gaps, in the order of commits."),
        _column("kind", _INT16, "1 insert, 2 update, 3 delete, 4 arrival, 5 release, 6 erasure."),
        _column("key_id", _INT64, "Key of the row (ledger_key)."),
        _column("block_number", _INT64, "Version of the row."),
        _column("tx_number", _INT32, "Version of the row."),
        _column("write_number", _INT32, "Version of the row."),
        sa.PrimaryKeyConstraint("table_id", "change_id", name="sync_change_pkey"),
        schema=schema,
        comment="What happened to the current rows of mapped tables; read it through the view TABLE_changes.",
    )
