"""What a host does by itself: install, start once, tell, stop."""

import os
import signal

import pytest


@pytest.fixture
def host(world):
    """Calls tpu_host.sh on one host."""

    def call(*arguments: str) -> str:
        home = world.hosts[0]
        path = f"{world.folder}/host_bin:/usr/bin:/bin"
        done = world.run("tpu_host.sh", *arguments, HOME=str(home), PATH=path)
        assert done.returncode == 0, done.stderr
        run, *hosts = done.stdout.splitlines(keepends=True)
        assert hosts in ([], ["sami hosts: 2\n"])
        return run

    return call


def kept(world) -> list[list[str]]:
    """Calls, less those that only look."""
    return [
        call["argv"]
        for call in world.calls()
        if call["argv"][0] != "curl" and call["argv"][:3] != ["sudo", "-n", "find"]
    ]


def test_a_run_from_start_to_end(world, host, wait_for):
    assert host("status") == "sami run: not started\n"
    world.sami_ends(["wait", 3], [])
    assert host("run", "run", "--config=tiny") == "sami run: running\n"
    wait_for((world.hosts[0] / "waiting").exists)
    assert host("run", "run", "--config=tiny") == "sami run: running\n"
    assert len(kept(world)) == 1  # the second was not started
    assert host("stop") == host("stop") == host("status") == "sami run: ended 130\n"
    host("run", "run", "--config=tiny")
    wait_for((world.hosts[0] / "sami_run/status").exists)
    assert host("status") == host("stop") == "sami run: ended 3\n"


def test_a_host_that_was_started_anew(world, host, wait_for):
    world.sami_ends(["wait"], [])
    host("run", "run")
    pid = world.hosts[0] / "sami_run/pid"
    wait_for((world.hosts[0] / "waiting").exists)
    os.killpg(int(pid.read_text()), signal.SIGKILL)
    wait_for(lambda: host("status") == "sami run: lost\n")
    pid.write_text(f"{os.getpid()}\n")  # the number now is another process's
    assert host("status") == host("stop") == "sami run: lost\n"


def test_install_mounts_the_bucket(world, host):
    world.answer(mountpoint=[[1, ""]])
    host("install", "git+https://example.org/sami@v1", "3.12", "my-bucket", "")
    calls = kept(world)
    home = world.hosts[0]
    assert calls[:3] == [
        ["python3", "-m", "pip", "install", "--quiet", "--user", "uv"],
        ["uv", "venv", "--quiet", "--allow-existing", "--python", "3.12", f"{home}/sami"],
        [
            *["uv", "pip", "install", "--quiet", "--python", f"{home}/sami/bin/python"],
            *["--reinstall-package", "sami_jax", "sami_jax[tpu] @ git+https://example.org/sami@v1"],
        ],
    ]
    assert calls[-1] == [
        *["gcsfuse", "--implicit-dirs", "--metadata-cache-ttl-secs=0", "--metadata-cache-negative-ttl-secs=0"],
        *["--rename-dir-limit=100000", "my-bucket", "/mnt/sami"],
    ]


def test_install_mounts_nfs(world, host):
    world.answer(mountpoint=[[1, ""]])
    host("install", "sami.whl", "3.12", "", "10.0.0.2:/share")
    assert kept(world)[-1] == ["sudo", "mount", "-t", "nfs", "10.0.0.2:/share", "/mnt/sami"]


def test_install_leaves_what_is_mounted(world, host):
    host("install", "sami.whl", "3.12", "my-bucket", "")
    assert [argv[0] for argv in kept(world)] == ["python3", "uv", "uv", "mountpoint"]
