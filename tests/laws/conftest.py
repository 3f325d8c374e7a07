import pytest

from storage.connect import open_artifact_store
from storage.settings import S3Settings


@pytest.fixture(params=["memory", "local", "s3"])
def artifacts(request, tmp_path):
    if request.param == "s3":
        s3 = request.getfixturevalue("s3")
        return open_artifact_store(f"{s3.url}/prefix", s3_settings(s3))
    urls = {"memory": "memory://", "local": f"file://{tmp_path}/artifacts"}
    return open_artifact_store(urls[request.param])


def s3_settings(s3):
    return S3Settings(
        endpoint=s3.endpoint,
        region=s3.region,
        access_key_id=s3.access_key_id,
        secret_access_key=s3.secret_access_key,
    )
