"""A pod of hosts on this machine: each a network namespace with an address and a name of its own, and a shared folder.

Namespaces live as long as the process that holds them, so nothing is left behind. Needs root.
"""

import contextlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

from support.flags import environment

PORT = 8476
_TOOLS = ("unshare", "nsenter", "ip", "mount")


def can_be_made() -> bool:
    return all(map(shutil.which, _TOOLS)) and not subprocess.run(["unshare", "-n", "-u", "-m", "true"]).returncode


class Pod:
    """Hosts node0, node1, ... at 10.77.0.1, 10.77.0.2, ...; a context manager."""

    def __init__(self, folder: Path, count: int):
        self.folder, self.count = folder, count
        self.processes: dict[int, subprocess.Popen] = {}
        self._open = contextlib.ExitStack()
        self._hub, *self._hosts = (self._namespace() for _ in range(count + 1))
        self._within(self._hub, "ip", "link", "add", "br0", "type", "bridge")
        self._within(self._hub, "ip", "link", "set", "br0", "up")
        for number, host in enumerate(self._hosts):
            peer = ["type", "veth", "peer", "name", "eth0", "netns", str(host)]
            self._within(self._hub, "ip", "link", "add", f"v{number}", *peer)
            self._within(self._hub, "ip", "link", "set", f"v{number}", "master", "br0", "up")
            self._within(host, "ip", "addr", "add", f"{address(number)}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                self._within(host, "ip", "link", "set", link, "up")
            self._within(host, "hostname", f"node{number}")
            self.names(number).write_text("127.0.0.1 localhost\n")
            self.know(number, *range(count))

    def __enter__(self) -> "Pod":
        return self

    def __exit__(self, *_) -> None:
        for process in self.processes.values():
            process.kill()
            process.communicate()
        self._open.close()

    def _namespace(self) -> int:
        holder = subprocess.Popen(["unshare", "-n", "-u", "sleep", "3600"])
        self._open.callback(holder.wait)
        self._open.callback(holder.kill)
        ours = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{holder.pid}/ns/net").readlink() == ours:
            time.sleep(0.01)
        return holder.pid

    @staticmethod
    def _within(host: int, *argv: str) -> None:
        subprocess.run(["nsenter", "-t", str(host), "-n", "-u", *argv], check=True)

    def names(self, number: int) -> Path:
        """The file of names that a host reads as /etc/hosts."""
        return self.folder / f"names{number}"

    def know(self, number: int, *others: int) -> None:
        """From here on, the host knows the names of others."""
        with self.names(number).open("a") as file:
            file.writelines(f"{address(other)} node{other}\n" for other in others)

    def forget(self, number: int, other: int) -> None:
        """The host does not know a name (yet)."""
        kept = [line for line in self.names(number).read_text().splitlines() if not line.endswith(f" node{other}")]
        self.names(number).write_text("\n".join(kept) + "\n")

    def cut_off(self, number: int) -> None:
        """The host is gone from the network, without a word: as a machine whose power fails."""
        self._within(self._hosts[number], "ip", "link", "set", "eth0", "down")

    def start(self, number: int, program: str, *arguments: str) -> None:
        """Starts a Python program on a host."""
        script = 'mount --bind "$0" /etc/hosts && exec "$@"'
        inside = [
            "unshare",
            "-m",
            "sh",
            "-c",
            script,
            str(self.names(number)),
            sys.executable,
            "-c",
            program,
            *arguments,
        ]
        there = ["nsenter", "-t", str(self._hosts[number]), "-n", "-u", *inside]
        self.processes[number] = subprocess.Popen(
            there, env=environment(1, level=0), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def ends(self, number: int, seconds: float) -> tuple[int, str]:
        """Exit status of a host's process and what it said, within so many seconds."""
        process = self.processes.pop(number)
        try:
            _, said = process.communicate(timeout=seconds)
        finally:
            process.kill()
        return process.returncode, said


def address(number: int) -> str:
    return f"10.77.0.{number + 1}"
