"""The JobSet and the commands that send, follow and delete it."""

import re

import pytest
from ruamel.yaml import YAML

# The sidecar's own defaults are for small files: Google's samples for models lift them.
FUSE = {
    f"gke-gcsfuse/{name}": value
    for name, value in {
        "volumes": "true",
        "cpu-limit": "0",
        "memory-limit": "0",
        "ephemeral-storage-limit": "0",
    }.items()
}
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
        *["sami", "run", "--distributed", "--config=tldr_mistral7b"],
        *["--config.model.path=/mnt/sami/models/mistral-7b-v0.1"],
        *["--config.data.queries=/mnt/sami/data/tldr/queries.jsonl", "--workdir=/mnt/sami/runs/tldr"],
        *hard,
    ]


def test_starts_again_but_not_for_ever_and_not_in_vain(world):
    jobset = manifest(world.check_dry_run("gke.sh", world.settings("gke", MAX_RESTARTS="7"), "run"))
    policy = jobset["spec"]["failurePolicy"]
    # Pods of the life before would still be counted among this one's.
    assert (policy["maxRestarts"], policy["restartStrategy"]) == (7, "BlockingRecreate")
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["backoffLimit"] == 0 and pod_spec(jobset)["restartPolicy"] == "Never"
    taken_away, in_vain = job["podFailurePolicy"]["rules"]
    assert taken_away == {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert in_vain["action"] == "FailJob" and in_vain["onExitCodes"]["values"] == [2, 3, 5]
    assert in_vain["onExitCodes"]["containerName"] == pod_spec(jobset)["containers"][0]["name"]


@pytest.mark.parametrize(
    ("failed", "action"),
    [
        (("PodFailurePolicy", "Pod default/sami-tldr-slice-0-1-x has condition DisruptionTarget matching FailJob rule at index 0"), "RestartJobSetAndIgnoreMaxRestarts"),
        (("PodFailurePolicy", "Container sami for pod default/sami-tldr-slice-0-0-x failed with exit code 2 matching FailJob rule at index 1"), "FailJobSet"),
        (("BackoffLimitExceeded", "Job has reached the specified backoff limit"), None),  # counts against maxRestarts
    ],
)  # fmt: skip
def test_what_the_jobset_controller_does(world, failed, action):
    """As it reads its rules (KEP-262): the first whose reasons and patterns of the message both fit."""
    rules = manifest(world.check_dry_run("gke.sh", world.settings("gke"), "run"))["spec"]["failurePolicy"]["rules"]
    reason, message = failed
    fit = [
        rule["action"]
        for rule in rules
        if reason in rule["onJobFailureReasons"]
        and any(re.search(pattern, message) for pattern in rule["onJobFailureMessagePatterns"])
    ]
    assert next(iter(fit), None) == action


def test_queue_priority_and_placement(world):
    settings = world.settings(
        "gke", QUEUE="team-queue", PRIORITY_CLASS="low", LABELS="team=a,cost=b", NODE_LABELS="cloud.google.com/placement-policy-name=mine"
    )  # fmt: skip
    jobset = manifest(world.check_dry_run("gke.sh", settings, "run"))
    assert jobset["metadata"]["labels"] == {"team": "a", "cost": "b", "kueue.x-k8s.io/queue-name": "team-queue"}
    pod = pod_spec(jobset)
    assert pod["priorityClassName"] == "low"
    assert pod["nodeSelector"]["cloud.google.com/placement-policy-name"] == "mine"
    plain = manifest(world.check_dry_run("gke.sh", world.settings("gke"), "run"))
    assert plain["metadata"]["labels"] == {} and "priorityClassName" not in pod_spec(plain)


def test_port_and_compiled_programs(world):
    settings = world.settings("gke", COORDINATOR_PORT="9000", LOST_AFTER="900")
    [container] = pod_spec(manifest(world.check_dry_run("gke.sh", settings, "run")))["containers"]
    assert container["env"] == [
        {"name": "JAX_COORDINATOR_PORT", "value": "9000"},
        {"name": "JAX_COMPILATION_CACHE_DIR", "value": "/mnt/sami/compiled"},
    ]
    assert {"containerPort": 9000} in container["ports"] and "--lost_after=900" in container["command"]


@pytest.mark.parametrize(
    ("changes", "annotations", "volume"),
    [
        ({}, FUSE, "csi"),
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
        options = shared["csi"]["volumeAttributes"]["mountOptions"].split(",")
        assert {"metadata-cache:ttl-secs:0", "metadata-cache:negative-ttl-secs:0"} < set(options)
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
