"""The client of Hyperledger Fabric: identity, gateway service, block stream, endorser, orderer. Async throughout."""
