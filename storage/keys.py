"""Where things lie in the artifact store."""


def upload_key(tenant: str, file_id: str) -> str:
    """Return the key of an uploaded file's bytes."""
    return f"tenants/{tenant}/files/{file_id}"


def artifact_key(tenant: str, job_id: str, attempt: int, name: str) -> str:
    """Return the key of one artifact of one attempt; attempts never share a key."""
    return f"tenants/{tenant}/jobs/{job_id}/attempts/{attempt}/{name}"


def job_prefix(tenant: str, job_id: str) -> str:
    """Return what the keys of all that a job has stored begin with."""
    return f"tenants/{tenant}/jobs/{job_id}/"


def manifest_key(tenant: str, job_id: str, attempt: int) -> str:
    """Return the key of what an attempt has published; the job's row names the one that counts."""
    return f"tenants/{tenant}/jobs/{job_id}/attempts/{attempt}/manifest.json"


def shard_key(tenant: str, job_id: str, folder: str, first: int, last: int) -> str:
    """Return the key of a shard's files; it names their content, so attempts share it."""
    return f"{shards_prefix(tenant, job_id)}{folder}/{first}-{last}"


def shards_prefix(tenant: str, job_id: str) -> str:
    """Return what the keys of a job's shards begin with; they go when the job has ended."""
    return f"{job_prefix(tenant, job_id)}shards/"
