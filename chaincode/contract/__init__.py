"""Contracts: functions registered by name, arguments decoded by declared types, the client's identity, metadata."""

from chaincode.contract.context import Context
from chaincode.contract.identity import ClientIdentity
from chaincode.contract.registration import Contract

__all__ = ["ClientIdentity", "Context", "Contract"]
