"""The job that is submitted, and its script, executed."""

import os
import signal
import subprocess

import pytest


@pytest.fixture
def job(world, hard):
    """The submitted job's script in a file, with a program at the place of VENV/bin/sami."""
    venv = world.hosts[0] / "sami"
    settings = world.settings("slurm", VENV=str(venv), LOGS=str(world.folder / "my logs"), MAX_RESTARTS="3")
    [call] = world.check_dry_run("slurm.sh", settings, *hard)
    world.answer(**{"show job": [[0, "JobState=RUNNING Reason=None"]]})
    file = world.folder / "job.sh"
    file.write_text(call["input"], encoding="utf-8")
    return file


def start(world, job, **environment: str) -> subprocess.Popen:
    variables = world.environment | {"SLURM_JOB_ID": "77", "HOME": str(world.hosts[0])} | environment
    return subprocess.Popen(["bash", job], env=variables, stderr=subprocess.PIPE, text=True)


def ends_with(world, job, status: int, **environment: str) -> tuple[int, list[list[str]]]:
    """The job's exit status and the calls to Slurm, where the tasks end with `status`."""
    world.sami_ends([status], [])
    script = start(world, job, **environment)
    script.communicate(timeout=60)
    return script.returncode, [call["argv"] for call in world.calls() if call["argv"][0] in ("scancel", "scontrol")]


def test_submitted(world):
    settings = world.settings(
        "slurm", LOGS=str(world.folder / "logs"), ACCOUNT="lab", SBATCH_OPTIONS="--qos=low --exclude=node7"
    )
    [call] = world.check_dry_run("slurm.sh", settings)
    assert call["argv"] == [
        *["sbatch", "--job-name=sami-tldr", "--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8"],
        *["--cpus-per-task=8", "--time=24:00:00", "--requeue", "--signal=B:TERM@120"],
        *[f"--output={world.folder}/logs/%x-%j.log", "--open-mode=append"],
        *["--mem=0", "--account=lab", "--qos=low", "--exclude=node7"],
    ]
    assert (world.folder / "logs").is_dir()


def test_arguments_reach_the_tasks(world, job, hard):
    world.sami_ends([0], [])
    assert start(world, job).wait(60) == 0
    srun, sami = (call["argv"] for call in world.calls())
    assert srun[:4] == ["srun", "--cpus-per-task=8", "--gpu-bind=none", "--kill-on-bad-exit=0"]
    expected = [
        *["run", "--distributed", "--config=tldr_mistral7b", "--config.model.path=/shared/sami/models/mistral-7b-v0.1"],
        *["--config.data.queries=/shared/sami/data/tldr/queries.jsonl", "--workdir=/shared/sami/runs/tldr", *hard],
    ]
    assert sami[1:] == expected and srun[5:] == expected


@pytest.mark.parametrize("status", [0, 2, 3, 5, 130])
def test_does_not_start_again(world, job, status):
    assert ends_with(world, job, status) == (status, [])


@pytest.mark.parametrize("status", [1, 4, 75, 137])
def test_starts_again(world, job, status):
    """Three times after crashes, however often Slurm itself has queued the job again."""
    requeue = [["scontrol", "show", "job", "77"], ["scontrol", "requeue", "77"]]
    for _ in range(3):
        assert ends_with(world, job, status, SLURM_RESTART_COUNT="30") == (status, requeue)
    assert ends_with(world, job, status) == (status, requeue[:1])


def test_sites_that_know_gres_alone(world):
    settings = world.settings("slurm", GRES="gpu:h100:8", MEMORY="0", SBATCH_OPTIONS=None)
    [call] = world.check_dry_run("slurm.sh", settings)
    assert "--gres=gpu:h100:8" in call["argv"] and "--mem=0" in call["argv"]
    assert not any(word.startswith("--gpus") for word in call["argv"])


def test_cancelled_is_not_started_again(world, job):
    world.answer(**{"show job": [[0, "JobState=CANCELLED Reason=None"]]})
    assert ends_with(world, job, 143) == (143, [["scontrol", "show", "job", "77"]])


def test_term_reaches_the_tasks(world, job, wait_for):
    """Slurm signals the batch script alone; the tasks get it, the script waits for them, then queues again."""
    world.sami_ends(["wait"], [])
    script = start(world, job)
    wait_for((world.hosts[0] / "waiting").exists)
    os.kill(script.pid, signal.SIGTERM)
    _, said = script.communicate(timeout=60)
    assert script.returncode == 143 and "exit status 143; the job queues again" in said
    assert [call["argv"] for call in world.calls() if call["argv"][0].startswith("sc")] == [
        ["scancel", "--signal=TERM", "77"],
        ["scontrol", "show", "job", "77"],
        ["scontrol", "requeue", "77"],
    ]
    assert not list((world.folder / "my logs").glob("*.crashes"))  # it was no crash
