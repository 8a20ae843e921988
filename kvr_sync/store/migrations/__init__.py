"""Migrations of the ledger layer (Alembic), shipped with the package and run by `kvr_sync.store.migration`."""
