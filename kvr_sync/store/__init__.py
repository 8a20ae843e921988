"""Rows of the ledger in relational tables: schema, migrations and the sink on SQLite and PostgreSQL."""
