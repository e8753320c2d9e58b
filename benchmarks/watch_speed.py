"""Lines a second and memory of `sami watch` without a judge, as a process of its own: python -m benchmarks.watch_speed

The log is that of benchmarks/traffic.py, even traffic. A tenth of it is watched too: what memory depends on the lines shows then.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.traffic import Speaker

RESULTS = Path(__file__).parent / "results"


def watched(log: Path, output: Path) -> tuple[float, float, int]:
    """Seconds of CPU, the most memory in MiB, and the windows of `sami watch`."""
    sami = Path(sys.executable).with_name("sami")
    command = [sami, "watch", log, "--output", output, "--judge", "none"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if (code := os.waitstatus_to_exitcode(status)) not in (0, 3):  # 3: an alarm
        sys.exit(f"sami watch: status {code}")
    windows = len((output / "watch.jsonl").read_bytes().splitlines())
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, windows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lines", type=int, default=1_000_000)
    arguments = parser.parse_args()
    rows = ["| lines | MB | seconds of CPU | lines a second | windows | memory, MiB |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as place:
        for count in (arguments.lines // 10, arguments.lines):
            log = Path(place) / f"{count}.jsonl"
            speaker = Speaker("lines", a_day=10_000)  # three months
            with log.open("wb") as file:
                file.writelines(speaker.line() + b"\n" for _ in range(count))
            seconds, memory, windows = watched(log, Path(place) / f"watch-{count}")
            size = log.stat().st_size / 1e6
            rows.append(
                f"| {count:,} | {size:.0f} | {seconds:.1f} | {count / seconds:,.0f} | {windows} | {memory:.0f} |"
            )
    about = f"`python -m benchmarks.watch_speed`: the defaults, no judge; start and page counted. Python {platform.python_version()}."
    table = "\n".join([about, "", *rows]) + "\n"
    (RESULTS / "watch_speed.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
