"""What the ledger layer holds of a transaction, as mapping asks for it: for rows that are made after their block."""

from typing import Any

from sqlalchemy import Row, Select

from kvr_sync.model import TransactionFacts
from kvr_sync.store.schema import LedgerTables
from network.protocol.transaction import ChaincodeId
from network.protocol.validation_code import VALID

_COLUMNS = ("tx_id", "function", "claimed_seconds", "claimed_nanos")


def with_facts(statement: Select[Any], tables: LedgerTables) -> Select[Any]:
    """Add to a statement that selects from `ledger_transaction` what `stored_facts` reads, but for `tx_number`."""
    transaction, identity, chaincode = tables.transaction, tables.identity, tables.chaincode
    return (
        statement.add_columns(*(transaction.c[name] for name in _COLUMNS))
        .add_columns(identity.c.msp_id, chaincode.c.name, chaincode.c.version)
        .outerjoin(identity, identity.c.identity_id == transaction.c.creator_id)
        .outerjoin(chaincode, chaincode.c.chaincode_id == transaction.c.chaincode_id)
    )


def stored_facts(row: Row[Any]) -> TransactionFacts:
    """Give the facts of a valid transaction that a mapping can ask for; the others are left empty."""
    return TransactionFacts(
        row.tx_number,
        row.tx_id,
        None,
        VALID,
        b"",
        row.msp_id or "",
        None if row.name is None else ChaincodeId(row.name, row.version),
        None if row.function is None else row.function.encode(),
        row.claimed_seconds,
        row.claimed_nanos,
        None,
        (),
    )
