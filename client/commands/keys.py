"""`disp keys`: the operator's hand on API keys, in the database itself.

A tenant's administrator does the same for its own keys over HTTP, at `/v1/api_keys`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.options import Json
from client.commands.output import print_json
from schemas.keys import WEEK_S, KeyScope

if TYPE_CHECKING:
    from storage.interfaces import ApiKey, IssuedKey, JobStore

app = typer.Typer(help="Issue, list, revoke and rotate API keys.", no_args_is_help=True)

DatabaseUrl = Annotated[
    str, typer.Option(envvar="DISP_DATABASE_URL", show_envvar=True, help="The job store.")
]
KeyId = Annotated[str, typer.Argument(help="The 32 digits in the middle of the key.")]


@app.command("issue")
def issue(
    database_url: DatabaseUrl,
    tenant: Annotated[str, typer.Option(help="Whose key it is.")] = "default",
    scope: Annotated[
        list[KeyScope] | None, typer.Option(help="What it may do; repeatable [read, submit].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Create a key and print it; it cannot be had again."""
    with open_store(database_url) as store:
        show_issued(store.create_key(tenant, scope or [KeyScope.READ, KeyScope.SUBMIT]), as_json)


@app.command("list")
def list_keys(
    database_url: DatabaseUrl,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    as_json: Json = False,
) -> None:
    """List keys, those that have ended too, without their secrets."""
    with open_store(database_url) as store:
        keys = store.list_keys(tenant)
    if as_json:
        print_json([facts(key) for key in keys])
        return
    for key in keys:
        print(f"{key.id}  {key.tenant}  {','.join(key.scopes)}  {state(key)}")


@app.command("revoke")
def revoke(key_id: KeyId, database_url: DatabaseUrl) -> None:
    """End a key at once."""
    with open_store(database_url) as store:
        store.revoke_key(key_id)


@app.command("rotate")
def rotate(
    key_id: KeyId,
    database_url: DatabaseUrl,
    grace: Annotated[
        int, typer.Option(min=0, max=WEEK_S, help="Seconds for which the old key still opens.")
    ] = 24 * 3600,
    as_json: Json = False,
) -> None:
    """Create a key with the same owner and scopes; the old one ends after the grace."""
    with open_store(database_url) as store:
        show_issued(store.rotate_key(key_id, grace_s=grace), as_json)


@contextmanager
def open_store(database_url: str) -> "Iterator[JobStore]":
    """Open the job store for one command."""
    from storage.connect import open_job_store

    store = open_job_store(database_url)
    try:
        yield store
    finally:
        store.close()


def show_issued(issued: "IssuedKey", as_json: bool) -> None:
    """Print a new key, this one time."""
    if as_json:
        print_json(facts(issued.key) | {"key": issued.token})
    else:
        print(issued.token)


def facts(key: "ApiKey") -> dict[str, object]:
    """What may be told of a key."""
    return {
        "id": key.id,
        "tenant": key.tenant,
        "scopes": list(key.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


def state(key: "ApiKey") -> str:
    """`valid`, or when and how it ends."""
    if key.revoked_at is not None:
        return f"revoked {moment(key.revoked_at)}"
    return "valid" if key.expires_at is None else f"ends {moment(key.expires_at)}"


def moment(seconds: float) -> str:
    """A time for people, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
