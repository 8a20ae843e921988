"""The verdict a committing peer wrote for each transaction (`peer.TxValidationCode`), by number and by name."""

from fabric_protos.peer.transaction_pb2 import TxValidationCode

VALID = 0
BAD_PAYLOAD = 2
BAD_COMMON_HEADER = 3
BAD_CREATOR_SIGNATURE = 4
INVALID_ENDORSER_TRANSACTION = 5
INVALID_CONFIG_TRANSACTION = 6
UNSUPPORTED_TX_PAYLOAD = 7
BAD_PROPOSAL_TXID = 8
DUPLICATE_TXID = 9
ENDORSEMENT_POLICY_FAILURE = 10
MVCC_READ_CONFLICT = 11
PHANTOM_READ_CONFLICT = 12
BAD_HEADER_EXTENSION = 19
BAD_RESPONSE_PAYLOAD = 21
BAD_RWSET = 22
ILLEGAL_WRITESET = 23
INVALID_CHAINCODE = 25
NOT_VALIDATED = 254
"""The initial value inside a peer: never a verdict, and never found in a committed block."""
INVALID_OTHER_REASON = 255

_NAMES: dict[int, str] = {number: name for name, number in TxValidationCode.items()}

REASONS = {
    "VALID": "accepted",
    "NIL_ENVELOPE": "the envelope is empty",
    "BAD_PAYLOAD": "the payload cannot be read",
    "BAD_COMMON_HEADER": "the header is malformed",
    "BAD_CREATOR_SIGNATURE": "the submitter's signature or certificate is not valid in the channel",
    "INVALID_ENDORSER_TRANSACTION": "the transaction is malformed",
    "INVALID_CONFIG_TRANSACTION": "the configuration transaction is malformed",
    "UNSUPPORTED_TX_PAYLOAD": "this type of transaction is not supported",
    "BAD_PROPOSAL_TXID": "the transaction id does not follow from nonce and submitter",
    "DUPLICATE_TXID": "a transaction with this id is already on the ledger",
    "ENDORSEMENT_POLICY_FAILURE": "the endorsements do not satisfy the endorsement policy",
    "MVCC_READ_CONFLICT": "somebody else changed a key this transaction had read",
    "PHANTOM_READ_CONFLICT": "somebody else changed a range of keys this transaction had read",
    "UNKNOWN_TX_TYPE": "the type of transaction is unknown",
    "TARGET_CHAIN_NOT_FOUND": "the channel named in it is not this one",
    "MARSHAL_TX_ERROR": "the transaction cannot be serialised",
    "NIL_TXACTION": "the transaction has no action",
    "EXPIRED_CHAINCODE": "the chaincode version has expired",
    "CHAINCODE_VERSION_CONFLICT": "the chaincode version is not the committed one",
    "BAD_HEADER_EXTENSION": "the header extension cannot be read",
    "BAD_CHANNEL_HEADER": "the channel header cannot be read",
    "BAD_RESPONSE_PAYLOAD": "the endorsed response cannot be read",
    "BAD_RWSET": "the read-write set cannot be read",
    "ILLEGAL_WRITESET": "the write set is not allowed",
    "INVALID_WRITESET": "the write set is not acceptable to the state database",
    "INVALID_CHAINCODE": "the chaincode is not committed on the channel, or named inconsistently",
    "NOT_VALIDATED": "not validated",
    "INVALID_OTHER_REASON": "malformed in another way",
}


def validation_code_name(code: int) -> str:
    """Give Fabric's name of a code; a code this version does not know is `UNKNOWN_<number>` and counts as invalid."""
    return _NAMES.get(code, f"UNKNOWN_{code}")


def reason(name: str) -> str:
    """Give one plain sentence for the name of a code, for people who read tables and reports."""
    return REASONS.get(name, "a verdict this version does not know; it counts as refused")
