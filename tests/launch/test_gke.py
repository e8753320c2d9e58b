"""The JobSet and the commands that send, follow and delete it."""

import re

import pytest
from ruamel.yaml import YAML

SELECTOR = "--selector=jobset.sigs.k8s.io/jobset-name=sami-tldr"


def manifest(calls: list[dict]) -> dict:
    [call] = calls
    assert call["argv"] == ["kubectl", "--namespace=default", "apply", "--filename=-"]
    return YAML(typ="safe").load(call["input"])


def pod_spec(jobset: dict) -> dict:
    [replicated] = jobset["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]["template"]["spec"]


def as_kubernetes_expands(word: str) -> str:
    """$$ is a dollar sign, $(NAME) a variable: here none may be left."""
    assert "$(" not in word.replace("$$", "")
    return re.sub(r"\$\$", "$", word)


def test_manifest(world, hard):
    settings = world.settings("gke", NUM_SLICES="2")
    jobset = manifest(world.check_dry_run("gke.sh", settings, "run", *hard))
    assert (jobset["kind"], jobset["metadata"]["name"]) == ("JobSet", "sami-tldr")
    [replicated] = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert (replicated["replicas"], job["parallelism"], job["completions"]) == (2, 4, 4)
    assert job["completionMode"] == "Indexed"
    pod = pod_spec(jobset)
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "cloud.google.com/gke-spot": "true",
    }
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["cloud.google.com/gke-spot"]
    [container] = pod["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": "4"}
    assert container["volumeMounts"] == [{"name": "shared", "mountPath": "/mnt/sami"}]
    assert [as_kubernetes_expands(word) for word in container["command"]] == [
        *["sami", "run", "--distributed", "--config=tldr_mistral7b", "--workdir=/mnt/sami/runs/tldr"],
        *hard,
    ]


def test_starts_again_but_not_for_ever_and_not_in_vain(world):
    jobset = manifest(world.check_dry_run("gke.sh", world.settings("gke", MAX_RESTARTS="7"), "run"))
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 7
    assert jobset["spec"]["failurePolicy"]["rules"] == [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["backoffLimit"] == 0 and pod_spec(jobset)["restartPolicy"] == "Never"
    [rule] = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["values"] == [2, 3, 5]
    assert rule["onExitCodes"]["containerName"] == pod_spec(jobset)["containers"][0]["name"]


@pytest.mark.parametrize(
    ("changes", "annotations", "volume"),
    [
        ({}, {"gke-gcsfuse/volumes": "true"}, "csi"),
        ({"BUCKET": None, "NFS": "10.0.0.2:/share"}, {}, "nfs"),
    ],
)
def test_storage(world, changes, annotations, volume):
    settings = world.settings("gke", CAPACITY="on_demand", **changes)
    jobset = manifest(world.check_dry_run("gke.sh", settings, "run"))
    template = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    assert template["metadata"]["annotations"] == annotations
    [shared] = template["spec"]["volumes"]
    assert shared["name"] == "shared"
    if volume == "nfs":
        assert shared["nfs"] == {"server": "10.0.0.2", "path": "/share"}
    else:
        assert shared["csi"]["volumeAttributes"]["bucketName"] == "my-bucket"
    assert template["spec"]["tolerations"] == [] and "cloud.google.com/gke-spot" not in template["spec"]["nodeSelector"]


@pytest.mark.parametrize(
    ("action", "commands"),
    [
        (
            "tail",
            [
                [
                    *["logs", "--follow", "--tail=100", "--container=sami"],
                    f"{SELECTOR},jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0",
                ]
            ],
        ),
        ("status", [["get", "jobset", "sami-tldr"], ["get", "pods", SELECTOR, "--output=wide"]]),
        ("delete", [["delete", "jobset", "sami-tldr"]]),
    ],
)
def test_other_actions(world, action, commands):
    settings = world.settings("gke", CONTEXT="my cluster", NAMESPACE="team")
    calls = world.check_dry_run("gke.sh", settings, action)
    start = ["kubectl", "--namespace=team", "--context=my cluster"]
    assert [call["argv"] for call in calls] == [[*start, *command] for command in commands]
