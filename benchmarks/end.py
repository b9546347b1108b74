"""From the workload's end to the end of a Slurm job, and of a Job's containers: whose the time is.

    sudo .venv/bin/python benchmarks/end.py slurm --nodes 4 --rounds 3
    sudo .venv/bin/python benchmarks/end.py pods --nodes 2 --rounds 3 --load 4

A real Slurm (tests/slurm_cluster.py), where a job that only sleeps is the floor: what it takes is Slurm's own. The pods
are those of k8s/base as a kubelet starts them (tests/kubelet.py), each with the entrypoint as PID 1, and end with it.
``--load N`` keeps N processes busy meanwhile. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import controllers
import kubelet
from hosts import make_hosts, wait_for
from slurm_cluster import slurm_on_hosts

REPOSITORY = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
PYTHON = {str(REPOSITORY), sys.prefix, sys.base_prefix, *filter(None, sys.path)}
WORKLOAD = "import os, ray, time; ray.init(logging_level=40); print('ended at', time.time(), flush=True); os._exit(0)"
JOBS = {
    "floor": "sleep 2; echo ended at $(date +%s.%N)",
    "ray-bootstrap": f"{BIN}/ray-bootstrap -- {BIN}/python ../workload.py",
}
SCRIPT = """\
#!/bin/bash
#SBATCH --output=%x-%j.out
export RAY_BOOTSTRAP_SECRET=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \\n')
srun --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=0 --mpi=none sh -c '{command}; echo task gone at $(date +%s.%N)'
echo srun gone at $(date +%s.%N)
"""
Stages = dict[str, float]
"""Seconds from the workload's end, by what had ended."""


def stamps(text: str, what: str) -> list[float]:
    """Return the epoch seconds in the lines of ``text`` that say ``what``."""
    return [float(seconds) for seconds in re.findall(rf"{what} at ([0-9.]+)", text)]


def slurm_jobs(nodes: int, rounds: int, base: Path) -> Iterator[tuple[str, Stages]]:
    """Yield the stages of the jobs, the floor's and ours in turn."""
    with slurm_on_hosts(base, nodes=nodes) as slurm:
        (slurm.folder / "workload.py").write_text(WORKLOAD)
        for name, command in list(JOBS.items()) * rounds:
            script = slurm.folder / f"{name}.sh"
            script.write_text(SCRIPT.format(command=command))
            sizes = (f"--nodes={nodes}", "--cpus-per-task=1", "--mem-per-cpu=900M")
            job = slurm.submit(*sizes, str(script), env={"HOME": "/tmp/home"})
            if slurm.wait(job)["JobState"] != "COMPLETED":
                raise RuntimeError(slurm.output(job))
            gone, said = time.time(), slurm.output(job)
            end = max(stamps(said, "ended"))
            tasks = stamps(said, "task gone")
            yield name, {"last task": max(tasks) - end, "srun": stamps(said, "srun gone")[0] - end, "job": gone - end}


def pods(nodes: int, rounds: int, base: Path) -> Iterator[tuple[str, Stages]]:
    """Yield the stages of the base's Job, with our own workload."""
    objects = kubelet.render("k8s/base")
    job = kubelet.only(objects, "Job")
    job["spec"] |= {"completions": nodes, "parallelism": nodes}
    container = kubelet.container(job["spec"]["template"]["spec"])
    container["args"] = ["--", "python", "-c", WORKLOAD]
    next(entry for entry in container["env"] if entry["name"] == "RAY_BOOTSTRAP_NODES")["value"] = str(nodes)
    for number in range(rounds):
        with make_hosts(nodes, base=base / str(number), visible=[*PYTHON, str(base)], dns={}) as hosts:
            agents = kubelet.start(objects, controllers.job_pods(job, hosts), hosts, kubelet.Image())
            gone: dict[int, float] = {}

            def all_ended(gone: dict[int, float] = gone, agents: kubelet.Agents = agents) -> bool:
                for rank, process in enumerate(agents.processes):
                    if process.poll() is not None:
                        gone.setdefault(rank, time.time())
                return len(gone) == nodes

            wait_for(all_ended, timeout=120, what="the end of all pods")
            if set(agents.wait()) != {0}:
                raise RuntimeError("\n".join(map(agents.err, range(nodes))))
            (end,) = stamps(agents.out(0), "ended")
            yield "ray-bootstrap", {"first container": min(gone.values()) - end, "all": max(gone.values()) - end}


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep ``count`` processes busy."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """Measure, and print each round and the medians."""
    measures: dict[str, Callable[[int, int, Path], Iterator[tuple[str, Stages]]]] = {"slurm": slurm_jobs, "pods": pods}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=measures)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--load", type=int, default=0)
    asked = parser.parse_args()
    found: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, busy(asked.load):
        for name, stages in measures[asked.measure](asked.nodes, asked.rounds, Path(folder) / "hosts"):
            print(name, {stage: round(seconds, 2) for stage, seconds in stages.items()}, flush=True)
            for stage, seconds in stages.items():
                found.setdefault((name, stage), []).append(seconds)
    for (name, stage), all_seconds in found.items():
        spread = f"{min(all_seconds):.2f}–{max(all_seconds):.2f}"
        print(f"| {name} | {stage} | {statistics.median(all_seconds):.2f} | {spread} |")


if __name__ == "__main__":
    main()
