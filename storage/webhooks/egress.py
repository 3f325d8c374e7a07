"""The way out to hosts that strangers name: to public addresses only, whatever DNS answers.

A name is resolved once; every address it has must be public; the connection goes to the very
address that was judged, with the name kept for TLS and the Host header. So a second answer of DNS
(rebinding) is never asked for, and a redirect is an answer like any other: nobody follows it.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

import httpx2

TOTAL_S = 15.0
TIMEOUT = httpx2.Timeout(10.0, connect=5.0)
MAX_ANSWER_BYTES = 64 * 1024
PORTS = {"https": 443, "http": 80}
EMBEDS_IPV4 = (IPv6Network("2002::/16"), IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class UrlRefused(Exception):
    """Webhooks go to https URLs of public hosts, without a user, a password or a fragment."""


class NotReached(Exception):
    """The receiver could not be reached, or did not answer in time."""


@dataclass(frozen=True)
class Destination:
    """A URL that may be called, taken apart."""

    parts: SplitResult
    host: str
    port: int


async def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver for all addresses of a host."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class Egress:
    """Posts to URLs that strangers chose.

    `allow_local` also lets it call http URLs and private addresses: for a receiver on one's own
    machine or network, never where tenants are not trusted.
    """

    def __init__(
        self,
        *,
        allow_local: bool = False,
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
        total_s: float = TOTAL_S,
    ) -> None:
        """Take the resolver and the trusted authorities, the system's by default."""
        self._allow_local = allow_local
        self._resolve = resolve
        self._given_tls = tls
        self._total_s = total_s

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The authorities; a gateway that only judges URLs never reads the system's."""
        return self._given_tls or ssl.create_default_context()

    def check(self, url: str) -> Destination:
        """Judge what can be seen without DNS; raises `UrlRefused`."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise UrlRefused(url) from error
        schemes = {"https", "http"} if self._allow_local else {"https"}
        if parts.scheme not in schemes or not host or "%" in host:
            raise UrlRefused(url)
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise UrlRefused(url)
        if (literal := _literal(host)) is not None:
            self._judge(literal)
        return Destination(parts, host, port or PORTS[parts.scheme])

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Send once and return the status; raises `UrlRefused` or `NotReached`.

        The whole exchange ends within the total time, and no more of the answer is read than
        `MAX_ANSWER_BYTES`.
        """
        destination = self.check(url)
        try:
            async with asyncio.timeout(self._total_s):
                address = await self._address_of(destination)
                return await self._exchange(destination, address, body, headers)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError) as error:
            raise NotReached(type(error).__name__) from error

    async def _address_of(self, destination: Destination) -> Address:
        if (literal := _literal(destination.host)) is not None:
            return literal
        found = await self._resolve(destination.host, destination.port)
        addresses = [ip_address(address.partition("%")[0]) for address in found]
        for address in addresses:
            self._judge(address)
        if not addresses:
            raise NotReached("the host has no address")
        return addresses[0]

    def _judge(self, address: Address) -> None:
        if not (self._allow_local or is_public(address)):
            raise UrlRefused(str(address))

    async def _exchange(
        self, destination: Destination, address: Address, body: bytes, headers: Mapping[str, str]
    ) -> int:
        parts = destination.parts
        host = f"[{address}]" if address.version == 6 else str(address)
        target = parts._replace(netloc=f"{host}:{destination.port}").geturl()
        transport = httpx2.AsyncHTTPTransport(verify=self._tls, trust_env=False, retries=0)
        async with httpx2.AsyncClient(
            transport=transport, timeout=TIMEOUT, follow_redirects=False, trust_env=False
        ) as client:
            request = client.build_request(
                "POST",
                target,
                content=body,
                headers={**headers, "Host": parts.netloc, "Accept-Encoding": "identity"},
                extensions={"sni_hostname": destination.host},
            )
            response = await client.send(request, stream=True)
            try:
                await _read_a_little(response)
            finally:
                await response.aclose()
            return int(response.status_code)


def is_public(address: Address) -> bool:
    """Tell whether an address is one of the open Internet's, and hides no other address."""
    if isinstance(address, IPv6Address) and (
        address.ipv4_mapped is not None
        or address.is_site_local
        or any(address in network for network in EMBEDS_IPV4)
    ):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


async def _read_a_little(response: httpx2.Response) -> None:
    """Take in a short answer whole; of a long one just the beginning."""
    read = 0
    async for chunk in response.aiter_raw():
        read += len(chunk)
        if read > MAX_ANSWER_BYTES:
            return
