"""What a database needs before anything can run on it: tables, the built-in models, a key."""

from disp_engine.registry import builtin_models
from storage.connect import open_job_store
from storage.interfaces import JobStore, ModelRecord
from storage.migrate import upgrade

TENANT = "default"


def prepare_database(url: str) -> JobStore:
    """Bring the database to this version and register the built-in models; the caller closes."""
    upgrade(url)
    store = open_job_store(url)
    for card in builtin_models():
        fields = ("id", "family", "revision", "defaults")
        store.register_model(ModelRecord(path=str(card["path"]), **{k: card[k] for k in fields}))
    return store


def issue_key(url: str, tenant: str) -> str:
    """Prepare the database; a new API key of the tenant's."""
    store = prepare_database(url)
    try:
        return store.issue_key(tenant)
    finally:
        store.close()
