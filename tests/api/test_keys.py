from tests.api.world import assert_problem

KEYS = "/v1/api_keys"


def test_an_administrator_issues_rotates_and_ends_keys_of_its_tenant(api):
    admin = api.key("acme", "admin")
    answer = api.client.post(KEYS, json={"scopes": ["read"]}, headers=admin)
    issued = answer.json()
    assert (answer.status_code, issued["object"], issued["scopes"]) == (201, "api_key", ["read"])

    def opens(key):
        headers = {"Authorization": f"Bearer {key['key']}"}
        return api.client.get("/v1/files", headers=headers).status_code == 200

    assert opens(issued)
    rotate = f"{KEYS}/{issued['id']}/rotate"
    successor = api.client.post(rotate, headers=admin).json()
    assert opens(issued) and opens(successor) and successor["scopes"] == ["read"]
    api.client.post(rotate, json={"grace_s": 0}, headers=admin)
    assert not opens(issued)
    ended = api.client.delete(f"{KEYS}/{successor['id']}", headers=admin)
    assert ended.json() == {"id": successor["id"], "object": "api_key", "deleted": True}
    assert not opens(successor)
    listed = api.client.get(KEYS, headers=admin).json()
    facts = {key["id"]: key for key in listed["data"]}
    assert facts[successor["id"]]["revoked_at"] and facts[issued["id"]]["expires_at"]
    assert successor["key"][-43:] not in str(listed)


def test_a_key_that_may_only_submit_makes_no_keys(api):
    assert_problem(api.client.post(KEYS, json={"scopes": ["admin"]}), 403, "forbidden")


def test_scopes_are_of_a_closed_list(api):
    admin = api.key("acme", "admin")
    for scopes in (["root"], ["metrics"], [], "read", ["read"] * 4):
        answer = api.client.post(KEYS, json={"scopes": scopes}, headers=admin)
        assert answer.status_code == 422, scopes
