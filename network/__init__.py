"""A Fabric network from one topology file, and Fabric's rules as pure functions (`network.protocol`)."""

__version__ = "0.1.0"
