"""Settings files and command lines: what is wrong is said in one line, with exit status 2, before anything runs."""

import pytest

SCRIPTS = {"tpu_pod": ["tpu_pod.sh", "status"], "gke": ["gke.sh", "run"], "slurm": ["slurm.sh"]}


def launch(world, place, settings, *arguments):
    script, *action = SCRIPTS[place]
    return world.run(script, settings, *action, *arguments)


def refusal(world, done) -> str:
    """The one line said."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" and world.calls() == []
    [line] = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("place", SCRIPTS)
def test_examples_are_good(world, place):
    assert launch(world, place, world.settings(place), "--dry_run").returncode == 0


@pytest.mark.parametrize("place", SCRIPTS)
def test_every_setting_of_an_example_has_a_comment(world, place):
    commented = False
    for line in world.settings(place).read_text().splitlines():
        assert line.startswith("#") or not line or commented, line
        commented = bool(line)


@pytest.mark.parametrize(
    ("place", "key"), [("tpu_pod", "ZONE"), ("gke", "IMAGE"), ("slurm", "VENV"), ("slurm", "CONFIG")]
)
@pytest.mark.parametrize("value", [None, "", '""'])
def test_missing(world, place, key, value):
    """A variable of the environment does not stand in."""
    settings = world.settings(place, **{key: value})
    script, *action = SCRIPTS[place]
    line = refusal(world, world.run(script, settings, *action, **{key: "from the environment"}))
    assert line == f"{settings}: {key} is not set; add a line {key}=..."


@pytest.mark.parametrize("place", SCRIPTS)
def test_unknown(world, place):
    settings = world.settings(place, NUM_SLICE="2")
    line = refusal(world, launch(world, place, settings))
    assert line.startswith(f"{settings}:") and "NUM_SLICE: no such setting; there are NAME" in line


@pytest.mark.parametrize(
    ("place", "changes", "said"),
    [
        ("tpu_pod", {"NAME": "Sami"}, "NAME=Sami is not of small letters, digits and hyphens"),
        ("tpu_pod", {"NUM_SLICES": "two"}, "NUM_SLICES=two is not a whole number from 1"),
        ("tpu_pod", {"QUEUED": "1"}, "QUEUED=1 is not yes or no"),
        ("tpu_pod", {"CAPACITY": "cheap"}, "CAPACITY=cheap is not on_demand, spot or reserved"),
        ("tpu_pod", {"PACKAGE": "sami"}, "PACKAGE=sami is not a wheel"),
        ("tpu_pod", {"BUCKET": "gs://mine"}, "BUCKET=gs://mine is not a bucket's name (without gs://)"),
        ("tpu_pod", {"BUCKET": None}, "BUCKET is not set, nor is NFS"),
        ("gke", {"NFS": "host:/share"}, "BUCKET and NFS are both set"),
        ("gke", {"WORKDIR": "runs/x"}, "WORKDIR=runs/x is not a folder under /mnt/sami"),
        ("gke", {"TOPOLOGY": "16"}, "TOPOLOGY=16 is not chips along each side"),
        ("gke", {"CHIPS_PER_HOST": "3"}, "CHIPS_PER_HOST=3 does not divide the 16 chips of TOPOLOGY=4x4"),
        ("slurm", {"MAX_RESTARTS": "-1"}, "MAX_RESTARTS=-1 is not a whole number from 0"),
        ("slurm", {"WORKDIR": "runs/x"}, "WORKDIR=runs/x is not an absolute path"),
    ],
)
def test_bad_value(world, place, changes, said):
    settings = world.settings(place, **changes)
    assert refusal(world, launch(world, place, settings)).startswith(f"{settings}: {said}")


def test_a_settings_file_is_not_code(world):
    settings = world.settings("gke", IMAGE="$(touch made)`touch made`;touch made")
    done = launch(world, "gke", settings, "--dry_run")
    assert done.returncode == 0 and '"$(touch made)`touch made`;touch made"' in done.stdout
    assert not (world.folder / "made").exists()


def test_lines_that_are_none(world):
    settings = world.settings("slurm")
    settings.write_text("export NAME=x\n")
    assert "slurm.env:1: not a line KEY=VALUE" in refusal(world, launch(world, "slurm", settings))
    assert "no such file; copy one of" in refusal(world, launch(world, "slurm", world.folder / "none.env"))


def test_quotes_spaces_and_line_ends(world):
    """A pair of quotes, blanks at the end and Windows' line ends are no part of a value."""
    settings = world.settings("slurm", NAME="'quoted'  ", PARTITION='"gpu"\r')
    done = launch(world, "slurm", settings, "--dry_run")
    assert "--job-name=quoted " in done.stdout and "--partition=gpu " in done.stdout


@pytest.mark.parametrize("arguments", [["--dryrun"], ["--config=tiny"], ["--config.train.updates", "3"], ["tiny"]])
def test_bad_arguments(world, arguments):
    done = launch(world, "slurm", world.settings("slurm"), *arguments)
    assert f"{arguments[0]}: no such argument" in refusal(world, done)


@pytest.mark.parametrize("script", ["tpu_pod.sh", "gke.sh"])
def test_bad_action(world, script):
    place = script.removesuffix(".sh")
    assert refusal(world, world.run(script, world.settings(place), "start")).startswith("usage: ")
    assert refusal(world, world.run(script)).startswith("usage: ")
