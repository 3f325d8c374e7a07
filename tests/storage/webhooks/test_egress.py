import asyncio
import ssl
import time
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

import pytest
import trustme

from storage.webhooks.egress import MAX_ANSWER_BYTES, Egress, NotReached, UrlRefused, is_public
from tests.storage.webhooks.receiver import Receiver, drip, receiving

PUBLIC = "93.184.216.34"


class Dns:
    """A resolver that answers from a script and counts its questions."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0)


def post(egress: Egress, url: str) -> int:
    return asyncio.run(egress.post(url, b"{}", {"webhook-id": "evt_1"}))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:db8::1",
    ],
)
def test_addresses_that_are_not_the_open_internets_are_told_apart(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700::1111"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https:///hook",
        "https://user@example.com/",
        "https://user:word@example.com/",
        "https://example.com/#part",
        "https://example.com:99999/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://169.254.169.254/latest/meta-data",
        "https://[fe80::1%25eth0]/",
        "https://[bad/",
    ],
)
def test_a_url_that_can_be_seen_to_be_wrong_is_refused_before_any_question_to_dns(url: str) -> None:
    with pytest.raises(UrlRefused):
        Egress().check(url)


def test_a_name_is_refused_if_any_one_of_its_addresses_is_private() -> None:
    dns = Dns([PUBLIC, "127.0.0.1"])
    with pytest.raises(UrlRefused):
        post(Egress(resolve=dns), "https://hook.example/")


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "localhost"])
def test_an_address_in_disguise_is_refused_once_the_system_has_resolved_it(host: str) -> None:
    with pytest.raises(UrlRefused):
        post(Egress(), f"https://{host}/")


def test_a_name_is_resolved_once_and_the_judged_address_is_the_one_connected_to(
    receiver: Receiver,
) -> None:
    dns = Dns(["127.0.0.1"], ["192.0.2.1"])
    egress = Egress(allow_local=True, resolve=dns)
    assert post(egress, f"http://hook.example:{receiver.port}/path?q=1") == 200
    assert dns.asked == ["hook.example"]
    (seen,) = receiver.seen
    assert seen.path == "/path?q=1"
    assert seen.headers["host"] == f"hook.example:{receiver.port}"


def test_rebinding_does_not_turn_a_public_name_into_a_private_connection(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First answer public, second private: the second is never asked for."""
    dns = Dns([PUBLIC], ["127.0.0.1"])
    egress = Egress(resolve=dns, total_s=0.5)
    with pytest.raises(NotReached):
        post(egress, f"https://hook.example:{receiver.port}/")
    assert dns.asked == ["hook.example"] and receiver.seen == []


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    with receiving() as inside:
        receiver.status, receiver.headers = 302, {"Location": inside.url}
        assert post(Egress(allow_local=True), receiver.url) == 302
        assert len(receiver.seen) == 1 and inside.seen == []


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[Receiver]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("hook.example").configure_cert(context)
    with receiving(context) as receiver:
        yield receiver


def test_tls_is_spoken_with_the_name_although_the_address_is_called(
    secure: Receiver, authority: trustme.CA
) -> None:
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    dns = Dns(["127.0.0.1"], ["127.0.0.1"])
    egress = Egress(allow_local=True, resolve=dns, tls=trusted)
    assert post(egress, f"https://hook.example:{secure.port}/") == 200
    assert secure.seen[0].headers["host"] == f"hook.example:{secure.port}"
    with pytest.raises(NotReached):  # the certificate is for another name
        post(egress, f"https://other.example:{secure.port}/")
    assert len(secure.seen) == 1


def test_a_certificate_that_nobody_trusts_is_not_accepted(secure: Receiver) -> None:
    egress = Egress(allow_local=True, resolve=Dns(["127.0.0.1"]))
    with pytest.raises(NotReached):
        post(egress, f"https://hook.example:{secure.port}/")
    assert secure.seen == []


def test_an_endless_answer_is_not_read_to_its_end(receiver: Receiver) -> None:
    sent = []

    def endless() -> Iterator[bytes]:
        while True:
            sent.append(len(chunk := b"x" * 65536))
            yield chunk

    receiver.body = endless
    assert post(Egress(allow_local=True), receiver.url) == 200
    assert sum(sent) < 1000 * MAX_ANSWER_BYTES


def test_a_receiver_that_drips_is_left_when_the_total_time_is_over(receiver: Receiver) -> None:
    receiver.body = drip(30.0)
    began = time.monotonic()
    with pytest.raises(NotReached, match="TimeoutError"):
        post(Egress(allow_local=True, total_s=0.5), receiver.url)
    assert time.monotonic() - began < 5.0


def test_nobody_there_is_not_reached() -> None:
    with pytest.raises(NotReached):
        post(Egress(allow_local=True), "http://127.0.0.1:1/")


def test_a_name_without_addresses_is_not_reached() -> None:
    with pytest.raises(NotReached):
        post(Egress(resolve=Dns([])), "https://hook.example/")
