"""Plays gcloud, kubectl, Slurm's commands and what hosts need, under whichever name it is called by. Keeps all in $WORLD.

Writes each call as a line of record.jsonl. Answers as answers.json says: {"part of a command line": [[exit status, text], ...]},
one after the other, the last for good. `gcloud ... ssh` has each host of hosts/ run the command by bash, `scp` copies to them,
and srun runs its command once; on a host, `sami` ends with the statuses in the host's file `sami`, where "wait" waits for a TERM.

As in gcloud's source: of a queued resource, a node that does not answer (its folder holds a file `gone`) is left out, and the
exit status is 0 all the same; a TPU VM's that does not answer gives 255. The machine's metadata know all hosts of a slice.
"""

import json
import os
import signal
import sys
from pathlib import Path

world = Path(os.environ["WORLD"])
name = Path(sys.argv[0]).name
argv = [name, *sys.argv[1:]]
line = " ".join(argv)


def take(file: Path, key: str):
    """The next of a list of answers in a JSON file; None where there is no list for this."""
    lists = json.loads(file.read_text()) if file.exists() else {}
    answers = next((answers for part, answers in lists.items() if part in key), None)
    if not answers:
        return None
    if len(answers) == 1:
        return answers[0]
    answer = answers.pop(0)
    fresh = file.with_suffix(f".{os.getpid()}")  # others may be reading the file
    fresh.write_text(json.dumps(lists))
    fresh.rename(file)
    return answer


def on_hosts() -> int:
    """gcloud's ssh or scp; as with gcloud, the exit status is the first that is not 0."""
    import shutil  # here, since most calls end sooner
    import subprocess

    hosts = sorted((world / "hosts").iterdir())
    hosts = hosts if "--worker=all" in argv else hosts[:1]
    status = 0
    if gone := [host for host in hosts if (host / "gone").exists()]:
        if "queued-resources" not in argv:
            print("ERROR: (gcloud.compute.tpus.tpu-vm.ssh) [255] no answer", file=sys.stderr)
            return 255
        print(f"Could not prepare all {len(hosts)} nodes, attempting to ssh into the rest.", file=sys.stderr)
        hosts = [host for host in hosts if host not in gone]
    for host in hosts:
        if "scp" in argv:
            for file in argv[argv.index("scp") + 1 :]:
                if file.endswith(":"):
                    break
                shutil.copy(file, host)
        else:
            command = next(word.removeprefix("--command=") for word in argv if word.startswith("--command="))
            there = os.environ | {"HOME": str(host), "PATH": f"{world}/host_bin:{os.environ['PATH']}"}
            # gcloud takes the command apart at spaces, and ssh puts it together again.
            done = subprocess.run(["bash", "-c", " ".join(command.split(" "))], cwd=host, env=there)
            status = status or done.returncode
    return status


call = {"argv": argv}
if name == "sbatch" or "--filename=-" in argv:
    call["input"] = sys.stdin.read()
if name == "sami":
    call["home"] = Path(os.environ["HOME"]).name
    call["port"], call["cache"] = (os.environ.get(f"JAX_{it}") for it in ("COORDINATOR_PORT", "COMPILATION_CACHE_DIR"))
with open(world / "record.jsonl", "a", encoding="utf-8") as record:
    record.write(json.dumps(call) + "\n")

answer = take(world / "answers.json", line)
if answer is not None:
    print(answer[1], file=sys.stderr if answer[0] else sys.stdout)
    sys.exit(answer[0])
if name == "gcloud" and ("ssh" in argv or "scp" in argv):
    sys.exit(on_hosts())
if name == "curl" and line.endswith("/attributes/worker-network-endpoints"):
    print(",".join(f"unknown:unknown:10.0.0.{number}" for number in range(int((world / "hosts_a_slice").read_text()))))
if name == "srun":
    (world / "tasks.pid").write_text(str(os.getpid()))
    program = next(n for n, word in enumerate(argv) if word.startswith("/"))
    os.execv(argv[program], argv[program:])
if name == "scancel":  # reaches the tasks, not srun nor the batch script
    os.kill(int((world / "tasks.pid").read_text()), signal.SIGTERM)
if name == "sami":
    status = take(Path(os.environ["HOME"]) / "sami.json", line)
    if status == "wait":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        (Path(os.environ["HOME"]) / "waiting").touch()
        signal.pause()
    sys.exit(status or 0)
