"""What a database needs before anything can run on it: tables, the built-in models, a key."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from client.errors import DispError
from disp_engine.digests import digest
from disp_engine.errors import InvalidRequestError
from disp_engine.registry import builtin_models, card_defaults, family, kind
from schemas.requests import ModelId
from storage.connect import open_job_store
from storage.interfaces import JobStore, ModelRecord
from storage.migrate import upgrade

TENANT = "default"


class NoBucket(DispError):
    """The bucket cannot be created: check DISP_ARTIFACTS_URL and DISP_S3_…."""


def prepare_database(url: str) -> JobStore:
    """Bring the database to this version and register the built-in models; the caller closes."""
    upgrade(url)
    store = open_job_store(url)
    for card in builtin_models():
        fields = ("id", "family", "revision", "defaults")
        store.register_model(ModelRecord(path=str(card["path"]), **{k: card[k] for k in fields}))
    return store


def registration(model_id: str, folder: Path, sha256: Mapping[str, str]) -> ModelRecord:
    """Return what a verified folder is registered as; `sha256` are its files' by their names."""
    try:
        known = TypeAdapter(ModelId).validate_python(model_id)
    except ValidationError as error:
        raise InvalidRequestError(
            f"{model_id!r} cannot be a model's id; name one with --id."
        ) from error
    adapter = family(folder)
    return ModelRecord(
        id=known,
        family=adapter.__module__.removeprefix("disp_engine.models."),
        revision=digest(dict(sha256)),
        path=str(folder),
        defaults=card_defaults(folder),
        kind=kind(folder),
    )


def issue_key(url: str, tenant: str, scopes: Sequence[str]) -> str:
    """Prepare the database; a new API key of the tenant's."""
    store = prepare_database(url)
    try:
        return store.issue_key(tenant, scopes)
    finally:
        store.close()


def make_bucket(url: str) -> None:
    """Create the bucket of `s3://BUCKET/…` unless it is there; raises `NoBucket`."""
    from botocore.exceptions import BotoCoreError, ClientError

    from storage.s3 import create_bucket
    from storage.settings import S3Settings

    try:
        create_bucket(url, S3Settings())
    except (ValueError, BotoCoreError, ClientError) as error:
        raise NoBucket(f"{NoBucket.__doc__} [{error}]") from error
