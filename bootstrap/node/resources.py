"""What this node offers to Ray: CPUs, memory and GPUs, each the minimum of all limits.

Ray by itself ignores the affinity, cgroup v2 cpusets and Slurm's grant.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence

from bootstrap import cgroup
from bootstrap.errors import PreflightFailed
from bootstrap.host import Host
from bootstrap.model import Gpu, Resources
from bootstrap.node import gpus, slurm
from bootstrap.node.by_role import expected
from bootstrap.settings import Settings

Grant = tuple[int, str]
"""An amount, and its source."""
Find = Callable[[Host, "float | None"], gpus.GpuReport]

CPU_REQUEST = "POD_CPU_REQUEST_MILLI"
"""Variable with the container's ``requests.cpu`` in thousandths of a CPU, by the downward API with ``divisor: 1m``.

With the default divisor the kubelet rounds 1500m up to 2. It is 0 where the container requests none. ``limits.cpu`` is
of no use: without a limit it is what the machine has
(https://kubernetes.io/docs/concepts/workloads/pods/downward-api)."""
_SLURM_COUNTS = re.compile(r"([0-9]+)(?:\(x([0-9]+)\))?")
_MIB = 1024 * 1024
_SLURM_MEMORY = ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU")


def affinity() -> int:
    """Return the number of CPUs that the kernel may run this process on (sched_setaffinity(2))."""
    return len(os.sched_getaffinity(0))


def measure(
    settings: Settings, host: Host, *, allowed: Callable[[], int] = affinity, find: Find = gpus.find
) -> Resources:
    """Return this node's CPUs, memory in bytes, and GPUs; options override what was found.

    :raises PreflightFailed: if NVML is broken (see :func:`bootstrap.node.gpus.find`), or ``--num-gpus`` exceeds what
        CUDA_VISIBLE_DEVICES allows.
    """
    cpus, cpus_source = _minimum([(allowed(), "affinity"), *_cpu_grants(host)])
    memory, memory_source = _minimum(list(_memory_grants(host, allowed)))
    if settings.num_cpus is not None:
        option = "--num-cpus" if settings.head_cpus is None else "--head-cpus"
        cpus, cpus_source = settings.num_cpus, f"{option} (found: {cpus} from {cpus_source})"
    # --num-gpus=0 is also the way past a broken NVML, so it must not start NVML.
    none = settings.num_gpus.isdecimal() and int(settings.num_gpus) == 0
    wanted = expected(settings).get("GPU")
    report = gpus.GpuReport(sources={"gpus": f"{_gpus_option(settings)}=0"}) if none else find(host, wanted)
    num_gpus, num_gpus_source = _num_gpus(settings, host, report)
    custom = {**_gpu_resources(report, num_gpus), **settings.resources}
    sources = {"cpus": cpus_source, "memory": memory_source, "num_gpus": num_gpus_source, **report.sources}
    no_gpus = (report.trouble.text, report.trouble.remedy) if report.trouble else ("", "")
    return Resources(cpus, memory, report.gpus, report.visibility, num_gpus, custom, no_gpus, sources)


def slurm_counts(text: str) -> list[int]:
    """Return one number per node from Slurm's ``72(x2),36``; none if the text is malformed."""
    counts: list[int] = []
    for part in text.split(","):
        match = _SLURM_COUNTS.fullmatch(part.strip())
        if match is None or len(match[2] or "") > 6:
            return []
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def cpu_list(text: str) -> int:
    """Return how many CPUs the kernel's ``0-3,8`` lists; 0 if the text is malformed."""
    count = 0
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            return 0
        count += int(last) - int(first) + 1 if dash else 1
    return count


def _minimum(grants: Sequence[Grant]) -> Grant:
    """Return the smallest grant, with the others in its source."""
    ordered = sorted(grants, key=lambda grant: grant[0])
    if not ordered:
        return 0, "unknown"
    amount, source = ordered[0]
    others = "; ".join(f"{name}: {more}" for more, name in ordered[1:])
    return amount, f"{source} ({others})" if others else source


def _cpu_grants(host: Host) -> Iterator[Grant]:
    """Yield each limit in whole CPUs, at least one: a quota of 1.5 would run two threads at three quarters of speed."""
    quotas = list(_cpu_quotas(host))
    yield from quotas or _cpu_request(host)
    for name, v2 in (("cpuset.cpus.effective", True), ("cpuset.cpus", False)):
        for path, text in cgroup.values(host, "cpuset", name, v2=v2):
            if count := cpu_list(text):
                yield count, f"cgroup v{2 if v2 else 1} {name} {text} of {path}"
    yield from _slurm_cpus(host)


def _cpu_quotas(host: Host) -> Iterator[Grant]:
    for path, text in cgroup.values(host, "cpu", "cpu.max", v2=True):
        quota, _, period = text.partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period):
            yield max(1, int(quota) // int(period)), f"cgroup v2 cpu.max {quota}/{period} of {path}"
    periods = dict(cgroup.values(host, "cpu", "cpu.cfs_period_us", v2=False))
    for path, quota in cgroup.values(host, "cpu", "cpu.cfs_quota_us", v2=False):
        period = periods.get(path, "")
        if quota.isdecimal() and period.isdecimal() and int(period):  # -1: no limit
            yield max(1, int(quota) // int(period)), f"cgroup v1 cpu.cfs_quota_us {quota}/{period} of {path}"


def _cpu_request(host: Host) -> Iterator[Grant]:
    """Yield what the scheduler of Kubernetes has set aside for this container: only without a limit, which is more."""
    value = host.get(CPU_REQUEST) or ""
    if value.isdecimal() and int(value):
        yield max(1, int(value) // 1000), f"requests.cpu {value}m, as there is no limit ({CPU_REQUEST})"


def _slurm_cpus(host: Host) -> Iterator[Grant]:
    """Yield Slurm's grants to this node; only in a step, as elsewhere the variables may be another node's."""
    if not _in_step(host):
        return
    for name in ("SLURM_CPUS_ON_NODE", "SLURM_CPUS_PER_TASK"):
        # Per task means per node: a second task on a node is an error.
        value = host.get(name) or ""
        if value.isdecimal() and int(value):
            yield int(value), f"{name}={value}"
    counts, rank = slurm_counts(host.get("SLURM_JOB_CPUS_PER_NODE") or ""), host.get("SLURM_NODEID") or ""
    # The list is the job's and the rank the step's: they match only if the step has all nodes of the job.
    fits = str(len(counts)) == host.get("SLURM_STEP_NUM_NODES") and rank.isdecimal() and int(rank) < len(counts)
    if fits and counts[int(rank)]:
        yield counts[int(rank)], f"SLURM_JOB_CPUS_PER_NODE={host.get('SLURM_JOB_CPUS_PER_NODE')} for node {rank}"


def _memory_grants(host: Host, allowed: Callable[[], int]) -> Iterator[Grant]:
    total, source = _memory_of_machine(host)
    limits = [(usage.limit, usage.source) for usage in cgroup.usages(host, "memory")]
    given = [*limits, *_slurm_memory(host, allowed)]
    if _in_step(host) and not _memory_is_known(host, limits):
        mib, said = slurm.ask_for_memory(host)
        if mib:
            given.append((mib * _MIB, said))
        else:
            source = f"{source}; {said}"
    yield total, source
    yield from given


def _memory_of_machine(host: Host) -> Grant:
    total = re.search(r"^MemTotal:\s*([0-9]+) kB", host.read("/proc/meminfo") or "", re.MULTILINE)
    if total is not None:
        return int(total[1]) * 1024, "MemTotal"
    import psutil  # noqa: PLC0415 (25 ms, and only without /proc)

    return psutil.virtual_memory().total, "psutil"


def _slurm_memory(host: Host, allowed: Callable[[], int]) -> Iterator[Grant]:
    """Yield what Slurm's variables say; only in a step, as elsewhere they may be another node's."""
    if not _in_step(host):
        return
    per_node, per_cpu = (host.get(name) or "" for name in _SLURM_MEMORY)
    if per_node.isdecimal() and int(per_node):  # 0: all of the node's memory
        yield int(per_node) * _MIB, f"SLURM_MEM_PER_NODE={per_node} MiB"
    elif per_cpu.isdecimal() and int(per_cpu):
        on_node = host.get("SLURM_CPUS_ON_NODE") or ""
        cpus = int(on_node) if on_node.isdecimal() and int(on_node) else allowed()
        yield int(per_cpu) * cpus * _MIB, f"SLURM_MEM_PER_CPU={per_cpu} MiB × {cpus}"


def _memory_is_known(host: Host, limits: Sequence[Grant]) -> bool:
    """Return whether a variable, or a limit of the job's own control group (``job_<id>``), says what the node gives."""
    group = f"/job_{host.get('SLURM_JOB_ID')}"
    return any(map(host.get, _SLURM_MEMORY)) or any(f"{group}/" in f"{source}/" for _, source in limits)


def _in_step(host: Host) -> bool:
    return bool(host.get("SLURM_STEP_ID") or host.get("SLURM_STEP_NODELIST"))


def _num_gpus(settings: Settings, host: Host, report: gpus.GpuReport) -> tuple[int, str]:
    found = len(report.gpus)
    if settings.num_gpus == "auto":
        return found, "auto"
    asked, option = int(settings.num_gpus), _gpus_option(settings)
    if asked <= found:
        return asked, option
    listed = host.env.get(gpus.VISIBLE)
    if listed is not None or report.visibility is not None:
        # Ray refuses this too, but only when its raylet starts, and with a traceback.
        shown = f"{gpus.VISIBLE}={listed!r} leaves" if listed is not None else "NVML shows"
        raise PreflightFailed(
            f"{option}={asked}, but {shown} {found}",
            hint=f"{option}={found}, or list {asked} devices in {gpus.VISIBLE}",
        )
    return asked, f"{option}, although NVML shows {found}"


def _gpus_option(settings: Settings) -> str:
    return "--num-gpus" if settings.head_gpus is None else "--head-gpus"


def _gpu_resources(report: gpus.GpuReport, num_gpus: int) -> dict[str, float]:
    """Return the product names, as GPU feature discovery writes them (``nvidia.com/gpu.product``), and ``full-worker``.

    ``full-worker`` is 1 on a node that offers all GPUs of its machine.
    """
    given: tuple[Gpu, ...] = report.gpus[:num_gpus]
    names = [re.sub(r"\s+", "-", gpu.name.strip()) for gpu in given]
    custom: dict[str, float] = {name: names.count(name) for name in names if name}
    if given and len(given) == report.total_on_machine:
        custom["full-worker"] = 1
    return custom
