"""A pod of hosts on this machine: each has an address, a name and mounts of its own, in namespaces, and a folder that all share: a
plain one, or a bucket as gcsfuse shows it (support/bucket.py).

Namespaces live as long as the process that holds them, so nothing is left behind. Needs root.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from support import bucket
from support.flags import environment

PORT = 8476
_TOOLS = ("unshare", "nsenter", "ip", "mount")


def can_be_made() -> bool:
    return all(map(shutil.which, _TOOLS)) and not subprocess.run(["unshare", "-n", "-u", "-m", "true"]).returncode


class Pod:
    """Hosts node0, node1, ... at 10.77.0.1, 10.77.0.2, ...; a context manager.

    shared: what all hosts see. seen: what is there for good, as this process sees it.
    """

    def __init__(self, folder: Path, count: int, mounted: Sequence[str] | None = None):
        """
        Args:
          mounted: options of support/bucket.py, where the shared folder is a bucket.
        """
        self.folder, self.count = folder, count
        self.shared = self.seen = folder / "shared"
        self.shared.mkdir()
        self.processes: dict[int, subprocess.Popen] = {}
        self._mounted = mounted
        self._mounts: dict[int, subprocess.Popen] = {}
        self._open = contextlib.ExitStack()
        if mounted is not None:
            self.seen = folder / "objects"
            self.seen.mkdir()
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
            self._within(host, "mount", "--bind", str(self.names(number)), "/etc/hosts")
            self.mount(number)

    def __enter__(self) -> "Pod":
        return self

    def __exit__(self, *_) -> None:
        self.stop_all()
        for number in list(self._mounts):
            self.end_mount(number)
        self._open.close()

    def _namespace(self) -> int:
        holder = subprocess.Popen(["unshare", "-n", "-u", "-m", "sleep", "3600"])
        self._open.callback(holder.wait)
        self._open.callback(holder.kill)
        while Path(f"/proc/{holder.pid}/comm").read_text() != "sleep\n":
            time.sleep(0.01)
        return holder.pid

    @staticmethod
    def _there(host: int, *argv: str) -> list[str]:
        return ["nsenter", "-t", str(host), "-n", "-u", "-m", f"--wd={os.getcwd()}", *argv]

    def _within(self, host: int, *argv: str) -> None:
        subprocess.run(self._there(host, *argv), check=True)

    def mount(self, number: int) -> None:
        """The host has the bucket, if there is one."""
        if self._mounted is None:
            return
        host, where = self._hosts[number], f" {self.shared} "
        program = [sys.executable, bucket.__file__, str(self.seen), str(self.shared), *self._mounted]
        self._mounts[number] = subprocess.Popen(self._there(host, *program))
        while where not in Path(f"/proc/{host}/mountinfo").read_text():
            assert self._mounts[number].poll() is None, "the bucket could not be mounted"
            time.sleep(0.05)

    def end_mount(self, number: int) -> None:
        """What shows the bucket on the host has died, with all that it had not brought there; the host goes on."""
        self._mounts[number].kill()
        self._mounts[number].wait()

    def lose_mount(self, number: int) -> None:
        """The same, and its place is free for another."""
        if number in self._mounts:
            self.end_mount(number)
            del self._mounts[number]
            self._within(self._hosts[number], "umount", "-l", str(self.shared))

    def lose(self, number: int) -> None:
        """The host is gone, and all that was on it alone."""
        self.hang(number)  # before what shows the bucket dies: a host does not live to see it
        self.lose_mount(number)
        self.processes[number].kill()
        self.processes.pop(number).wait()

    def hang(self, number: int) -> None:
        """The host's process goes no further; its connections stay."""
        self.processes[number].send_signal(signal.SIGSTOP)

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

    def start(self, number: int, *argv: str, **variables: str) -> None:
        """Starts Python with these arguments on a host."""
        with self._words(number).open("w") as said:
            self.processes[number] = subprocess.Popen(
                self._there(self._hosts[number], sys.executable, *argv),
                env=environment(1, 0, **variables),
                stdout=subprocess.DEVNULL,
                stderr=said,
            )

    def said(self, number: int) -> str:
        """What the host's process has said on stderr so far."""
        return self._words(number).read_text()

    def wait_for(self, reached: Callable[[], object], seconds: float) -> None:
        """Until it holds, while all processes run."""
        end = time.monotonic() + seconds
        while not reached():
            ended = {
                number: self.said(number) for number, process in self.processes.items() if process.poll() is not None
            }
            assert not ended, ended
            assert time.monotonic() < end, {number: self.said(number) for number in self.processes}
            time.sleep(0.1)

    def _words(self, number: int) -> Path:
        return self.folder / f"said{number}"

    def stop_all(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.processes.clear()

    def ends(self, number: int, seconds: float) -> tuple[int, str]:
        """Exit status of a host's process and what it said, within so many seconds."""
        process = self.processes.pop(number)
        try:
            process.wait(seconds)
        finally:
            process.kill()
        return process.returncode, self.said(number)


def address(number: int) -> str:
    return f"10.77.0.{number + 1}"
