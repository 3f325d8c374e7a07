"""A small world in a job store: one model, files and jobs."""

from schemas.files import FilePurpose
from schemas.requests import DefenseJobCreate
from storage.ids import new_id
from storage.interfaces import FileDraft, JobStore, ModelRecord
from storage.keys import upload_key

TENANT, STRANGER = "acme", "globex"
MODEL = "tiny"


def register_tiny(store: JobStore) -> None:
    store.register_model(
        ModelRecord(MODEL, "llada_v", "r1", "/models/tiny", {"learning_rate": 1e-3})
    )


def add_training_file(store: JobStore, tenant: str) -> str:
    file_id = new_id("file")
    draft = FileDraft(
        id=file_id,
        filename="data.zip",
        purpose=FilePurpose.FINE_TUNE,
        key=upload_key(tenant, file_id),
        bytes=3,
        sha256="ab" * 32,
    )
    return store.add_file(tenant, draft).id


def add_job(store: JobStore, tenant: str = TENANT, **fields: object) -> str:
    training_file = fields.pop("training_file", None) or add_training_file(store, tenant)
    request = DefenseJobCreate(model=MODEL, training_file=training_file, **fields)
    return store.create_job(tenant, request).job.id


def expire_leases(store: JobStore) -> None:
    """Let every lease run out, as hours of silence would."""
    with store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET lease_until = 1 WHERE lease_until IS NOT NULL")
