import re

from tests.storage.world import TENANT


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
