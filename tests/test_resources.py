"""CPUs, memory and GPUs: the least that anybody grants."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrap import timeouts
from bootstrap.errors import PreflightFailed
from bootstrap.host import Host
from bootstrap.model import Gpu, Resources
from bootstrap.node import resources
from bootstrap.node.gpus import GpuReport
from bootstrap.settings import Settings

GIB = 1 << 30
STEP = {"SLURM_STEP_ID": "0"}
SLURM_GROUP, SLURM_SCOPE = (
    "/slurm/uid_7/job_42/step_0/task_0",
    "/system.slice/slurmstepd.scope/job_42/step_0/user/task_0",
)
POD = "/kubepods/burstable/pod1/c1"
REQUEST = ", as there is no limit (POD_CPU_REQUEST_MILLI)"


def measure(
    root: Path,
    files: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    allowed: int = 64,
    report: GpuReport | None = None,
    **options: Any,
) -> Resources:
    for name, text in {
        "/proc/meminfo": f"MemTotal:       {256 * GIB // 1024} kB\nMemFree: 1 kB\n",
        **(files or {}),
    }.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    host = Host(env=env or {}, hostname="node", root=root)
    return resources.measure(
        Settings(**options), host, allowed=lambda: allowed, find=lambda _host, _expected: report or GpuReport()
    )


def v2(group: str, files: Mapping[str, str]) -> dict[str, str]:
    """A machine with cgroup v2, and the process in ``group``."""
    mounted = {f"/sys/fs/cgroup{name}": text for name, text in files.items()}
    return {"/proc/self/cgroup": f"0::{group}\n", "/sys/fs/cgroup/cgroup.procs": "", **mounted}


def v1(group: str, files: Mapping[str, str]) -> dict[str, str]:
    lines = "".join(
        f"{n}:{c}:{group}\n" for n, c in ((9, "memory"), (4, "cpu,cpuacct"), (2, "cpuset"), (1, "name=systemd"))
    )
    mounted = {f"/sys/fs/cgroup{name}": text for name, text in files.items()}
    return {"/proc/self/cgroup": lines, **mounted}


@pytest.mark.parametrize(
    ("files", "env", "cpus", "source"),
    [
        ({}, {}, 64, "affinity"),
        (v2("/", {"/cpu.max": "400000 100000\n"}), {}, 4, "cgroup v2 cpu.max 400000/100000 of / (affinity: 64)"),
        (v2("/", {"/cpu.max": "max 100000\n"}), {}, 64, "affinity"),
        (v2("/", {"/cpu.max": "150000 100000\n"}), {}, 1, "cgroup v2 cpu.max 150000/100000 of / (affinity: 64)"),
        (v2("/", {"/cpu.max": "20000 100000\n"}), {}, 1, "cgroup v2 cpu.max 20000/100000 of / (affinity: 64)"),
        (
            v2(POD, {f"{POD}/cpu.max": "max 100000\n", "/kubepods/burstable/pod1/cpu.max": "250000 50000\n"}),
            {},
            5,
            "cgroup v2 cpu.max 250000/50000 of /kubepods/burstable/pod1 (affinity: 64)",
        ),
        # The path is the host's, the mount the container's own: nothing of the path is there.
        (v2(POD, {"/cpu.max": "300000 100000\n"}), {}, 3, "cgroup v2 cpu.max 300000/100000 of / (affinity: 64)"),
        (
            v2("/../../other", {"/cpu.max": "300000 100000\n"}),
            {},
            3,
            "cgroup v2 cpu.max 300000/100000 of / (affinity: 64)",
        ),
        (
            v2("/a", {"/a/cpuset.cpus.effective": "0-3,8,10-11\n", "/cpuset.cpus.effective": "0-63\n"}),
            {},
            7,
            (
                "cgroup v2 cpuset.cpus.effective 0-3,8,10-11 of /a"
                " (affinity: 64; cgroup v2 cpuset.cpus.effective 0-63 of /: 64)"
            ),
        ),
        (
            v1("/d", {"/cpu,cpuacct/d/cpu.cfs_quota_us": "200000\n", "/cpu,cpuacct/d/cpu.cfs_period_us": "100000\n"}),
            {},
            2,
            "cgroup v1 cpu.cfs_quota_us 200000/100000 of /d (affinity: 64)",
        ),
        (
            v1("/d", {"/cpu/cpu.cfs_quota_us": "200000\n", "/cpu/cpu.cfs_period_us": "50000\n"}),
            {},
            4,
            "cgroup v1 cpu.cfs_quota_us 200000/50000 of / (affinity: 64)",
        ),
        (v1("/", {"/cpu/cpu.cfs_quota_us": "-1\n", "/cpu/cpu.cfs_period_us": "100000\n"}), {}, 64, "affinity"),
        # Kubernetes' request counts where there is no limit, in whole CPUs; 0 is no request.
        (
            v2("/", {"/cpu.max": "max 100000\n"}),
            {"POD_CPU_REQUEST_MILLI": "2000"},
            2,
            f"requests.cpu 2000m{REQUEST} (affinity: 64)",
        ),
        ({}, {"POD_CPU_REQUEST_MILLI": "500"}, 1, f"requests.cpu 500m{REQUEST} (affinity: 64)"),
        ({}, {"POD_CPU_REQUEST_MILLI": "1500"}, 1, f"requests.cpu 1500m{REQUEST} (affinity: 64)"),
        ({}, {"POD_CPU_REQUEST_MILLI": "0"}, 64, "affinity"),
        ({}, {"POD_CPU_REQUEST_MILLI": "2.5"}, 64, "affinity"),
        (
            v2("/", {"/cpu.max": "400000 100000\n"}),
            {"POD_CPU_REQUEST_MILLI": "1000"},
            4,
            "cgroup v2 cpu.max 400000/100000 of / (affinity: 64)",
        ),
        (
            v1("/", {"/cpu/cpu.cfs_quota_us": "-1\n", "/cpu/cpu.cfs_period_us": "100000\n"}),
            {"POD_CPU_REQUEST_MILLI": "3000"},
            3,
            f"requests.cpu 3000m{REQUEST} (affinity: 64)",
        ),
        # A set of CPUs is what the machine has for all pods without a set of their own: the request still counts.
        (
            v2("/", {"/cpuset.cpus.effective": "2-63\n"}),
            {"POD_CPU_REQUEST_MILLI": "1000"},
            1,
            f"requests.cpu 1000m{REQUEST} (cgroup v2 cpuset.cpus.effective 2-63 of /: 62; affinity: 64)",
        ),
        (v1("/d", {"/cpuset/d/cpuset.cpus": "4-5\n"}), {}, 2, "cgroup v1 cpuset.cpus 4-5 of /d (affinity: 64)"),
        # A hybrid machine: v1 controllers, and v2 beside them without any.
        (
            {
                "/proc/self/cgroup": "4:cpu,cpuacct:/\n0::/init.scope\n",
                "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "600000",
                "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
                "/sys/fs/cgroup/unified/cgroup.procs": "",
            },
            {},
            6,
            "cgroup v1 cpu.cfs_quota_us 600000/100000 of / (affinity: 64)",
        ),
        ({}, {**STEP, "SLURM_CPUS_ON_NODE": "72"}, 64, "affinity (SLURM_CPUS_ON_NODE=72: 72)"),
        ({}, {**STEP, "SLURM_CPUS_ON_NODE": "32"}, 32, "SLURM_CPUS_ON_NODE=32 (affinity: 64)"),
        (
            {},
            {"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_CPUS_ON_NODE": "32", "SLURM_CPUS_PER_TASK": "16"},
            16,
            "SLURM_CPUS_PER_TASK=16 (SLURM_CPUS_ON_NODE=32: 32; affinity: 64)",
        ),
        (
            {},
            {**STEP, "SLURM_JOB_CPUS_PER_NODE": "72(x2),36", "SLURM_NODEID": "2", "SLURM_STEP_NUM_NODES": "3"},
            36,
            "SLURM_JOB_CPUS_PER_NODE=72(x2),36 for node 2 (affinity: 64)",
        ),
        # A step on some of the job's nodes: which of them, the variable does not say.
        (
            {},
            {**STEP, "SLURM_JOB_CPUS_PER_NODE": "8,4", "SLURM_NODEID": "0", "SLURM_STEP_NUM_NODES": "1"},
            64,
            "affinity",
        ),
        # In the batch script, or a login shell of a job, they speak of something else.
        ({}, {"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "2", "SLURM_CPUS_PER_TASK": "1"}, 64, "affinity"),
        ({}, {**STEP, "SLURM_CPUS_ON_NODE": "", "SLURM_CPUS_PER_TASK": "x"}, 64, "affinity"),
    ],
)
def test_cpus(tmp_path: Path, files: dict[str, str], env: dict[str, str], cpus: int, source: str) -> None:
    found = measure(tmp_path, files, env)
    assert (found.cpus, found.sources["cpus"]) == (cpus, source)


def test_the_option_goes_before_what_was_found(tmp_path: Path) -> None:
    found = measure(tmp_path, num_cpus=0)
    assert (found.cpus, found.sources["cpus"]) == (0, "--num-cpus (found: 64 from affinity)")


@pytest.mark.parametrize(
    ("files", "env", "memory", "source"),
    [
        ({}, {}, 256 * GIB, "MemTotal"),
        (v2("/", {"/memory.max": f"{8 * GIB}\n"}), {}, 8 * GIB, f"cgroup v2 memory.max of / (MemTotal: {256 * GIB})"),
        (v2("/", {"/memory.max": "max\n"}), {}, 256 * GIB, "MemTotal"),
        (
            v2("/j/s", {"/j/s/memory.max": "max\n", "/j/memory.max": f"{16 * GIB}\n"}),
            {},
            16 * GIB,
            f"cgroup v2 memory.max of /j (MemTotal: {256 * GIB})",
        ),
        (v1("/d", {"/memory/d/memory.limit_in_bytes": "9223372036854771712\n"}), {}, 256 * GIB, "MemTotal"),
        (
            v1("/d", {"/memory/d/memory.limit_in_bytes": f"{4 * GIB}\n"}),
            {},
            4 * GIB,
            f"cgroup v1 memory.limit_in_bytes of /d (MemTotal: {256 * GIB})",
        ),
        (
            {},
            {**STEP, "SLURM_MEM_PER_NODE": "65536"},
            64 * GIB,
            f"SLURM_MEM_PER_NODE=65536 MiB (MemTotal: {256 * GIB})",
        ),
        ({}, {**STEP, "SLURM_MEM_PER_NODE": "0"}, 256 * GIB, "MemTotal"),
        (
            {},
            {**STEP, "SLURM_MEM_PER_CPU": "2048", "SLURM_CPUS_ON_NODE": "16"},
            32 * GIB,
            f"SLURM_MEM_PER_CPU=2048 MiB × 16 (MemTotal: {256 * GIB})",
        ),
        (
            {},
            {**STEP, "SLURM_MEM_PER_CPU": "2048"},
            128 * GIB,
            f"SLURM_MEM_PER_CPU=2048 MiB × 64 (MemTotal: {256 * GIB})",
        ),
        ({}, {"SLURM_MEM_PER_NODE": "1024"}, 256 * GIB, "MemTotal"),
        # ConstrainRAMSpace=yes: the limit is the job's and the step's, and the task's own group has none.
        (
            v1(
                SLURM_GROUP,
                {
                    f"/memory{SLURM_GROUP}/memory.limit_in_bytes": "9223372036854771712\n",
                    "/memory/slurm/uid_7/job_42/step_0/memory.limit_in_bytes": f"{GIB}\n",
                    "/memory/slurm/uid_7/job_42/memory.limit_in_bytes": f"{2 * GIB}\n",
                },
            ),
            {**STEP, "SLURM_JOB_ID": "42"},
            GIB,
            (
                "cgroup v1 memory.limit_in_bytes of /slurm/uid_7/job_42/step_0"
                f" (cgroup v1 memory.limit_in_bytes of /slurm/uid_7/job_42: {2 * GIB}; MemTotal: {256 * GIB})"
            ),
        ),
        (
            v2(
                SLURM_SCOPE,
                {
                    f"{SLURM_SCOPE}/memory.max": "max\n",
                    "/system.slice/slurmstepd.scope/job_42/step_0/memory.max": f"{GIB}\n",
                },
            ),
            {**STEP, "SLURM_JOB_ID": "42"},
            GIB,
            f"cgroup v2 memory.max of /system.slice/slurmstepd.scope/job_42/step_0 (MemTotal: {256 * GIB})",
        ),
    ],
)
def test_memory(tmp_path: Path, files: dict[str, str], env: dict[str, str], memory: int, source: str) -> None:
    found = measure(tmp_path, files, env)
    assert (found.memory, found.sources["memory"]) == (memory, source)


JOB = (
    "JobId=42 JobName=m.sh UserId=me(7) NodeList=n[0-2] BatchHost=n0 NumNodes=3 NumCPUs=4 TRES=cpu=4,mem=1200M,node=3"
    " JOB_GRES=(null)   Nodes=n0 CPU_IDs=0-1 Mem=600 GRES=   Nodes=n[1-2] CPU_IDs=0 Mem=300 GRES= MinCPUsNode=1"
)
"""What ``scontrol --details --oneliner show job`` says of `srun --nodes=3 --ntasks=4 --mem-per-cpu=300M`, shortened."""
DIRECT = {"SLURM_JOB_ID": "42", "SLURM_STEP_ID": "0", "SLURMD_NODENAME": "n0"}
ASKED = "`scontrol --details show job 42`"


@pytest.mark.parametrize(
    ("script", "env", "memory", "source"),
    [
        (f"echo '{JOB}'", {}, 600 << 20, f"{ASKED}: Mem=600 MiB (MemTotal: {256 * GIB})"),
        (f"echo '{JOB}'", {"SLURMD_NODENAME": "n1"}, 300 << 20, f"{ASKED}: Mem=300 MiB (MemTotal: {256 * GIB})"),
        (f"echo '{JOB.replace('Mem=600', 'Mem=0')}'", {}, 300 << 20, f"{ASKED}: Mem=300 MiB (MemTotal: {256 * GIB})"),
        ("echo JobId=42 Nodes=n0 CPU_IDs=0 Mem=0 GRES=", {}, 256 * GIB, f"MemTotal; {ASKED}: names no memory"),
        (
            "echo 'slurm_load_jobs error: down' >&2; exit 1",
            {},
            256 * GIB,
            f"MemTotal; {ASKED}: slurm_load_jobs error: down",
        ),
        ("exec sleep 60", {}, 256 * GIB, f"MemTotal; {ASKED}: no answer within 0.5 s"),
        ("echo asked >&2", {"SLURM_MEM_PER_NODE": "0"}, 256 * GIB, "MemTotal"),
        (
            "echo asked >&2",
            {"SLURM_MEM_PER_CPU": "16", "SLURM_CPUS_ON_NODE": "2"},
            32 << 20,
            f"SLURM_MEM_PER_CPU=16 MiB × 2 (MemTotal: {256 * GIB})",
        ),
        ("echo asked >&2", {"SLURM_STEP_ID": ""}, 256 * GIB, "MemTotal"),
    ],
)
def test_memory_of_a_step_whose_variables_do_not_say_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, env: dict[str, str], memory: int, source: str
) -> None:
    monkeypatch.setattr(timeouts, "SCONTROL_S", 0.5)
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\n{script}\n")
    scontrol.chmod(0o755)
    found = measure(tmp_path, env={**DIRECT, "PATH": f"{scontrol.parent}:/usr/bin:/bin", **env})
    assert (found.memory, found.sources["memory"]) == (memory, source)


def test_memory_of_a_step_without_scontrol(tmp_path: Path) -> None:
    found = measure(tmp_path, env={**DIRECT, "PATH": str(tmp_path)})
    assert found.memory == 256 * GIB
    assert found.sources["memory"].startswith("MemTotal; neither SLURM_MEM_PER_NODE nor SLURM_MEM_PER_CPU is set")


def test_memory_for_ray_is_not_the_machines(tmp_path: Path) -> None:
    assert measure(tmp_path, memory=GIB, object_store_memory=GIB).memory == 256 * GIB


def test_without_proc(tmp_path: Path) -> None:
    found = resources.measure(Settings(), Host({}, "node", tmp_path / "empty"), find=lambda _h, _e: GpuReport())
    assert found.memory > 0
    assert found.sources["memory"] == "psutil"
    assert found.cpus == resources.affinity() >= 1


def gpus(count: int, name: str = "NVIDIA A100-SXM4-80GB", mig: bool = False) -> tuple[Gpu, ...]:
    return tuple(Gpu(i, f"{'MIG' if mig else 'GPU'}-{name[-2:]}{i}", name, 80 * GIB, mig) for i in range(count))


A100 = "NVIDIA-A100-SXM4-80GB"


@pytest.mark.parametrize(
    ("report", "options", "num_gpus", "custom"),
    [
        (GpuReport(), {}, 0, {}),
        (GpuReport(gpus(8), 8), {}, 8, {A100: 8, "full-worker": 1}),
        (GpuReport(gpus(4), 8), {}, 4, {A100: 4}),
        (GpuReport(gpus(1), 1), {}, 1, {A100: 1, "full-worker": 1}),
        (GpuReport(gpus(2) + gpus(1, "Tesla T4"), 3), {}, 3, {A100: 2, "Tesla-T4": 1, "full-worker": 1}),
        (
            GpuReport(gpus(2, "NVIDIA A100-SXM4-80GB MIG 1g.10gb", mig=True), 7, "MIG-gb0,MIG-gb1"),
            {},
            2,
            {"NVIDIA-A100-SXM4-80GB-MIG-1g.10gb": 2},
        ),
        (GpuReport(gpus(8), 8), {"num_gpus": "3"}, 3, {A100: 3}),
        (GpuReport(gpus(8), 8), {"num_gpus": "8"}, 8, {A100: 8, "full-worker": 1}),
        (GpuReport(gpus(1), 1), {"num_gpus": "2"}, 2, {A100: 1, "full-worker": 1}),
        (GpuReport(gpus(2), 2), {"resources": {"disk": 2, A100: 1.5}}, 2, {A100: 1.5, "full-worker": 1, "disk": 2}),
        (GpuReport(), {"resources": {"full-worker": 1}}, 0, {"full-worker": 1}),
    ],
)
def test_gpus(
    tmp_path: Path, report: GpuReport, options: dict[str, Any], num_gpus: int, custom: dict[str, float]
) -> None:
    found = measure(tmp_path, report=report, **options)
    assert (found.num_gpus, dict(found.custom)) == (num_gpus, custom)
    assert (found.gpus, found.gpu_visibility) == (report.gpus, report.visibility)


def test_more_gpus_than_nvml_shows_are_told(tmp_path: Path) -> None:
    assert measure(tmp_path, num_gpus="2").sources["num_gpus"] == "--num-gpus, although NVML shows 0"


@pytest.mark.parametrize(
    ("env", "report", "message"),
    [
        (
            {"CUDA_VISIBLE_DEVICES": "0,1"},
            GpuReport(gpus(2), 8),
            "--num-gpus=4, but CUDA_VISIBLE_DEVICES='0,1' leaves 2",
        ),
        ({"CUDA_VISIBLE_DEVICES": ""}, GpuReport(), "--num-gpus=4, but CUDA_VISIBLE_DEVICES='' leaves 0"),
        ({}, GpuReport(gpus(1, mig=True), 1, "MIG-GB0"), "--num-gpus=4, but NVML shows 1"),
    ],
)
def test_more_gpus_than_ray_would_accept(tmp_path: Path, env: dict[str, str], report: GpuReport, message: str) -> None:
    with pytest.raises(PreflightFailed) as caught:
        measure(tmp_path, env=env, report=report, num_gpus="4")
    assert caught.value.message == message


def test_no_gpus_wanted_asks_nobody(tmp_path: Path) -> None:
    def broken(_host: Host, _expected: int | None) -> GpuReport:
        raise PreflightFailed("NVML: Driver/library version mismatch")

    host = Host({}, "node", tmp_path)
    assert resources.measure(Settings(num_gpus="0"), host, find=broken).num_gpus == 0
    with pytest.raises(PreflightFailed):
        resources.measure(Settings(num_gpus="1"), host, find=broken)


def test_what_is_expected_is_passed_on(tmp_path: Path) -> None:
    asked: list[int | None] = []

    def find(_host: Host, expected: int | None) -> GpuReport:
        asked.append(expected)
        return GpuReport()

    resources.measure(Settings(expect_gpus=8), Host({}, "node", tmp_path), find=find)
    assert asked == [8]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("72", [72]),
        ("72(x2),36", [72, 72, 36]),
        ("8(x3)", [8, 8, 8]),
        ("1,2,1(x2)", [1, 2, 1, 1]),
        ("", []),
        ("72(x)", []),
        ("72(x2),", []),
        ("n[1-2]", []),
    ],
)
def test_slurm_counts(text: str, counts: list[int]) -> None:
    assert resources.slurm_counts(text) == counts


@given(st.lists(st.tuples(st.integers(1, 512), st.integers(1, 9)), min_size=1, max_size=6))
def test_slurm_counts_expand_what_slurm_folds(runs: list[tuple[int, int]]) -> None:
    folded = ",".join(str(count) if times == 1 else f"{count}(x{times})" for count, times in runs)
    assert resources.slurm_counts(folded) == [count for count, times in runs for _ in range(times)]


@given(st.sets(st.integers(0, 300), min_size=1))
def test_cpu_list(cpus: set[int]) -> None:
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and ranges[-1][1] == cpu - 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    text = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
    assert resources.cpu_list(text + "\n") == len(cpus)


@pytest.mark.parametrize("text", ["", "\n", "a", "1-", "-1", "0-3,"])
def test_what_is_no_cpu_list(text: str) -> None:
    assert resources.cpu_list(text) == 0
