"""The Python chaincode runtime and the customer-service contracts."""

__version__ = "0.1.0"
