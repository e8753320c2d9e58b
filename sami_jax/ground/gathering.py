"""The processes of a run on their way to each other: after a minute, what is missing is said, for a wait by itself tells nothing.

jax waits in native code, and its coordinator names those that are missing only once it has given up. What can be seen before:
whether the coordinator's name is known, whether its port answers, and in the first process, from where others have connected.
"""

import contextlib
import ipaddress
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

QUIET = 60  # seconds of waiting that need no word
_CONNECT = 5  # seconds that a port may take to answer
_ESTABLISHED = "01"  # Linux, include/net/tcp_states.h


@contextlib.contextmanager
def watched(missing: Callable[[], str]) -> Iterator[None]:
    """Until the block is left; `missing` is asked once, after a minute, and said."""
    done = threading.Event()

    def watch() -> None:
        if not done.wait(QUIET):
            from sami_jax.ground.terminal import say  # heavy

            say(f"WARNING: after {QUIET} s, the processes of this run are not together: {missing()}")

    threading.Thread(target=watch, name="gathering", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def what_is_missing(coordinator: str | None, first: bool, count: int | None, root: Path = Path("/")) -> str:
    """In words, for one line.

    Args:
      coordinator: HOST:PORT, as far as it is known.
      first: whether this process is the one that listens there.
      count: of all processes.
      root: below which /proc is.
    """
    if coordinator is None:
        name = _announced()
        if name is None:
            return "neither the machine's metadata nor the scheduler has told yet where the coordinator is"
        return f"coordinator {name}: {_named(name) or 'its name is known now'}"
    host, _, port = coordinator.rpartition(":")
    if first:
        found = connections(int(port), root)
        several = f" of {count}" if count else ""
        return f"{len(found)}{several} have reached {coordinator}{f' (from {_some(found)})' if found else ''}"
    host = host.strip("[]")
    if unknown := _named(host):
        return f"coordinator {coordinator}: {unknown}"
    try:
        socket.create_connection((host, int(port)), _CONNECT).close()
    except OSError as error:
        why = error.strerror or "no answer"
        return f"coordinator {coordinator}: {why}; process 0 has not started, or the network between the hosts lets no TCP to port {port}"
    return f"coordinator {coordinator} answers, others are missing; process 0 says which are there"


def _announced() -> str | None:
    """The coordinator's name where GKE has put it into the environment, as jax reads it."""
    workers = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES") or ""
    told = os.environ.get("MEGASCALE_COORDINATOR_ADDRESS") or workers.split(",")[0]
    return told.split(":")[0] or None


def _named(host: str) -> str | None:
    """What is wrong with a name; None where it is known."""
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        return f"its name is not known here ({error.strerror})"
    return None


def connections(port: int, root: Path = Path("/")) -> list[str]:
    """Addresses that have connected to a port of this machine, one for each connection."""
    found = []
    for name in ("tcp", "tcp6"):
        file = root / "proc/net" / name
        lines = file.read_text(encoding="ascii").splitlines()[1:] if file.exists() else []
        for _, here, there, state, *_ in map(str.split, lines):
            if state == _ESTABLISHED and int(here.rpartition(":")[2], 16) == port:
                found.append(_address(there.rpartition(":")[0]))
    return sorted(found)


def _address(text: str) -> str:
    """Of /proc/net/tcp, which has words of 32 bits in the order of the machine."""
    words = (bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8))
    address = ipaddress.ip_address(b"".join(words))
    return str(getattr(address, "ipv4_mapped", None) or address)


def _some(addresses: list[str]) -> str:
    names = list(dict.fromkeys(addresses))
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
