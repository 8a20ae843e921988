"""The Python client of Fabric and the REST service on it."""

__version__ = "0.1.0"
