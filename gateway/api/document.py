"""What routes take and give: models that refuse unknown fields, and the one form in which a write is answered."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gateway.api.errors import CommitRejectedError, PolicyRejectedError
from gateway.api.ledger import Outcome, WriteResult
from network.protocol.validation_code import reason

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Line = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Paragraph = Annotated[
    str, StringConstraints(min_length=1, max_length=4000, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]+$")
]
Reference = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16,64}$")]
TransactionId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

RETRYABLE_CODES = frozenset({"MVCC_READ_CONFLICT", "PHANTOM_READ_CONFLICT"})
"""Verdicts that a new transaction with the same content may not get."""


class Document(BaseModel):
    """Base of everything that comes in or goes out."""

    model_config = ConfigDict(extra="forbid")


class Transaction(Document):
    """How a write stands: committed or rejected with code and block, or unknown, to be asked for again at `href`."""

    tx_id: TransactionId
    outcome: Literal["committed", "rejected", "unknown"]
    validation_code: str | None = Field(None, description="Name of the verdict, once a block holds the transaction.")
    reason: str | None = Field(None, description="What the verdict means, in words.")
    block_number: int | None = None
    href: str


class Written(Document):
    """The answer to a write: its transaction, and what the contract said."""

    transaction: Transaction
    result: Any = Field(None, description="What the contract answered; present once the write is committed.")


def transaction_document(result: WriteResult) -> Transaction:
    """Give a transaction as callers see it."""
    return Transaction(
        tx_id=result.tx_id,
        outcome=result.outcome.value,
        validation_code=result.code,
        reason=reason(result.code) if result.code else None,
        block_number=result.block_number,
        href=f"/v1/transactions/{result.tx_id}",
    )


def refuse_rejected(result: WriteResult) -> None:
    """Raise the error of a write that a block holds as refused."""
    if result.outcome is not Outcome.REJECTED:
        return
    code = result.code or "INVALID_OTHER_REASON"
    kind = CommitRejectedError if code in RETRYABLE_CODES else PolicyRejectedError
    raise kind(reason(code), tx_id=result.tx_id, validation_code=code, block_number=result.block_number)
