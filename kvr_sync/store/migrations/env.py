"""What Alembic runs for a migration: on the connection, and in the schema, that `kvr_sync.store.migration` hands over.

The caller owns the transaction: a migration and everything around it commit together or not at all.
"""

from alembic import context

connection = context.config.attributes["connection"]
schema = context.config.attributes["schema"]

context.configure(connection=connection, version_table_schema=schema)
context.run_migrations(schema=schema)
