"""What the ledger layer knows of private versions, for rows of the mapped layer that are made a second time.

Every hashed write is stored, and with it the value where it is there; whether a value that is not there was missing
with its block follows from the definitions of the collections, as for the line (`kvr_sync.membership`). Of a version
that was erased neither key nor value is known any more: see `erased_versions`.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    and_,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
)

from kvr_sync.mapping.definition import TableMapping
from kvr_sync.membership import decode_definition, is_member
from kvr_sync.model import Effect, LedgerKey, PrivateChange, WriteKind
from kvr_sync.store.mapped_table import ERASED_BLOCK, ERASED_BY, VERSION_COLUMNS, MappedTable
from kvr_sync.store.schema import LedgerTables
from kvr_sync.store.storable import storable_text
from kvr_sync.store.transaction_facts import with_facts
from network.protocol.collection import CollectionConfig, find_collection
from network.protocol.private_data import LIFECYCLE_NAMESPACE, collections_field_key

_FETCHED_ROWS = 200
"""Rows that are fetched at once; each can have a value as large as a block."""
_PLACE = ("block_number", "tx_number", "write_number")
_VERSION = ("key_id", *_PLACE)


class PrivateLayer:
    """The private versions of one channel that are not erased, read inside the caller's transaction."""

    def __init__(
        self,
        connection: Connection,
        tables: LedgerTables,
        private: Sequence[TableMapping],
        keys: Select[Any] | None = None,
    ) -> None:
        """`private`: tables of private data; `keys`: selects the numbers of the keys to read, None: all."""
        self._connection = connection
        self._tables = tables
        self._keys = keys
        self._names = {
            (storable_text(table.namespace), storable_text(collection)): (table.namespace, collection)
            for table in private
            for collection in table.collections
        }
        """Namespace and collection by the form in which they are stored."""
        self._msp_id: str | None = connection.scalar(select(tables.private_member.c.msp_id)) if private else None
        """The organisation whose private data is held; None: none is, and private tables are empty."""

    def count(self) -> int:
        """Count the writes that `changes` reads."""
        if self._msp_id is None:
            return 0
        statement = self._writes().with_only_columns(func.count(), maintain_column_froms=True).order_by(None)
        return self._connection.scalar(statement) or 0

    def changes(self) -> Iterator[tuple[Row[Any], PrivateChange]]:
        """Yield what each write did, key by key, each key in ledger order; rows have the facts of the transaction."""
        if self._msp_id is None:
            return
        definitions = self._definitions()
        for row in self._connection.execute(self._writes().execution_options(yield_per=_FETCHED_ROWS)):
            namespace, collection = self._names[row.namespace, row.collection]
            key = LedgerKey(namespace, collection, bytes(row.key_hash))
            private_key: bytes | None = None
            value: bytes | None = None
            if row.effect == Effect.DELETE:
                effect = Effect.PURGE if row.kind == WriteKind.PURGE else Effect.DELETE
            elif row.private_key is not None and row.value is not None:
                effect, private_key, value = Effect.PUT, bytes(row.private_key), bytes(row.value)
            else:
                # Who joins misses values of before, too; with their blocks they were nothing to it.
                place = (row.block_number, row.tx_number, row.write_number)
                config = definitions[namespace].in_force(collection, place)
                missed = row.held is not None and is_member(config, self._msp_id)
                effect = Effect.MISSING if missed else Effect.DELETE
            yield row, PrivateChange(row.tx_number, row.write_number, key, effect, private_key, value, b"", None)

    def _writes(self) -> Select[Any]:
        key, history, value = self._tables.key, self._tables.private_hash, self._tables.private_value
        transaction = self._tables.transaction
        wanted = [
            tuple_(key.c.namespace, key.c.collection).in_(list(self._names)),
            history.c.effect.in_([int(Effect.PUT), int(Effect.DELETE)]),
            value.c.erased_block.is_(None),
        ]
        if self._keys is not None:
            wanted.append(history.c.key_id.in_(self._keys))
        statement = (
            select(key.c.namespace, key.c.collection, key.c.key.label("key_hash"), history.c.kind, history.c.effect)
            .add_columns(*(history.c[name] for name in _VERSION))
            .add_columns(value.c.key.label("private_key"), value.c.value, value.c.key_id.label("held"))
            .join_from(history, key, key.c.key_id == history.c.key_id)
            .join(transaction, _same(transaction, history, _PLACE[:2]))
            .outerjoin(value, _same(value, history, _VERSION))
            .where(*wanted)
            .order_by(*(history.c[name] for name in _VERSION))
        )
        return with_facts(statement, self._tables)

    def _definitions(self) -> dict[str, "_Definitions"]:
        """Read what defines the collections of each chaincode."""
        key, history = self._tables.key, self._tables.key_history
        fields = {collections_field_key(namespace): namespace for namespace, _ in self._names.values()}
        found = {namespace: _Definitions([], []) for namespace in fields.values()}
        statement = (
            select(key.c.key, history.c.value, *(history.c[name] for name in _PLACE))
            .join(history, history.c.key_id == key.c.key_id)
            .where(key.c.namespace == LIFECYCLE_NAMESPACE, key.c.collection == "", key.c.key.in_(list(fields)))
            .where(history.c.effect.in_([int(Effect.PUT), int(Effect.DELETE)]))
            .order_by(*(history.c[name] for name in _PLACE))
        )
        for field, content, block_number, tx_number, write_number in self._connection.execute(statement):
            of_chaincode = found[fields[bytes(field)]]
            of_chaincode.places.append((block_number, tx_number, write_number))
            of_chaincode.configs.append(decode_definition(None if content is None else bytes(content)))
        return found


class _Definitions(NamedTuple):
    """The collections that a chaincode had, and the writes that brought them, in their order."""

    places: list[tuple[int, int, int]]
    configs: list[tuple[CollectionConfig, ...]]

    def in_force(self, collection: str, place: tuple[int, int, int]) -> CollectionConfig | None:
        """Give a collection as it was defined before a write."""
        before = bisect_left(self.places, place)
        return find_collection(self.configs[before - 1] if before else (), collection)


def is_erased(tables: LedgerTables, entry: Table) -> ColumnElement[bool]:
    """Give the condition that the version that a row of `ledger_quarantine` or `sync_change` names was erased."""
    value = tables.private_value
    return exists().where(_same(value, entry, _VERSION), value.c.erased_block.is_not(None))


def erased_versions(
    tables: LedgerTables, definition: TableMapping, mapped: MappedTable, keys: Select[Any] | None, *, is_fresh: bool
) -> Select[Any]:
    """Select history rows of the versions that were erased, by names of columns; they have no values.

    Which tables of a collection had a row of such a version, and which of them took no value, went with its key. So the
    rows that there are stay, and of each nothing but that it is there, and whether it says that there was no value;
    the rest is made again. A value that was unfit has its entry in the quarantine. In a table that is new (`is_fresh`)
    all are made, as by a replay from a peer that has them no more.
    """
    key, value, transaction, identity = tables.key, tables.private_value, tables.transaction, tables.identity
    history, entry = mapped.history, tables.quarantine
    was_unfit = exists().where(
        entry.c.table_name == mapped.name, _same(entry, value, _VERSION), entry.c.closed_by.is_distinct_from("released")
    )
    without_value = or_(history.c.kvr_kind == "delete", was_unfit)
    places = [(storable_text(definition.namespace), storable_text(name)) for name in definition.collections]
    columns: dict[str, ColumnElement[Any]] = {
        **{name: value.c[name.removeprefix("kvr_")] for name in VERSION_COLUMNS},
        "kvr_tx_id": transaction.c.tx_id,
        "kvr_creator_msp_id": func.coalesce(identity.c.msp_id, ""),
        "kvr_kind": literal("erased") if is_fresh else case((without_value, "delete"), else_="erased"),
        ERASED_BLOCK: value.c.erased_block,
        ERASED_BY: value.c.erased_by,
    }
    statement = (
        select(*(column.label(name) for name, column in columns.items()))
        .join_from(value, key, key.c.key_id == value.c.key_id)
        .join(transaction, _same(transaction, value, _PLACE[:2]))
        .outerjoin(identity, identity.c.identity_id == transaction.c.creator_id)
        .where(value.c.erased_block.is_not(None), tuple_(key.c.namespace, key.c.collection).in_(places))
    )
    if keys is not None:
        statement = statement.where(value.c.key_id.in_(keys))
    if is_fresh:
        return statement
    return statement.join(history, and_(*(history.c[f"kvr_{name}"] == value.c[name] for name in _VERSION)))


def _same(one: Table, other: Table, names: Sequence[str]) -> ColumnElement[bool]:
    return and_(*(one.c[name] == other.c[name] for name in names))
