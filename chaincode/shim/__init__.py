"""Fabric's chaincode protocol: the server that peers call, one stream, and what a transaction may ask of its peer."""
