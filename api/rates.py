"""How many requests a tenant may send: a sliding minute, shared by all gateways through Redis.

Redis holds nothing that matters: while it is away, each gateway counts for itself.
"""

import math
import time
from urllib.parse import urlsplit

import structlog
from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import RateLimiter, SlidingWindowCounterRateLimiter

from api.errors import RateLimited
from schemas.tasks import KEY_PREFIX

log = structlog.get_logger()
REDIS_SCHEMES = frozenset({"redis", "rediss"})
PATIENCE_S = 0.25
LEFT_ALONE_S = 10.0


class RateLimit:
    """Counts requests by tenant; a shared counter that fails is left alone for a while."""

    def __init__(self, per_minute: int, shared: RateLimiter | None = None) -> None:
        """Allow `per_minute` requests in any sixty seconds."""
        self._item = RateLimitItemPerMinute(per_minute)
        self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._shared = shared
        self._shared_again_at = 0.0

    def check(self, tenant: str) -> None:
        """Count a request, or raise `RateLimited` with the seconds to wait."""
        if self._shared is not None and time.monotonic() >= self._shared_again_at:
            try:
                self._count(self._shared, tenant)
            except StorageError as error:
                self._shared_again_at = time.monotonic() + LEFT_ALONE_S
                log.warning("rate_limit_not_shared", error=repr(error))
            else:
                return
        self._count(self._own, tenant)

    def _count(self, limiter: RateLimiter, tenant: str) -> None:
        if not limiter.hit(self._item, tenant):
            reset_at = limiter.get_window_stats(self._item, tenant).reset_time
            wait_s = max(1, math.ceil(reset_at - time.time()))
            raise RateLimited({"Retry-After": str(wait_s)})


def open_rate_limit(per_minute: int, broker_url: str | None) -> RateLimit:
    """Return a limit that is shared through the broker if that is a Redis."""
    if broker_url is None or urlsplit(broker_url).scheme not in REDIS_SCHEMES:
        return RateLimit(per_minute)
    storage = RedisStorage(
        broker_url,
        key_prefix=f"{KEY_PREFIX}rates",
        wrap_exceptions=True,
        socket_timeout=PATIENCE_S,
        socket_connect_timeout=PATIENCE_S,
    )
    return RateLimit(per_minute, SlidingWindowCounterRateLimiter(storage))
