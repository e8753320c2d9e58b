"""A pod of two hosts: what is asked of gcloud, what arrives on the hosts, and restarts."""

import os

import pytest
from support.quick import others_slow

WHERE = ["--project=my-project", "--zone=us-west4-a"]
SET = ["JAX_COORDINATOR_PORT=8476", "JAX_COMPILATION_CACHE_DIR=/mnt/sami/compiled"]  # of the run's environment
COMMAND = ["run", "--distributed", "--config=tldr_mistral7b", "--workdir=/mnt/sami/runs/tldr"]
GIT = "git+https://example.org/sami_jax@v1"


@pytest.fixture
def plain(world):
    """Settings of a TPU that is made at once, without queue."""
    return world.settings(
        "tpu_pod", QUEUED="no", CAPACITY=None, PACKAGE=GIT, MODEL=None, QUERIES=None, POLL_SECONDS="0"
    )


@pytest.fixture
def queued(world):
    """Of two slices, a host each."""
    world.hosts_a_slice(1)
    return world.settings(
        "tpu_pod", NUM_SLICES="2", QUEUED=None, PACKAGE=GIT, MODEL=None, QUERIES=None, POLL_SECONDS="0"
    )


def gcloud(calls: list[dict]) -> list[list[str]]:
    """What was asked of gcloud, less the words that are always the same."""
    asked = []
    for call in calls:
        if call["argv"][0] == "gcloud" and call["argv"][1] != "storage":
            assert call["argv"][1:3] == ["compute", "tpus"] and set(WHERE) < set(call["argv"])
            asked.append([word for word in call["argv"][3:] if word not in WHERE])
    return asked


def verbs(calls: list[dict]) -> list[str]:
    """The same in a word each: create, describe, scp, delete, or what tpu_host.sh was told."""
    return [
        next((word.split()[2] for word in words if word.startswith("--command=")), words[1]) for words in gcloud(calls)
    ]


def test_plain_actions(world, plain):
    world.answer(**{"describe": [[0, "READY"]], "tpu_host.sh run": [[0, ""]], "tail_log": [[0, ""]]})
    on_all = ["tpu-vm", "ssh", "sami-tldr", "--worker=all"]
    create = ["tpu-vm", "create", "sami-tldr", "--accelerator-type=v5litepod-16", "--version=v2-alpha-tpuv5-lite"]
    describe = ["tpu-vm", "describe", "sami-tldr", "--format=value(state)"]
    assert gcloud(world.check_dry_run("tpu_pod.sh", plain, "create")) == [create, describe]
    copy, install = gcloud(world.check_dry_run("tpu_pod.sh", plain, "install"))
    assert copy[:2] == ["tpu-vm", "scp"] and copy[2].endswith("launch/tpu_host.sh")
    assert copy[3:] == ["sami-tldr:", "--worker=all"]
    assert install == [*on_all, f"--command=bash tpu_host.sh install {GIT} 3.12 my-bucket ''"]
    assert gcloud(world.check_dry_run("tpu_pod.sh", plain, "run")) == [
        [*on_all, f"--command=bash tpu_host.sh run {' '.join(SET + COMMAND)}"]
    ]
    assert gcloud(world.check_dry_run("tpu_pod.sh", plain, "tail")) == [
        ["tpu-vm", "ssh", "sami-tldr", "--worker=0", "--command=bash tpu_host.sh tail_log"]
    ]
    status = [describe, [*on_all, "--command=bash tpu_host.sh status"]]
    assert gcloud(world.check_dry_run("tpu_pod.sh", plain, "status")) == status
    assert gcloud(world.check_dry_run("tpu_pod.sh", plain, "stop")) == [[*on_all, "--command=bash tpu_host.sh stop"]]
    assert gcloud(world.check_dry_run("tpu_pod.sh", plain, "delete")) == [["tpu-vm", "delete", "sami-tldr", "--quiet"]]


def test_slices_are_queued_resources(world, queued):
    world.answer(describe=[[0, "ACTIVE"]])
    everywhere = ["--node=all", "--worker=all"]
    create, describe = gcloud(world.check_dry_run("tpu_pod.sh", queued, "create"))
    assert create == [
        *["queued-resources", "create", "sami-tldr", "--accelerator-type=v5litepod-16"],
        *["--runtime-version=v2-alpha-tpuv5-lite", "--node-count=2", "--node-prefix=sami-tldr", "--spot"],
    ]
    assert describe == ["queued-resources", "describe", "sami-tldr", "--format=value(state.state)"]
    copy, _ = gcloud(world.check_dry_run("tpu_pod.sh", queued, "install"))
    assert copy[:2] == ["queued-resources", "scp"] and copy[-2:] == everywhere
    assert gcloud(world.check_dry_run("tpu_pod.sh", queued, "stop")) == [
        ["queued-resources", "ssh", "sami-tldr", *everywhere, "--command=bash tpu_host.sh stop"]
    ]
    assert gcloud(world.check_dry_run("tpu_pod.sh", queued, "delete")) == [
        ["queued-resources", "delete", "sami-tldr", "--force", "--quiet"]
    ]


def test_one_queued_slice_and_further_words(world):
    settings = world.settings(
        "tpu_pod", CAPACITY="reserved", CREATE_OPTIONS="--network=a --tags=b", SSH_OPTIONS="--internal-ip"
    )
    world.answer(describe=[[0, "ACTIVE"]], stop=[[0, "sami run: ended 130"]])
    create, _ = gcloud(world.check_dry_run("tpu_pod.sh", settings, "create"))
    assert create[-4:] == ["--node-id=sami-tldr", "--reserved", "--network=a", "--tags=b"]
    [stop] = gcloud(world.check_dry_run("tpu_pod.sh", settings, "stop"))
    assert "--internal-ip" in stop


def test_up_starts_sami_on_every_host(world, plain, hard, wait_for):
    """The arguments arrive at `sami` as they were given, through two shells."""
    world.answer(describe=[[0, "CREATING"], [0, "READY"]])
    world.sami_ends(["wait"], ["wait"])
    up = world.run("tpu_pod.sh", plain, "up", *hard)
    assert up.returncode == 0 and up.stdout.splitlines().count("sami run: running") == 2, up.stderr
    wait_for(lambda: all((host / "waiting").exists() for host in world.hosts))
    calls = world.calls()
    assert verbs(calls) == ["create", "describe", "describe", "scp", "install", "run"]
    started = {call["home"]: call["argv"][1:] for call in calls if call["argv"][0] == "sami"}
    assert started == {"0": [*COMMAND, *hard], "1": [*COMMAND, *hard]}


def test_wheel(world):
    wheel = world.folder / "sami jax.whl"
    settings = world.settings("tpu_pod", PACKAGE=str(wheel))
    missing = world.run("tpu_pod.sh", settings, "install")
    assert missing.returncode == 2 and "no such file; make it with: pip wheel" in missing.stderr
    wheel.touch()
    calls = world.check_dry_run("tpu_pod.sh", settings, "install")
    assert str(wheel) in gcloud(calls)[0] and (world.hosts[1] / wheel.name).exists()
    install = [call["argv"] for call in calls if call["argv"][1:3] == ["pip", "install"]]
    assert [argv[-1] for argv in install] == [f"sami_jax[tpu] @ file://{host}/sami jax.whl" for host in world.hosts]


def test_capacity_that_is_refused(world, queued):
    world.answer(describe=[[0, "WAITING_FOR_RESOURCES"], [0, "FAILED"]])
    done = world.run("tpu_pod.sh", queued, "up")
    assert done.returncode == 1 and "sami-tldr: could not be had: FAILED; given back" in done.stderr
    # It would keep the name, and the quota.
    assert verbs(world.calls()) == ["create", "describe", "describe", "delete"]


@pytest.mark.parametrize("accelerator", ["tpu7x-16", "v7x-16"])
def test_what_the_api_does_not_know_is_refused(world, accelerator):
    settings = world.settings("tpu_pod", ACCELERATOR=accelerator)
    done = world.run("tpu_pod.sh", settings, "up")
    assert done.returncode == 2 and "does not know TPU7x; use gke.sh" in done.stderr and world.calls() == []


def test_the_example_runs_from_the_start(world, wait_for):
    """As it is shipped: a wheel by its pattern, the newest of several, model and queries on the mount, looked for first."""
    world.answer(describe=[[0, "ACTIVE"]])
    other = world.folder / "dist/sami_jax-0.0.9-py3-none-any.whl"
    other.touch()
    os.utime(other, (1, 1))
    up = world.run("tpu_pod.sh", world.settings("tpu_pod", POLL_SECONDS="0"), "up")
    assert up.returncode == 0, up.stderr
    wait_for(lambda: all((host / "sami_run/status").exists() for host in world.hosts))
    calls = world.calls()
    looked = [call["argv"][1:4] for call in calls if call["argv"][:2] == ["gcloud", "storage"]]
    below = "gs://my-bucket"
    assert looked == [
        ["storage", "ls", f"{below}/models/mistral-7b-v0.1/config.json"],
        ["storage", "ls", f"{below}/data/tldr/queries.jsonl"],
    ]
    assert (world.hosts[0] / "sami_jax-0.1.0.dev0-py3-none-any.whl").exists()
    started = next(call["argv"] for call in calls if call["argv"][0] == "sami")
    assert "--config.model.path=/mnt/sami/models/mistral-7b-v0.1" in started
    assert "--config.data.queries=/mnt/sami/data/tldr/queries.jsonl" in started


def test_nothing_is_paid_for_before_the_model_is_there(world):
    world.answer(**{"storage ls": [[1, "ERROR: (gcloud.storage.ls) One or more URLs matched no objects."]]})
    done = world.run("tpu_pod.sh", world.settings("tpu_pod"), "up")
    assert done.returncode == 2 and "gs://my-bucket/models/mistral-7b-v0.1/config.json: not there" in done.stderr
    assert not any("create" in call["argv"] for call in world.calls())


def test_settings_of_processes_reach_the_hosts(world, plain, wait_for):
    with plain.open("a") as file:
        file.write("COORDINATOR_PORT=9000\nLOST_AFTER=900\nSTART_WITHIN=3600\n")
    world.answer(describe=[[0, "READY"]])
    assert world.run("tpu_pod.sh", plain, "up").returncode == 0
    wait_for(lambda: all((host / "sami_run/status").exists() for host in world.hosts))
    started = [call for call in world.calls() if call["argv"][0] == "sami"]
    assert {call["port"] for call in started} == {"9000"}
    assert {call["cache"] for call in started} == {"/mnt/sami/compiled"}
    assert all({"--lost_after=900", "--start_within=3600"} < set(call["argv"]) for call in started)


def test_a_host_that_gcloud_leaves_out_is_missed(world, queued):
    """Which ends with 0 all the same: neither is anything started on a part, nor is a part taken for the whole."""
    world.answer(describe=[[0, "ACTIVE"]])
    (world.hosts[1] / "gone").touch()
    for action in ("install", "run", "status", "stop"):
        done = world.run("tpu_pod.sh", queued, action)
        assert done.returncode == 1 and "1 host(s) did not answer" in done.stderr, action


def test_a_slice_that_stays_away_is_made_anew(world, queued):
    """While the queued resource still is ACTIVE."""
    there, one = "sami run: running\nsami hosts: 1", "sami run: ended 4\nsami hosts: 1"
    world.answer(
        describe=[[0, "ACTIVE"]],
        status=[[0, there], *[[0, one]] * 4, [0, "sami run: ended 0\nsami hosts: 1\nsami run: ended 0\nsami hosts: 1"]],
    )
    status, said, asked = watch(world, queued)
    assert status == 0 and "1 missing" in said and "made anew" in said and "restart 1" not in said, said
    assert [asked.count(verb) for verb in ("delete", "create", "install", "run")] == [1, 1, 1, 1]


def test_status_of_what_is_not_there(world, plain):
    world.answer(describe=[[1, "ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: Resource"]])
    done = world.run("tpu_pod.sh", plain, "status")
    assert done.returncode == 0 and done.stderr == "sami-tldr: NOT_FOUND\n"


def watch(world, settings, *arguments):
    done = world.run("tpu_pod.sh", settings, "watch", *arguments)
    return done.returncode, done.stderr, verbs(world.calls())


def test_watch_of_a_finished_run(world, plain):
    world.answer(
        status=[[0, "sami run: running\nsami run: ended 0"], [0, "sami run: ended 0\nsami run: ended 0"]],
        describe=[[0, "READY"]],
    )
    status, said, asked = watch(world, plain)
    assert (status, asked) == (0, ["describe", "status"] * 2)
    assert said == "sami-tldr: running\nsami-tldr: finished\n"
    world.check_dry_run("tpu_pod.sh", plain, "watch")


@pytest.mark.parametrize(
    ("fixture", "lost"),
    others_slow([("plain", "PREEMPTED"), ("queued", "SUSPENDED"), ("queued", "FAILED")], ("queued", "SUSPENDED")),
)
def test_preempted_machines_are_made_anew(world, fixture, lost, hard, request):
    """And the run goes on with the same command, on hosts that know nothing of the old ones."""
    ready = "READY" if fixture == "plain" else "ACTIVE"
    world.answer(describe=[[0, lost], [0, lost], [0, ready]])
    status, said, asked = watch(world, request.getfixturevalue(fixture), *hard)
    assert status == 0, said
    again = ["delete", "create", "describe", "scp", "install", "stop", "run"]
    assert asked[:9] == ["describe", "describe", *again]
    assert set(asked[9:]) == {"describe", "status"}
    # Only what fails when the machines are there counts against MAX_RESTARTS.
    assert ("restart 1 of 10" if lost == "FAILED" else "made anew") in said
    assert ("restart 1 of 10" in said) == (lost == "FAILED") and said.endswith("sami-tldr: finished\n")


@pytest.mark.slow
def test_many_preemptions_are_survived(world, plain):
    with plain.open("a") as file:
        file.write("CAPACITY=spot\nMAX_RESTARTS=1\n")
    lost = [[0, state] for state in ("PREEMPTED", "STOPPED", "PREEMPTED", "STOPPING") for _ in range(2)]
    answers = [answer for pair in zip(lost[::2], lost[1::2], strict=True) for answer in [*pair, [0, "READY"]]]
    world.answer(describe=answers)
    status, said, asked = watch(world, plain)
    assert status == 0 and asked.count("create") == 4 and "restart" not in said, said


@pytest.mark.slow
def test_crashes_before_a_long_steady_run_are_forgotten(world, plain):
    with plain.open("a") as file:
        file.write("MAX_RESTARTS=1\n")
    crash, steady = [0, "sami run: ended 1"], [0, "sami run: running"]
    world.answer(
        describe=[[0, "READY"]],
        install=[[0, ""]], scp=[[0, ""]], **{"tpu_host.sh stop": [[0, ""]], "tpu_host.sh run": [[0, ""]]},
        status=[crash, *[steady] * 60, crash, *[steady] * 59, crash],
    )  # fmt: skip
    status, said, _ = watch(world, plain)
    assert status == 1 and said.count("restart 1 of 1") == 2 and "after 1 restarts" in said, said


def test_a_tpu_that_another_holds_is_left_alone(world, plain):
    """Another user's of the same machines, or the same one's from another laptop: nothing of ours is known there."""
    world.answer(**{"describe": [[0, "READY"]], "sudo -n find": [[0, "/proc/77/fd/9"]]})
    status, said, _ = watch(world, plain)
    assert status == 1 and "a process that is not this run's holds the TPU" in said, said
    assert not any(call["argv"][0] == "sami" for call in world.calls())


def test_preempted_arguments(world, plain, hard):
    world.answer(describe=[[0, "PREEMPTED"], [0, "PREEMPTED"], [0, "READY"]])
    assert world.run("tpu_pod.sh", plain, "watch", *hard).returncode == 0
    started = [call["argv"][1:] for call in world.calls() if call["argv"][0] == "sami"]
    assert started == [[*COMMAND, *hard]] * 2


def test_crashed_run_starts_again_on_its_machines(world, plain, wait_for):
    """One host's process crashes, the other ends for the loss of it; then all goes well."""
    world.answer(describe=[[0, "READY"]])
    world.sami_ends([1, 0], [4, 0])
    assert world.run("tpu_pod.sh", plain, "up").returncode == 0
    wait_for(lambda: all((host / "sami_run/status").exists() for host in world.hosts))
    world.calls()
    status, said, asked = watch(world, plain)
    assert status == 0 and "restart 1 of 10" in said, said
    assert [asked.count(verb) for verb in ("delete", "create", "scp", "install", "stop", "run")] == [0, 0, 1, 1, 1, 1]


@pytest.mark.slow
def test_a_process_that_hangs_after_a_crash_is_ended(world, plain, wait_for):
    world.answer(describe=[[0, "READY"]])
    world.sami_ends(["wait", 0], [1, 0])
    assert world.run("tpu_pod.sh", plain, "up").returncode == 0
    wait_for((world.hosts[0] / "waiting").exists)
    wait_for((world.hosts[1] / "sami_run/status").exists)
    status, said, asked = watch(world, plain)
    assert status == 0 and asked.count("run") == 2 and asked.count("stop") == 1, said  # up's run, and one more


@pytest.mark.slow
def test_restarts_are_bounded(world):
    settings = world.settings("tpu_pod", QUEUED="no", PACKAGE=GIT, POLL_SECONDS="0", MAX_RESTARTS="2")
    world.answer(describe=[[0, "READY"]])
    world.sami_ends([1], [1])
    status, said, asked = watch(world, settings)
    assert status == 1 and asked.count("run") == 2
    assert said.splitlines()[-1] == f"sami-tldr: crashed, after 2 restarts (MAX_RESTARTS in {settings})"


def test_no_capacity_is_asked_for_again_within_bounds(world):
    settings = world.settings("tpu_pod", QUEUED="no", PACKAGE=GIT, POLL_SECONDS="0", MAX_RESTARTS="3")
    gone = [1, "ERROR: NOT_FOUND: no such TPU"]
    world.answer(
        describe=[[0, "PREEMPTED"], [0, "PREEMPTED"], gone], create=[[1, "ERROR: no more capacity in the zone"]]
    )
    status, said, asked = watch(world, settings)
    assert (status, asked.count("create"), asked.count("delete")) == (1, 4, 1), said


@pytest.mark.parametrize("final", [2, 3, 5, 130])
def test_what_no_restart_helps(world, plain, final):
    """Another host's crash, told by the same answer, changes nothing."""
    world.answer(describe=[[0, "READY"]], status=[[0, f"sami run: ended 4\nsami run: ended {final}"]])
    assert watch(world, plain)[::2] == (final, ["describe", "status"])


@pytest.mark.parametrize("answer", [[1, "ERROR: NOT_FOUND: gone"], [0, "STOPPED"], [0, "DELETING"]])
def test_what_somebody_took_away_stays_away(world, plain, answer):
    world.answer(describe=[answer])
    status, said, asked = watch(world, plain)
    assert (status, asked) == (1, ["describe"]) and "by another's hand" in said


def test_no_answer_is_no_reason_to_restart(world, plain):
    """Neither Google nor a host may answer for a while: the laptop was offline."""
    offline, ready = [1, "ERROR: could not reach the server"], [0, "READY"]
    world.answer(describe=[offline, ready], status=[[255, "ssh: no route"], [0, ""], [0, "sami run: ended 0"]])
    status, said, asked = watch(world, plain)
    assert (status, asked) == (0, ["describe", *["describe", "status"] * 3])
    assert said == "sami-tldr: UNREACHABLE\nssh: no route\nsami-tldr: finished\n"


def test_stop_is_seen_by_watch(world, plain, wait_for):
    world.answer(describe=[[0, "READY"]])
    world.sami_ends(["wait"], ["wait"])
    world.run("tpu_pod.sh", plain, "up")
    wait_for(lambda: all((host / "waiting").exists() for host in world.hosts))
    assert world.run("tpu_pod.sh", plain, "stop").stdout.splitlines().count("sami run: ended 130") == 2
    world.calls()
    assert watch(world, plain)[::2] == (130, ["describe", "status"])
