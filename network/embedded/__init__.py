"""The embedded network: one process that speaks the protocols of Fabric's nodes, for development and tests."""
