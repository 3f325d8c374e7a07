"""What a process gives up before it touches what strangers sent; where the system allows it."""

import ctypes
import fcntl
import os
import resource
import socket
import struct
import sys
from contextlib import suppress

_INTERFACE_UP = 1
_GET_FLAGS, _SET_FLAGS = 0x8913, 0x8914
_FLAGS_OF = "16sh22x"  # a struct ifreq
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000


def leave_network() -> bool:
    """Move this process, and all that it starts, to where there is no network; tells if it did.

    Linux lets root do so, and others where user namespaces are open to them. Call it while the
    process has one thread.
    """
    if sys.platform != "linux":
        return False
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    if libc.unshare(_NEW_NETWORK) == 0:
        return True
    if libc.unshare(_NEW_USER | _NEW_NETWORK) != 0:
        return False
    _keep_ids(user, group)
    return True


def raise_loopback() -> None:
    """Let processes talk to each other where this one has left the network, and to nobody else."""
    if sys.platform != "linux":
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        told = fcntl.ioctl(control, _GET_FLAGS, struct.pack(_FLAGS_OF, b"lo", 0))
        flags = struct.unpack(_FLAGS_OF, told)[1]
        if not flags & _INTERFACE_UP:
            asked = struct.pack(_FLAGS_OF, b"lo", flags | _INTERFACE_UP)
            fcntl.ioctl(control, _SET_FLAGS, asked)


def _keep_ids(user: int, group: int) -> None:
    """In a new user namespace one is nobody, until the ids are told to stay what they were.

    The rights to files stay either way.
    """
    maps = {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}
    for name, text in maps.items():
        with suppress(OSError), open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def limit_memory(size: int) -> None:
    """No more address space than `size` bytes, no core dumps, no file written."""
    for kind, value in (
        (resource.RLIMIT_AS, size),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def limit_time(seconds: int) -> None:
    """No more processor time than `seconds` from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    end = int(used.ru_utime + used.ru_stime) + seconds + 1
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (end, hard))
