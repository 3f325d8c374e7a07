"""One of Swift's servers, or their rings: run as a process of its own by `tests.parts.swift`.

Swift patches its process for eventlet and reads its configuration's path while it is imported.
"""

import sys
from pathlib import Path

import swift.common.utils

FOLDER = Path(sys.argv[2])
swift.common.utils.SWIFT_CONF_FILE = str(FOLDER / "swift.conf")

from swift.common.ring import RingBuilder  # noqa: E402 - reads the path
from swift.common.wsgi import run_wsgi  # noqa: E402 - likewise


def build_ring(name: str, port: int) -> None:
    builder = RingBuilder(4, 1, 0)
    address = {"ip": "127.0.0.1", "port": port}
    replication = {"replication_ip": "127.0.0.1", "replication_port": port}
    place = {"region": 1, "zone": 1, "weight": 1.0, "device": "disk"}
    builder.add_dev({**place, **address, **replication})
    builder.rebalance()
    builder.get_ring().save(str(FOLDER / f"{name}.ring.gz"))


def serve(name: str) -> int:
    options = {}
    if name == "object":
        from swift.obj import server

        options = {"global_conf_callback": server.global_conf_callback}
    return int(run_wsgi(str(FOLDER / f"{name}.conf"), f"{name}-server", **options))


if __name__ == "__main__":
    if sys.argv[1] == "rings":
        for ring in sys.argv[3:]:
            name, port = ring.split(":")
            build_ring(name, int(port))
    else:
        sys.exit(serve(sys.argv[3]))
