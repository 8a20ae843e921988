"""The ledger layer: blocks, transactions, keys and their history, and the records of the engine itself."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

_INT64 = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_INT32 = sa.Integer()
_INT16 = sa.SmallInteger().with_variant(sa.Integer(), "sqlite")
_TEXT = sa.Text()
_BYTES = sa.LargeBinary()
_FLAG = sa.Boolean()
_TIME = postgresql.TIMESTAMP(timezone=True).with_variant(sa.Text(), "sqlite")

_KIND = "What was written: 1 put, 2 delete, 3 metadata, 4 purge, 5 metadata removed."
_EFFECT = (
    "What it did: 0 nothing, 1 the key has this value, 2 the key is gone, 3 the value stayed and the version moved."
)


def upgrade(schema: str | None) -> None:
    """Create all tables, in the schema of one channel."""
    _create_records_of_blocks(schema)
    _create_dictionaries(schema)
    _create_writes(schema)
    _create_records_of_engine(schema)
    _fill_validation_codes(schema)


def _column(name: str, kind: sa.types.TypeEngine[Any], comment: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=nullable, autoincrement=False, comment=comment)


def _create_records_of_blocks(schema: str | None) -> None:
    op.create_table(
        "ledger_block",
        _column("block_number", _INT64, "Number of the block; block 0 is the genesis block."),
        _column("header_hash", _BYTES, "SHA-256 of the header: the previous_hash of the next block."),
        _column("previous_hash", _BYTES, "Header hash of the block before."),
        _column("data_hash", _BYTES, "SHA-256 of the envelopes, as the header says and as checked."),
        _column("commit_hash", _BYTES, "The peer's hash over verdicts and writes, derived here.", nullable=True),
        _column("commit_hash_verified", _FLAG, "Whether the block carried the same commit hash."),
        _column("transaction_count", _INT32, "Number of transactions, valid or not."),
        sa.PrimaryKeyConstraint("block_number", name="ledger_block_pkey"),
        schema=schema,
        comment="Every verified block of the channel.",
    )
    op.create_table(
        "ledger_transaction",
        _column("block_number", _INT64, "Block of the transaction."),
        _column("tx_number", _INT32, "Position in the block, from 0."),
        _column(
            "tx_id", _TEXT, "Transaction id as claimed; unique only among valid transactions. May be sha256:<hex>."
        ),
        _column("header_type", _INT32, "1 configuration, 3 endorser transaction; NULL: unreadable.", nullable=True),
        _column("validation_code", _INT16, "The verdict; see ledger_validation_code. Only 0 changed anything."),
        _column("creator_id", _INT64, "Who sent it (ledger_identity); NULL: none is named.", nullable=True),
        _column("chaincode_id", _INT64, "Which chaincode it called (ledger_chaincode).", nullable=True),
        _column(
            "function", _TEXT, "First argument of the call, where it is UTF-8. May be sha256:<hex>.", nullable=True
        ),
        _column("claimed_seconds", _INT64, "Time the sender claims: seconds since 1970 UTC.", nullable=True),
        _column("claimed_nanos", _INT32, "Time the sender claims: nanoseconds of the second.", nullable=True),
        _column("claimed_at", _TIME, "The claimed time in microseconds; NULL when it is no date.", nullable=True),
        _column("defect", _TEXT, "Where reading the transaction had to stop, and why.", nullable=True),
        sa.PrimaryKeyConstraint("block_number", "tx_number", name="ledger_transaction_pkey"),
        schema=schema,
        comment="Every transaction, whatever its verdict. Times and ids are the sender's word.",
    )
    op.create_index("ledger_transaction_tx_id_idx", "ledger_transaction", ["tx_id"], schema=schema)
    op.create_table(
        "ledger_event",
        _column("block_number", _INT64, "Block of the transaction."),
        _column("tx_number", _INT32, "Position of the transaction in the block."),
        _column("chaincode", _TEXT, "Chaincode that set the event. May be sha256:<hex>."),
        _column("name", _TEXT, "Name of the event. May be sha256:<hex>."),
        _column("payload", _BYTES, "Content of the event."),
        sa.PrimaryKeyConstraint("block_number", "tx_number", name="ledger_event_pkey"),
        schema=schema,
        comment="Chaincode events of valid transactions; a transaction has at most one.",
    )
    op.create_table(
        "ledger_config",
        _column("block_number", _INT64, "Block that brought the configuration; it rules the blocks after it."),
        _column("sequence", _INT64, "Sequence number of the configuration."),
        _column("content", _BYTES, "ConfigEnvelope bytes."),
        sa.PrimaryKeyConstraint("block_number", name="ledger_config_pkey"),
        schema=schema,
        comment="Every channel configuration that came into force.",
    )
    op.create_table(
        "ledger_validation_code",
        _column("code", _INT16, "Number of the verdict."),
        _column("name", _TEXT, "Fabric's name of it."),
        _column("reason", _TEXT, "What it means, in words."),
        sa.PrimaryKeyConstraint("code", name="ledger_validation_code_pkey"),
        schema=schema,
        comment="Fixed list for joins; a code that is not in it comes from a newer Fabric and counts as invalid.",
    )


def _create_dictionaries(schema: str | None) -> None:
    op.create_table(
        "ledger_identity",
        _column("identity_id", _INT64, "Our number for the identity."),
        _column("digest", _BYTES, "SHA-256 of content."),
        _column("msp_id", _TEXT, "MSP id inside content. May be sha256:<hex>."),
        _column("content", _BYTES, "SerializedIdentity bytes (MSP id and certificate)."),
        sa.PrimaryKeyConstraint("identity_id", name="ledger_identity_pkey"),
        sa.UniqueConstraint("digest", name="ledger_identity_digest_key"),
        schema=schema,
        comment="Every identity that sent a transaction, each once; in invalid transactions nobody checked it.",
    )
    op.create_table(
        "ledger_chaincode",
        _column("chaincode_id", _INT64, "Our number for the pair."),
        _column("name", _TEXT, "Chaincode name. May be sha256:<hex>."),
        _column("version", _TEXT, "Chaincode version. May be sha256:<hex>."),
        sa.PrimaryKeyConstraint("chaincode_id", name="ledger_chaincode_pkey"),
        sa.UniqueConstraint("name", "version", name="ledger_chaincode_name_version_key"),
        schema=schema,
        comment="Every chaincode and version that a transaction named.",
    )
    op.create_table(
        "ledger_key",
        _column("key_id", _INT64, "Our number for the key; every other table uses it."),
        _column("namespace", _TEXT, "Chaincode that owns the key. May be sha256:<hex>."),
        _column("collection", _TEXT, "Private data collection; empty for public keys. May be sha256:<hex>."),
        _column("key", _BYTES, "Raw key bytes; in a collection the SHA-256 of the private key."),
        _column("digest", _BYTES, "SHA-256 over namespace, collection and key, each with its length: the identity."),
        sa.PrimaryKeyConstraint("key_id", name="ledger_key_pkey"),
        sa.UniqueConstraint("digest", name="ledger_key_digest_key"),
        schema=schema,
        comment="Every key that a transaction wrote, or would have written, each once.",
    )


def _create_writes(schema: str | None) -> None:
    for table, value, value_comment, comment in (
        (
            "ledger_key_history",
            "value",
            "The written bytes; NULL for deletes and metadata.",
            "Every write of every valid transaction to a public key. Its version is (block_number, tx_number).",
        ),
        (
            "ledger_private_hash",
            "value_hash",
            "SHA-256 of the written private value; NULL for deletes and metadata.",
            "Every write of every valid transaction to a private key, by hash.",
        ),
    ):
        op.create_table(
            table,
            _column("key_id", _INT64, "Key written (ledger_key)."),
            _column("block_number", _INT64, "Block of the write."),
            _column("tx_number", _INT32, "Position of its transaction in the block."),
            _column("write_number", _INT32, "Position of the write in the transaction."),
            _column("kind", _INT16, _KIND),
            _column("effect", _INT16, _EFFECT),
            _column(value, _BYTES, value_comment, nullable=True),
            sa.PrimaryKeyConstraint("key_id", "block_number", "tx_number", "write_number", name=f"{table}_pkey"),
            schema=schema,
            comment=comment,
        )
    op.create_table(
        "ledger_refused_write",
        _column("key_id", _INT64, "Key named (ledger_key)."),
        _column("block_number", _INT64, "Block of the transaction."),
        _column("tx_number", _INT32, "Position of the transaction in the block."),
        _column("write_number", _INT32, "Position of the write in the transaction."),
        _column("kind", _INT16, _KIND),
        _column(
            "value", _BYTES, "The bytes, in a collection their SHA-256; NULL for deletes, metadata.", nullable=True
        ),
        sa.PrimaryKeyConstraint(
            "key_id", "block_number", "tx_number", "write_number", name="ledger_refused_write_pkey"
        ),
        schema=schema,
        comment="What refused transactions would have written. It never came into force; kept for the audit of a key.",
    )
    op.create_table(
        "ledger_quarantine",
        _column("table_name", _TEXT, "Mapped table that the value does not fit."),
        _column("key_id", _INT64, "Key written (ledger_key)."),
        _column("block_number", _INT64, "Block of the write."),
        _column("tx_number", _INT32, "Position of its transaction in the block."),
        _column("write_number", _INT32, "Position of the write in the transaction."),
        _column("reason", _TEXT, "Stable code of the reason."),
        _column("detail", _TEXT, "The reason in words, without the value."),
        _column("value", _BYTES, "The value as written."),
        sa.PrimaryKeyConstraint(
            "table_name", "key_id", "block_number", "tx_number", "write_number", name="ledger_quarantine_pkey"
        ),
        schema=schema,
        comment="Values that do not fit their mapping. Nothing is lost: the ledger layer has them too.",
    )


def _create_records_of_engine(schema: str | None) -> None:
    op.create_table(
        "ledger_checkpoint",
        _column("channel", _TEXT, "Channel that these tables belong to."),
        _column("block_number", _INT64, "Last block applied."),
        _column("header_hash", _BYTES, "Its header hash."),
        _column("commit_hash", _BYTES, "Commit hash after it; NULL where there is none.", nullable=True),
        _column("genesis_hash", _BYTES, "Header hash of block 0."),
        _column("anchor", _TEXT, "pinned: an operator vouched for genesis_hash; unpinned: the first file seen did."),
        _column("updated_at", _TIME, "When the row was written, by the engine's clock."),
        sa.PrimaryKeyConstraint("channel", name="ledger_checkpoint_pkey"),
        schema=schema,
        comment="One row: how far the tables reach. It commits together with the rows it speaks of. Never edit it.",
    )
    op.create_table(
        "sync_mapping",
        _column("version", _INT32, "Version of the mapping in this database, from 1."),
        _column("digest", _TEXT, "SHA-256, in hex, of all in it that decides tables and rows."),
        _column("content", _TEXT, "The mapping as canonical JSON."),
        _column("applied_at_block", _INT64, "First block mapped by it."),
        sa.PrimaryKeyConstraint("version", name="sync_mapping_pkey"),
        schema=schema,
        comment="The mapping that the mapped tables were made from.",
    )
    op.create_table(
        "sync_run",
        sa.Column("run_id", _INT64, sa.Identity(), nullable=False, comment="Number of the run."),
        _column("started_at", _TIME, "When it began."),
        _column("ended_at", _TIME, "When it ended; NULL: it runs, or was killed.", nullable=True),
        _column("outcome", _TEXT, "running, ok, stopped or failed."),
        _column("first_block", _INT64, "First block applied; NULL: none.", nullable=True),
        _column("last_block", _INT64, "Last block applied; NULL: none.", nullable=True),
        _column("blocks", _INT64, "Number of blocks applied."),
        _column("transactions", _INT64, "Number of transactions in them."),
        _column("error_code", _TEXT, "Stable code of the error that ended it.", nullable=True),
        _column("error_text", _TEXT, "That error in words.", nullable=True),
        sa.PrimaryKeyConstraint("run_id", name="sync_run_pkey"),
        schema=schema,
        comment="What each run of the engine did.",
    )


def _fill_validation_codes(schema: str | None) -> None:
    table = sa.table("ledger_validation_code", sa.column("code"), sa.column("name"), sa.column("reason"), schema=schema)
    op.bulk_insert(table, [{"code": code, "name": name, "reason": reason} for code, name, reason in _VALIDATION_CODES])


_VALIDATION_CODES = (
    (0, "VALID", "accepted"),
    (1, "NIL_ENVELOPE", "the envelope is empty"),
    (2, "BAD_PAYLOAD", "the payload cannot be read"),
    (3, "BAD_COMMON_HEADER", "the header is malformed"),
    (4, "BAD_CREATOR_SIGNATURE", "the submitter's signature or certificate is not valid in the channel"),
    (5, "INVALID_ENDORSER_TRANSACTION", "the transaction is malformed"),
    (6, "INVALID_CONFIG_TRANSACTION", "the configuration transaction is malformed"),
    (7, "UNSUPPORTED_TX_PAYLOAD", "this type of transaction is not supported"),
    (8, "BAD_PROPOSAL_TXID", "the transaction id does not follow from nonce and submitter"),
    (9, "DUPLICATE_TXID", "a transaction with this id is already on the ledger"),
    (10, "ENDORSEMENT_POLICY_FAILURE", "the endorsements do not satisfy the endorsement policy"),
    (11, "MVCC_READ_CONFLICT", "somebody else changed a key this transaction had read"),
    (12, "PHANTOM_READ_CONFLICT", "somebody else changed a range of keys this transaction had read"),
    (13, "UNKNOWN_TX_TYPE", "the type of transaction is unknown"),
    (14, "TARGET_CHAIN_NOT_FOUND", "the channel named in it is not this one"),
    (15, "MARSHAL_TX_ERROR", "the transaction cannot be serialised"),
    (16, "NIL_TXACTION", "the transaction has no action"),
    (17, "EXPIRED_CHAINCODE", "the chaincode version has expired"),
    (18, "CHAINCODE_VERSION_CONFLICT", "the chaincode version is not the committed one"),
    (19, "BAD_HEADER_EXTENSION", "the header extension cannot be read"),
    (20, "BAD_CHANNEL_HEADER", "the channel header cannot be read"),
    (21, "BAD_RESPONSE_PAYLOAD", "the endorsed response cannot be read"),
    (22, "BAD_RWSET", "the read-write set cannot be read"),
    (23, "ILLEGAL_WRITESET", "the write set is not allowed"),
    (24, "INVALID_WRITESET", "the write set is not acceptable to the state database"),
    (25, "INVALID_CHAINCODE", "the chaincode is not committed on the channel, or named inconsistently"),
    (254, "NOT_VALIDATED", "not validated"),
    (255, "INVALID_OTHER_REASON", "malformed in another way"),
)
