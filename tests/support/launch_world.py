"""The launchers among commands that only pretend: see pretend.py."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
HERE = ("gcloud", "kubectl", "sbatch", "srun", "scancel", "scontrol")
ON_HOSTS = ("sami", "uv", "python3", "sudo", "gcsfuse", "mountpoint", "lsb_release", "curl")


class World:
    """A folder with stand-ins for all commands, and a host or several."""

    def __init__(self, folder: Path):
        self.folder = folder
        program = f"#!{sys.executable} -S\n" + Path(__file__).with_name("pretend.py").read_text(encoding="utf-8")
        for bin, names in {"bin": HERE, "host_bin": ON_HOSTS}.items():
            (folder / bin).mkdir()
            for name in names:
                (folder / bin / name).write_text(program, encoding="utf-8")
                (folder / bin / name).chmod(0o755)
        (folder / "bin/python3").symlink_to(sys.executable)
        (folder / "dist").mkdir()
        (
            folder / "dist/sami_jax-0.1.0.dev0-py3-none-any.whl"
        ).touch()  # as `pip wheel` makes it, there where launchers are called
        path = f"{folder}/bin:/usr/bin:/bin"
        self.environment = {"PATH": path, "WORLD": str(folder), "HOME": str(folder), "LANG": "C.UTF-8"}
        self.hosts = [self.new_host(number) for number in range(2)]
        self.hosts_a_slice(2)

    def new_host(self, number: int) -> Path:
        host = self.folder / "hosts" / str(number)
        for link in ("sami/bin/sami", ".local/bin/uv"):
            (host / link).parent.mkdir(parents=True)
            (host / link).symlink_to(self.folder / "host_bin" / Path(link).name)
        return host

    def hosts_a_slice(self, count: int) -> None:
        """What the machines' metadata say."""
        (self.folder / "hosts_a_slice").write_text(str(count))

    def settings(self, place: str, **changes: str | None) -> Path:
        """The example of a place with some lines changed, added, or (None) left out."""
        lines = (REPOSITORY / f"launch/settings/{place}.env").read_text().splitlines()
        lines = [line for line in lines if line.split("=")[0] not in changes]
        lines += [f"{key}={value}" for key, value in changes.items() if value is not None]
        file = self.folder / f"{place}.env"
        file.write_text("\n".join(lines) + "\n")
        return file

    def run(self, script: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess:
        return self.bash([REPOSITORY / "launch" / script, *arguments], **environment)

    def bash(self, words: list, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", *map(str, words)],
            env=self.environment | environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def answer(self, **answers: list) -> None:
        (self.folder / "answers.json").write_text(json.dumps(answers))

    def sami_ends(self, *statuses: list) -> None:
        """For each host, what `sami` ends with, start by start."""
        for host, endings in zip(self.hosts, statuses, strict=True):
            (host / "sami.json").write_text(json.dumps({"sami": endings}))

    def calls(self) -> list[dict]:
        """All calls since the last look."""
        record = self.folder / "record.jsonl"
        lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
        record.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    def check_dry_run(self, script: str, *arguments: str | Path) -> list[dict]:
        """A dry run calls nothing; what it prints, given to a shell, calls what a real run calls. Returns these calls."""
        dry = self.run(script, *arguments, "--dry_run")
        assert dry.returncode == 0, dry.stderr
        assert self.calls() == []
        self.bash(["-c", dry.stdout])
        printed = self.calls()
        done = self.run(script, *arguments)
        assert done.returncode == 0, done.stderr
        calls = self.calls()
        assert printed == calls and calls
        return calls

    def close(self) -> None:
        for host in self.hosts:
            if (host / "sami_run/pid").exists():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(int((host / "sami_run/pid").read_text()), signal.SIGKILL)
