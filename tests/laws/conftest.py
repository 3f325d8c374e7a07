import pytest

from storage.connect import open_artifact_store


@pytest.fixture(params=["memory", "local"])
def artifacts(request, tmp_path):
    urls = {"memory": "memory://", "local": f"file://{tmp_path}/artifacts"}
    return open_artifact_store(urls[request.param])
