"""`/v1/transactions`: how a write stands."""

from typing import Annotated

from fastapi import APIRouter, Path

from gateway.api.access import LedgerOfService, User
from gateway.api.document import Transaction, TransactionId, transaction_document

router = APIRouter(prefix="/v1/transactions", tags=["transactions"])


@router.get("/{tx_id}")
async def read_transaction(user: User, ledger: LedgerOfService, tx_id: Annotated[TransactionId, Path()]) -> Transaction:
    """Say how a transaction stands: committed, rejected, or unknown (not in any block yet, perhaps never)."""
    return transaction_document(await ledger.transaction(user, tx_id))
