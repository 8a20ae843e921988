"""How entries of the quarantine are closed, told from the versions that there are."""

from typing import Any

from sqlalchemy import Table, case, select, tuple_

from kvr_sync.store.mapped_table import VERSION_COLUMNS

KEPT_CLOSINGS = ("released", "erased")
"""Entries of the quarantine that tell what was done, and do not follow from the ledger layer."""
_VERSION = VERSION_COLUMNS[1:]


def derived_closing(entry: Table, versions: Table) -> dict[str, Any]:
    """Give what closes the entries of a table: the first later version, whenever it came.

    `versions`: a history, or a table like one. A version that is missing or was erased is one like any other.
    """
    position = tuple_(*(versions.c[name] for name in _VERSION))
    later = (versions.c.kvr_key_id == entry.c.key_id) & (
        position > tuple_(*(entry.c[name.removeprefix("kvr_")] for name in _VERSION))
    )
    order = [versions.c[name] for name in _VERSION]
    kind = versions.c.kvr_kind
    by = case((kind == "delete", "deleted"), (kind == "purge", "erased"), else_="overwritten")
    return {
        "closed_block": select(versions.c.kvr_block_number).where(later).order_by(*order).limit(1).scalar_subquery(),
        "closed_by": select(by).where(later).order_by(*order).limit(1).scalar_subquery(),
    }
