"""Current tables are plain tables: what follows their replication ends equal, and object mappers find them complete."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, MetaData, create_engine, inspect, select
from sqlalchemy.ext.automap import automap_base
from sqlalchemy.orm import Session

from kvr_sync.jobs import SyncSettings, sync_once
from tests.support.logical_replica import LogicalReplica, by_key, keys_of, texts
from tests.support.postgresql import connect, fresh_database, own_server
from tests.support.recorded_chain import load_chain, write_records

WEEK = Path(__file__).parents[2] / "network" / "demo_data" / "service-week.mapping.yaml"
TABLES = ("customers", "service_requests", "service_request_tags")
SCHEMA = "consortium"


@pytest.fixture(scope="module")
def server_with_replication() -> Iterator[URL]:
    with own_server(durable=False, logical=True) as server:
        yield server


def test_a_reader_of_logical_replication_ends_equal(server_with_replication: URL, tmp_path: Path) -> None:
    chain = load_chain("fabric-3.1.5-service-week")
    with fresh_database(server_with_replication) as database:
        url = database.render_as_string(hide_password=False)
        sync_once(SyncSettings(write_records(tmp_path / "blocks", chain.blocks[:120]), url, WEEK))
        with connect(database) as session:
            listed = ", ".join(f"{SCHEMA}.{table}" for table in TABLES)
            session.execute(f"CREATE PUBLICATION crm FOR TABLE {listed}")  # type: ignore[call-overload]  # names of ours
            keys = {table: keys_of(session, SCHEMA, table) for table in TABLES}
            replica = LogicalReplica(session, "crm", "crm_reader")
            for table in TABLES:
                replica.start_with(table, keys[table], texts(session, SCHEMA, table))
            transactions = 0
            for height in (121, 200, 201, len(chain.blocks)):
                sync_once(SyncSettings(write_records(tmp_path / "blocks", chain.blocks[:height]), url, WEEK))
                transactions += replica.read()

                for table in TABLES:
                    assert replica.rows[table] == by_key(texts(session, SCHEMA, table), keys[table])
            replica.end()

    assert transactions >= 3
    assert all(replica.counts.values())


def test_object_mappers_find_the_tables_with_keys_types_and_indexes(service_week: str) -> None:
    schema = SCHEMA if service_week.startswith("postgresql") else None
    engine = create_engine(service_week.replace("postgresql://", "postgresql+psycopg://"))
    try:
        metadata = MetaData(schema=schema)
        metadata.reflect(engine, only=TABLES)
        base = automap_base(metadata=metadata)
        base.prepare()
        requests = base.classes.service_requests
        with Session(engine) as session:
            found = session.scalars(select(requests).where(requests.status == "open").order_by(requests.id)).all()
            again = session.get(requests, found[0].kvr_key_id)

        assert set(base.classes.keys()) == set(TABLES)
        assert again is not None
        assert again.external_id
        assert {request.status for request in found} == {"open"}
        assert found[0].opened_at is not None
        details = inspect(engine)
        assert details.get_pk_constraint("service_requests", schema=schema)["constrained_columns"] == ["kvr_key_id"]
        assert ["status"] in [index["column_names"] for index in details.get_indexes("service_requests", schema=schema)]
    finally:
        engine.dispose()
