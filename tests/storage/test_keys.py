import re

import pytest

from storage.errors import NotFound
from tests.storage.world import STRANGER, TENANT


def test_a_key_opens_its_tenant_until_it_is_revoked(store):
    token = store.issue_key(TENANT, scopes=("read",))
    assert re.fullmatch(r"disp_[0-9a-f]{32}_[A-Za-z0-9_-]{43}", token)
    key = store.authenticate(token)
    assert (key.tenant, key.scopes) == (TENANT, ("read",))
    store.revoke_key(key.id)
    assert store.authenticate(token) is None


def test_a_key_that_differs_in_one_letter_opens_nothing(store):
    token = store.issue_key(TENANT)
    other = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert [store.authenticate(text) for text in (other, token + "A", "", "disp__")] == [None] * 4


def test_the_database_does_not_hold_the_secret(store):
    token = store.issue_key(TENANT)
    secret = token[-43:]
    with store._engine.begin() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM api_keys").all()
    assert len(rows) == 1 and secret not in str(rows)


def test_a_rotated_key_has_a_successor_at_once_and_ends_after_its_grace(store):
    token = store.issue_key(TENANT, scopes=("read", "admin"))
    key_id = store.authenticate(token).id
    successor = store.rotate_key(key_id, grace_s=3600.0)
    assert store.authenticate(successor.token) == successor.key
    assert (successor.key.tenant, successor.key.scopes) == (TENANT, ("read", "admin"))
    assert store.authenticate(token).expires_at is not None
    store.rotate_key(key_id, grace_s=0.0)
    assert store.authenticate(token) is None
    with pytest.raises(NotFound):
        store.rotate_key(key_id, grace_s=3600.0)


def test_a_tenant_neither_lists_nor_ends_another_ones_keys(store):
    mine = store.create_key(TENANT, ("read",)).key
    theirs = store.create_key(STRANGER, ("read",)).key
    assert [key.id for key in store.list_keys(TENANT)] == [mine.id]
    assert [key.id for key in store.list_keys()] == [mine.id, theirs.id]
    for refused in (
        lambda: store.revoke_key(theirs.id, TENANT),
        lambda: store.rotate_key(theirs.id, grace_s=0.0, tenant=TENANT),
        lambda: store.revoke_key("0" * 32),
    ):
        with pytest.raises(NotFound):
            refused()
    store.revoke_key(mine.id, TENANT)
    assert store.list_keys(TENANT)[0].revoked_at is not None
    with pytest.raises(NotFound):
        store.rotate_key(mine.id, grace_s=0.0)
