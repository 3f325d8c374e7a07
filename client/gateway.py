"""The gateway on a socket that its parent holds.

While a killed gateway is started again, new connections wait in the socket's backlog instead of
being refused: `python -m client.gateway FD`.
"""

import socket
import sys

import uvicorn

STREAM_GRACE_S = 3
"""Event streams end with their jobs, not with us: they are cut, and taken up at our successor."""


def main(descriptor: int) -> None:
    """Serve until SIGTERM."""
    listener = socket.socket(fileno=descriptor)
    config = uvicorn.Config(
        "api.app:create_app",
        factory=True,
        log_level="info",
        timeout_graceful_shutdown=STREAM_GRACE_S,
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(int(sys.argv[1]))
