"""What the agent costs up to its first child, the process that imports Ray; beside it ``ray --version``.

python benchmarks/start.py

tests/test_startup.py holds what it imports until then to a count; no test holds a time, as machines differ.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from test_startup import HOOK

ROUNDS = 15


def agent(folder: Path) -> tuple[float, float]:
    """CPU and wall time, in seconds."""
    result = folder / "result.json"
    env = {**os.environ, "PYTHONPATH": str(folder), "STARTUP": str(result)}
    begun = time.time()
    argv = [sys.executable, "-m", "bootstrap", "--", "true"]
    subprocess.run(argv, env=env, cwd=Path(__file__).parent.parent, stderr=subprocess.DEVNULL, check=False)
    found = json.loads(result.read_text())
    return found["seconds"], found["at"] - begun


def ray_version(_: Path) -> tuple[float, float]:
    """The same of ``ray --version``."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    subprocess.run([Path(sys.executable).with_name("ray"), "--version"], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.time() - begun


def main() -> None:
    """A table: median and range."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(HOOK)
        samples = [(agent(folder), ray_version(folder)) for _ in range(ROUNDS)]
    print("| | CPU (s) | wall (s) |\n|---|---|---|")
    for title, rows in zip(
        ("ray-bootstrap, to its first child", "ray --version"), zip(*samples, strict=True), strict=True
    ):
        columns = [f"{statistics.median(c):.2f} ({min(c):.2f}–{max(c):.2f})" for c in zip(*rows, strict=True)]
        print(f"| {title} | {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
