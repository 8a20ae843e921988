"""Customer service on the ledger: customers, their private profiles, their requests. `contract` is what is served."""

from chaincode.contract import Contract
from chaincode.service import customer, profile, service_request
from chaincode.service.submission import written_at_once

contract = Contract("service", "1.0")
for writing in (customer.register_customer, profile.store_profile, *service_request.TRANSACTIONS):
    contract.transaction(written_at_once(writing))
for reading in (customer.read_customer, customer.list_customers, *profile.QUERIES, *service_request.QUERIES):
    contract.query(reading)

__all__ = ["contract"]
