"""The KV-R conversion engine: verified ledger blocks in, relational tables out, exactly once."""

__version__ = "0.1.0"
