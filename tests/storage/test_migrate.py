import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from storage import migrate
from storage.connect import open_job_store
from storage.errors import MigrationMissing, StoreAway
from storage.sql.engine import open_engine
from storage.sql.tables import Base
from tests.parts.disk import DURABLE


def test_the_migrations_lead_to_the_tables_that_the_code_declares(database):
    engine = open_engine(database)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        columns = {
            table: {(c["name"], c["nullable"]) for c in inspect(connection).get_columns(table)}
            for table in Base.metadata.tables
        }
    for name, table in Base.metadata.tables.items():
        assert columns[name] == {(c.name, c.nullable) for c in table.columns}
    engine.dispose()


def test_jobs_of_the_first_schema_are_found_by_their_labels(tmp_path):
    url = f"sqlite:///{tmp_path}/old.sqlite"
    engine = open_engine(url)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        request = {"model": "m", "training_file": f"file_{0:032x}", "metadata": {"team": "red"}}
        connection.execute(
            text(
                "INSERT INTO jobs (id, tenant, status, request, model, training_file, created_at,"
                " attempt, losses) VALUES ('job_1', 'acme', 'failed', :request, 'm', 'f', 1, 2, 0)"
            ),
            {"request": json.dumps(request)},
        )
    engine.dispose()
    migrate.upgrade(url)
    store = open_job_store(url)
    (job,) = store.list_jobs("acme", metadata={"team": "red"}).data
    assert (job.id, job.usage.worker_seconds, job.retry_of) == ("job_1", 0.0, None)
    store.close()


def test_processes_that_migrate_at_once_do_not_disturb_one_another(tmp_path):
    url = f"sqlite:///{tmp_path}/new.sqlite"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate.upgrade, [url] * 4))
    open_job_store(url).close()


def test_a_database_that_was_never_migrated_is_refused(tmp_path):
    with pytest.raises(MigrationMissing):
        open_job_store(f"sqlite:///{tmp_path}/empty.sqlite")


def test_a_locked_database_is_away_for_the_moment(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/jobs.sqlite"
    migrate.upgrade(url)
    monkeypatch.setattr("storage.sql.engine.SQLITE_PRAGMAS", ("PRAGMA busy_timeout=10",))
    store, rival = open_job_store(url), open_engine(url)
    with rival.begin(), pytest.raises(StoreAway):
        store.ping()
    store.ping()
    store.close()
    rival.dispose()


def test_sqlite_is_durable_and_patient(tmp_path, monkeypatch):
    monkeypatch.setattr("storage.sql.engine.SQLITE_PRAGMAS", DURABLE)
    database = f"sqlite:///{tmp_path}/jobs.sqlite"
    engine = open_engine(database)
    with engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }
    engine.dispose()
    full = 2
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": full,
        "busy_timeout": 30000,
        "foreign_keys": 1,
    }


def test_every_step_from_the_first_schema_on_keeps_what_is_there(empty_database):
    migrate.upgrade(empty_database, "0001")
    engine = open_engine(empty_database)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO files (id, tenant, filename, purpose, key, bytes, sha256, created_at)"
            " VALUES ('file_1', 'acme', 'a.zip', 'fine-tune', 'k', 3, 'ab', 1.0),"
            " ('file_2', 'acme', 'p.safetensors', 'checkpoint', 'l', 3, 'cd', 2.0)"
        )
    engine.dispose()
    with pytest.raises(MigrationMissing):
        open_job_store(empty_database)
    migrate.upgrade(empty_database)
    migrate.upgrade(empty_database)
    store = open_job_store(empty_database)
    assert store.get_file("acme", "file_1").filename == "a.zip"
    waiting = {file.id: file.status for file in store.list_files("acme").data}
    assert waiting == {"file_1": "uploaded", "file_2": "processed"}
    assert store.reconcile().file_hints == ("file_1",), "nobody has ever read it"
    store.close()
