"""Requests that ask for what is not theirs, or for too much, or in an impossible way."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.hostile.inputs import CallInput
from tests.hostile.service import Answer, Service

JOBS, HOOKS, FILES = "/v1/defense/jobs", "/v1/webhook_endpoints", "/v1/files"
JSON = "Content-Type: application/json\r\n"
REFUSED_URLS = {
    "http": "http://hooks.example/",
    "file": "file:///etc/passwd",
    "gopher": "gopher://hooks.example/",
    "no_host": "https:///x",
    "loopback": "https://127.0.0.1/",
    "loopback_ipv6": "https://[::1]/",
    "mapped_ipv6": "https://[::ffff:127.0.0.1]/",
    "nat64": "https://[64:ff9b::7f00:1]/",
    "six_to_four": "https://[2002:7f00:1::]/",
    "metadata_service": "https://169.254.169.254/latest/meta-data/",
    "private_10": "https://10.0.0.1/",
    "private_172": "https://172.16.0.1/",
    "private_192": "https://192.168.0.1/",
    "carrier_nat": "https://100.64.0.1/",
    "everywhere": "https://0.0.0.0/",
    "multicast": "https://224.0.0.1/",
    "link_local_ipv6": "https://[fe80::1]/",
    "unique_local_ipv6": "https://[fd00::1]/",
    "zone": "https://[fe80::1%25eth0]/",
    "user": "https://user:secret@hooks.example/",
    "fragment": "https://hooks.example/#x",
    "impossible_port": "https://hooks.example:99999/",
}
MODELS = {
    "traversal": "../../etc",
    "absolute": "/etc/passwd",
    "url": "https://hub.example/m",
    "hub_revision": "org/x@main",
    "too_long": "a" * 200,
    "nul": "a\0b",
}


def job_body(service: Service, **changes: Any) -> dict[str, Any]:
    return {"model": "disp-tiny-llada-v", "training_file": service.file_id} | changes


def job(**changes: Any) -> Callable[[Service], Answer]:
    return lambda service: service.post(JOBS, job_body(service, **changes))


def job_text(old: str, new: str) -> Callable[[Service], Answer]:
    """A job whose JSON text is changed by hand."""

    def send(service: Service) -> Answer:
        text = json.dumps(job_body(service, seed=1))
        assert old in text
        return service.post(JOBS, text.replace(old, new, 1).encode())

    return send


def get(path: str, *, key: str = "key", **headers: str) -> Callable[[Service], Answer]:
    def send(service: Service) -> Answer:
        where = path.format(job=service.job_id, file=service.file_id, upload=service.upload_id)
        return service.answer("GET", where, None, headers, key=getattr(service, key))

    return send


def call(method: str, path: str, key: str = "stranger") -> Callable[[Service], Answer]:
    def send(service: Service) -> Answer:
        where = path.format(job=service.job_id, file=service.file_id, upload=service.upload_id)
        return service.answer(method, where, key=getattr(service, key))

    return send


def zeros(size: int) -> Iterator[bytes]:
    for _ in range(size >> 16):
        yield bytes(1 << 16)


def chunked_job(service: Service) -> Answer:
    """A body without a length that is longer than a request may be."""
    return service.answer("POST", JOBS, zeros(2 << 20), {"Content-Type": "application/json"})


def long_job(service: Service) -> Answer:
    body = b'{"suffix": "' + b"a" * (2 << 20) + b'"}'
    return service.post(JOBS, body)


def lying_length(service: Service) -> Answer:
    """A length of digits without end."""
    head = f"POST {JOBS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key}\r\n{JSON}"
    return service.raw(f"{head}Content-Length: {'9' * 19}\r\n\r\n".encode())


def two_lengths(service: Service) -> Answer:
    head = f"POST {JOBS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key}\r\n{JSON}"
    return service.raw(f"{head}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}x".encode())


def slow_body(service: Service) -> Answer:
    """A body that stops coming (the service under test waits two seconds)."""
    head = f"POST {JOBS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key}\r\n{JSON}"
    return service.raw(f"{head}Content-Length: 100\r\n\r\n{{".encode())


def huge_header(service: Service) -> Answer:
    """A header that has not ended after a hundred thousand bytes."""
    return service.raw(f"GET {FILES} HTTP/1.1\r\nHost: x\r\nX-Long: {'a' * 100_000}".encode())


def upload_as(content: bytes, **kwargs: Any) -> Callable[[Service], Answer]:
    def send(service: Service) -> Answer:
        status, body = service.form(content, **kwargs)
        return status, json.loads(body).get("error", {}).get("code")

    return send


def two_files(service: Service) -> Answer:
    part = '--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nb\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    return service.answer("POST", FILES, f"{part}{part}--x--\r\n".encode(), kind)


def without_boundary(service: Service) -> Answer:
    return service.answer("POST", FILES, b"x", {"Content-Type": "multipart/form-data"})


def reused_key(service: Service) -> Answer:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "the-same"}
    for seed in (1, 2):
        body = json.dumps(job_body(service, seed=seed)).encode()
        status, answer = service.send("POST", JOBS, body, headers)
        if seed == 1:
            job_id = json.loads(answer)["id"]
            service.json("POST", f"{JOBS}/{job_id}/cancel")
    return status, json.loads(answer)["error"]["code"]


def part(number: str, content: bytes, digest: str | None = None) -> Callable[[Service], Answer]:
    def send(service: Service) -> Answer:
        headers = {} if digest is None else {"Content-Digest": digest}
        path = f"/v1/uploads/{service.upload_id}/parts/{number}"
        return service.answer("PUT", path, content, headers)

    return send


def completed(**announced: str) -> Callable[[Service], Answer]:
    return lambda service: service.post(f"/v1/uploads/{service.upload_id}/complete", announced)


def escape(name: str) -> Callable[[Service], Answer]:
    """An artifact that is not one."""
    return get(f"{JOBS}/{{job}}/artifacts/{name}")


def foreign_file(service: Service) -> Answer:
    return service.post(JOBS, job_body(service) | {"training_file": service.foreign_file_id})


def hook(url: str) -> Callable[[Service], Answer]:
    return lambda service: service.post(HOOKS, {"url": url})


def without_key(value: str) -> Callable[[Service], Answer]:
    return lambda service: service.answer("GET", FILES, None, {"Authorization": value})


def text_as_json(service: Service) -> Answer:
    body = json.dumps(job_body(service)).encode()
    return service.answer("POST", JOBS, body, {"Content-Type": "text/plain"})


_INVALID = (422, "validation_error")
_BAD = (400, "bad_request")
_NOT_FOUND = (404, "not_found")
_NOBODY = (401, "unauthenticated")
_INPUTS: list[tuple[str, Callable[[Service], Answer], tuple[int, str | None]]] = [
    ("without_key", without_key("-"), _NOBODY),
    ("wrong_key", without_key("Bearer disp_x_y"), _NOBODY),
    ("basic_instead_of_bearer", without_key("Basic YTpi"), _NOBODY),
    ("empty_bearer", without_key("Bearer "), _NOBODY),
    ("very_long_key", without_key("Bearer " + "a" * 5000), _NOBODY),
    (
        "submitting_with_a_reader",
        call("POST", "/v1/uploads/{upload}/cancel", "reader"),
        (403, "forbidden"),
    ),
    ("administration_without_right", get("/v1/api_keys"), (403, "forbidden")),
    ("job_of_another_tenant", get(f"{JOBS}/{{job}}", key="stranger"), _NOT_FOUND),
    ("events_of_another_tenant", get(f"{JOBS}/{{job}}/events", key="stranger"), _NOT_FOUND),
    ("file_of_another_tenant", get(f"{FILES}/{{file}}/content", key="stranger"), _NOT_FOUND),
    ("upload_of_another_tenant", get("/v1/uploads/{upload}", key="stranger"), _NOT_FOUND),
    ("deleting_another_tenants_file", call("DELETE", f"{FILES}/{{file}}"), _NOT_FOUND),
    ("cancelling_another_tenants_job", call("POST", f"{JOBS}/{{job}}/cancel"), _NOT_FOUND),
    ("training_on_another_tenants_file", foreign_file, (422, "file_not_found")),
    ("setting_the_tenant", job(tenant="globex"), _INVALID),
    ("setting_the_status", job(status="succeeded"), _INVALID),
    ("setting_the_id", job(id="job_" + "0" * 32), _INVALID),
    ("setting_the_result", job(result={"ok": True}), _INVALID),
    ("unknown_validation", job(validation="off"), _INVALID),
    ("unknown_method", job(method={"type": "__import__"}), _INVALID),
    ("negative_seed", job(seed=-1), _INVALID),
    ("seed_beyond_json", job(seed=2**63), _INVALID),
    ("text_for_a_number", job(seed="1"), _INVALID),
    ("seventeen_labels", job(metadata={str(n): "x" for n in range(17)}), _INVALID),
    ("nul_in_a_label", job(metadata={"a": "b\0"}), _INVALID),
    ("file_id_traversal", job(training_file="../../etc/passwd"), _INVALID),
    ("webhook_of_nobody", job(webhook="whe_" + "0" * 32), (422, "webhook_not_found")),
    *((f"model_{n}", job(model=m), _INVALID) for n, m in MODELS.items()),
    ("nan", job_text('"seed": 1', '"seed": NaN'), _BAD),
    ("infinity", job_text('"seed": 1', '"seed": Infinity'), _BAD),
    ("number_too_large", job_text('"seed": 1', '"seed": 1e999'), _INVALID),
    ("duplicate_key", job_text('"seed": 1', '"seed": 1, "seed": 2'), _BAD),
    ("half_a_surrogate", job_text('"seed": 1', '"suffix": "\\ud800"'), _INVALID),
    ("very_deep", job_text('"seed": 1', '"seed": ' + "[" * 100_000), _BAD),
    ("empty_body", lambda s: s.post(JOBS, b""), _INVALID),
    ("no_json", lambda s: s.post(JOBS, b"{"), _BAD),
    ("not_utf8", lambda s: s.post(JOBS, b'{"model": "\xff"}'), _BAD),
    ("text_as_json", text_as_json, _INVALID),
    ("long_body", long_job, (413, "payload_too_large")),
    ("long_body_without_length", chunked_job, (413, "payload_too_large")),
    ("length_without_end", lying_length, (413, "payload_too_large")),
    ("two_lengths", two_lengths, (400, None)),
    ("huge_header", huge_header, (400, None)),
    ("no_archive", upload_as(b"GIF89a"), (415, "unsupported_format")),
    ("parquet", upload_as(b"PAR1" + bytes(600) + b"PAR1"), (415, "unsupported_format")),
    ("xz_archive", upload_as(b"\xfd7zXZ\0" + bytes(600)), (415, "unsupported_format")),
    ("zip_behind_a_picture", upload_as(b"\x89PNG" + b"PK\3\4"), (415, "unsupported_format")),
    ("results_as_upload", upload_as(b"PK\3\4", purpose="results"), _INVALID),
    ("two_files", two_files, _BAD),
    ("form_without_boundary", without_boundary, _BAD),
    ("reused_key", reused_key, (422, "idempotency_key_reused")),
    ("part_zero", part("0", b"x"), _INVALID),
    ("part_of_nothing", part("2", b"x"), _NOT_FOUND),
    ("part_too_long", part("1", b"12345"), (409, "upload_incomplete")),
    ("part_with_another_digest", part("1", b"1234", "sha-256=:AAAA:"), (422, "digest_mismatch")),
    ("incomplete_upload", completed(), (409, "upload_incomplete")),
    (
        "upload_too_large",
        lambda s: s.post(
            "/v1/uploads",
            {
                "bytes": 2**60,
                "filename": "x",
                "mime_type": "application/zip",
                "purpose": "fine-tune",
            },
        ),
        _INVALID,
    ),
    ("artifact_traversal", escape("..%2f..%2f..%2fetc%2fpasswd"), _NOT_FOUND),
    ("artifact_of_a_failed_job", escape("report.json"), (409, "job_not_finished")),
    ("nul_in_path", get(f"{JOBS}/%00"), _NOT_FOUND),
    ("path_traversal", get("/v1/../../etc/passwd"), _NOT_FOUND),
    ("limit_of_a_billion", get(f"{JOBS}?limit=1000000000"), _INVALID),
    ("limit_zero", get(f"{FILES}?limit=0"), _INVALID),
    ("cursor_injection", get(f"{JOBS}?after=%27%20OR%201=1--"), _INVALID),
    ("order_injection", get(f"{FILES}?order=desc;drop%20table%20jobs"), _INVALID),
    (
        "range_of_nothing",
        get(f"{FILES}/{{file}}/content", Range="bytes=999999-"),
        (416, "range_not_satisfiable"),
    ),
    ("unknown_method_of_http", call("BREW", JOBS), (405, "method_not_allowed")),
    *((f"webhook_{n}", hook(url), (422, "url_refused")) for n, url in REFUSED_URLS.items()),
]
CALLS = [CallInput(f"api_{n}", send, *expected) for n, send, expected in _INPUTS]
SLOW_CALLS = [CallInput("api_slow_body", slow_body, 408, "request_timeout")]
