"""Fills in jobset.yaml: fill_in.py TEMPLATE NAME=TEXT NAME:=NUMBER ... -- COMMAND...

Every value becomes JSON, which is YAML as well, so that no text can become anything but a text. Standard library only.
"""

import json
import string
import sys
from pathlib import Path

QUEUE = "kueue.x-k8s.io/queue-name"
# The sidecar's limits are small by themselves, and it would be ended while it writes a checkpoint; 0 is none.
_FUSE = {
    "gke-gcsfuse/volumes": "true",
    "gke-gcsfuse/cpu-limit": "0",
    "gke-gcsfuse/memory-limit": "0",
    "gke-gcsfuse/ephemeral-storage-limit": "0",
}


def fill_in(template: str, values: dict[str, str | int], command: list[str]) -> str:
    """The manifest.

    Raises:
      KeyError: the template asks for what `values` does not hold.
    """
    spot = "cloud.google.com/gke-spot"
    nodes = {
        "cloud.google.com/gke-tpu-accelerator": values["TPU_TYPE"],
        "cloud.google.com/gke-tpu-topology": values["TOPOLOGY"],
        **_pairs(values["NODE_LABELS"]),
    }
    tolerations = []
    if values["CAPACITY"] == "spot":
        nodes[spot] = "true"
        tolerations = [{"key": spot, "operator": "Equal", "value": "true", "effect": "NoSchedule"}]
    made = {
        # Kubernetes puts variables in for $(NAME) in a command; $$ stands for a $.
        "COMMAND": [word.replace("$", "$$") for word in command],
        "NODES": nodes,
        "TOLERATIONS": tolerations,
        "ANNOTATIONS": _FUSE if values["BUCKET"] else {},
        "LABELS": _pairs(values["LABELS"]) | ({QUEUE: values["QUEUE"]} if values["QUEUE"] else {}),
        "COMPILED": f"{values['MOUNT']}/compiled",
        "PORT": int(values["COORDINATOR_PORT"]),
        "VOLUME": _volume(str(values["BUCKET"]), str(values["NFS"])),
    }
    as_json = {name: json.dumps(value, ensure_ascii=False) for name, value in (values | made).items()}
    priority = values["PRIORITY_CLASS"]
    as_json["PRIORITY"] = f"priorityClassName: {json.dumps(priority)}" if priority else ""
    return string.Template(template).substitute(as_json)


def _pairs(text: str | int) -> dict[str, str]:
    """Of A=B,C=D."""
    return dict(pair.split("=", 1) for pair in str(text).split(",") if pair)


def _volume(bucket: str, nfs: str) -> dict:
    if nfs:
        server, path = nfs.split(":", 1)
        return {"name": "shared", "nfs": {"server": server, "path": path}}
    # As in tpu_host.sh: hosts see each other's files at once; models are written beside and then renamed, folders and all.
    options = "implicit-dirs,metadata-cache:ttl-secs:0,metadata-cache:negative-ttl-secs:0,rename-dir-limit=100000"
    attributes = {"bucketName": bucket, "mountOptions": options}
    return {"name": "shared", "csi": {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes}}


def main(template: str, *arguments: str) -> None:
    end = arguments.index("--")
    values: dict[str, str | int] = {}
    for argument in arguments[:end]:
        name, value = argument.split("=", 1)
        values |= {name[:-1]: int(value)} if name.endswith(":") else {name: value}
    sys.stdout.write(fill_in(Path(template).read_text(encoding="utf-8"), values, list(arguments[end + 1 :])))


if __name__ == "__main__":
    main(*sys.argv[1:])
