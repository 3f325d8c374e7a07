"""Keys in the words of the wire."""

from collections.abc import Sequence

from schemas.keys import ApiKeyFacts, KeyScope, NewApiKey
from schemas.wire import Page
from storage.interfaces import ApiKey, IssuedKey


def facts(key: ApiKey) -> ApiKeyFacts:
    """Return what may be told of a key."""
    return ApiKeyFacts(
        id=key.id,
        scopes=[KeyScope(scope) for scope in key.scopes],
        created_at=int(key.created_at),
        expires_at=None if key.expires_at is None else int(key.expires_at),
        revoked_at=None if key.revoked_at is None else int(key.revoked_at),
    )


def new(issued: IssuedKey) -> NewApiKey:
    """Return a key with its full text, this one time."""
    return NewApiKey(**facts(issued.key).model_dump(), key=issued.token)


def page(keys: Sequence[ApiKey]) -> Page[ApiKeyFacts]:
    """Return all keys of a tenant, who has few."""
    first, last = (keys[0].id, keys[-1].id) if keys else (None, None)
    return Page(data=[facts(key) for key in keys], has_more=False, first_id=first, last_id=last)
