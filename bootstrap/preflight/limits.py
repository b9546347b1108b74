"""Checks of the kernel's limits on this process, its user, its control group and its machine, against Ray's needs."""

import os
import resource
from collections.abc import Iterator

from bootstrap import cgroup
from bootstrap.host import Host
from bootstrap.model import Role
from bootstrap.node.inspection import Node
from bootstrap.preflight.finding import GIB, MIB, Finding, size
from bootstrap.raynode import command

LEAST_ADDRESSES, ENOUGH_ADDRESSES = 1280 * MIB, 4 * GIB
"""Bytes of address space (RLIMIT_AS) besides the object store, which the raylet and each worker process map as a whole.

Ray 2.60, 2 CPUs, ``ray.init()`` and a task: with a store of 80 MB 1.38 GB are too few ("can't start new thread") and
1.54 GB enough; with one of 1 GB 2.05 GB are too few (the workload hangs) and 2.56 GB enough. With 64 CPUs the stacks of
more threads take up to 0.9 GB more."""
_LITTLE_STORE = 128 * MIB
"""The smallest object store that a remedy offers."""
LEAST_TASKS = {Role.HEAD: 250, Role.WORKER: 120}
"""Processes and threads, which RLIMIT_NPROC and pids.max both count, with the agent's own.

Ray 2.60 on 2 CPUs: a head has 21 processes with 383 threads. In a pids cgroup with 200 its raylet ends, with 300 only
parts of the dashboard are missing. A worker has 90 before its first worker process; with 100 it runs no task, with 130
it does."""
ENOUGH_TASKS, TASKS_PER_CPU = {Role.HEAD: 900, Role.WORKER: 200}, 54
"""The same where the machine has 64 CPUs, with which thread pools grow (860 and 184), and the threads of a worker
process, of which Ray starts one per CPU: 54 on 64 CPUs, 25 on 2."""
NEIGHBOURS_SHARE = 0.8
"""Part of the kernel's neighbour table that a run may fill; the rest is for gateways, pods and storage."""

_CAN_EXCEED = 1 << 21 | 1 << 24
"""CAP_SYS_ADMIN and CAP_SYS_RESOURCE (linux/capability.h)."""


def address_space(node: Node) -> Iterator[Finding]:
    """Check ``ulimit -v``: below it Ray hangs, or says "You have likely discovered a bug in Ray"."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    store = command.object_store(node.settings, node.resources, command.shm_free()) or 0
    if limit == resource.RLIM_INFINITY or limit >= store + ENOUGH_ADDRESSES:
        return
    needed = f"{size(store + LEAST_ADDRESSES)}, including {size(store)} for the object store"
    message = f"the address space of a process is limited to {size(limit)} (ulimit -v); Ray needs at least {needed}"
    remedy = "`ulimit -v unlimited` before this command; where that is refused, `* - as unlimited` in"
    remedy += " /etc/security/limits.conf, or LimitAS=infinity in the service's unit"
    if node.host.get("SLURM_JOB_ID"):
        remedy = "sbatch --propagate=NONE, if your shell has that limit; else VSizeFactor=0 and"
        remedy += " PropagateResourceLimitsExcept=AS in slurm.conf"
    elif node.in_pod:
        remedy = "remove `ulimit -v` from the image's entrypoint, or LimitAS from the container runtime's unit"
    if limit >= LEAST_ADDRESSES + _LITTLE_STORE:
        remedy += f"; or --object-store-memory={max(_LITTLE_STORE, limit - ENOUGH_ADDRESSES)}"
    yield Finding("address-space", message, remedy, fatal=limit < store + LEAST_ADDRESSES)


def nproc(node: Node) -> Iterator[Finding]:
    """Check the hard limit of this user's processes, to which the agent raises the soft one, less those that run."""
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    if hard == resource.RLIM_INFINITY or _is_exempt(node.host):
        return
    use = cgroup.Usage(hard, _threads_of(node.host, os.getuid()), f"ulimit -u, for all that uid {os.getuid()} runs")
    remedy = "`* - nproc unlimited` in a file in /etc/security/limits.d, docker run --ulimit nproc=-1,"
    remedy += " or LimitNPROC=infinity in the service's unit"
    if node.host.get("SLURM_JOB_ID"):
        remedy = f"sbatch --propagate=NONE, if your shell has that limit; else {remedy} (slurmd.service)"
    yield from _tasks(node, "nproc", use, remedy)


def pids(node: Node) -> Iterator[Finding]:
    """Check how many more processes and threads each of this process's control groups permits."""
    remedy = (
        "docker run --pids-limit=-1; systemd: TasksMax=infinity in the service's or user's slice (systemctl status $$)"
    )
    if node.host.get("SLURM_JOB_ID"):
        remedy = "TasksMax=infinity in the unit of slurmd (slurmd.service)"
    elif node.in_pod:
        remedy = "podPidsLimit: -1, or a larger number, in the KubeletConfiguration of this machine"
    tightest = min(cgroup.usages(node.host, "pids"), key=lambda use: use.free, default=None)
    if tightest is not None:
        yield from _tasks(node, "pids", tightest, remedy)


def _tasks(node: Node, check: str, use: cgroup.Usage, remedy: str) -> Iterator[Finding]:
    role, cpus = node.identity.role, node.resources.cpus
    enough = ENOUGH_TASKS[role] + TASKS_PER_CPU * cpus
    if use.free < enough:
        in_use = f"{use.used} of {use.limit} in use: {use.source}"
        fact = f"only {use.free} more processes and threads can be created ({in_use})"
        message = f"{fact}; a {role.value} needs {LEAST_TASKS[role]} to start, and up to {enough} with {cpus} CPUs"
        yield Finding(check, message, remedy, fatal=use.free < LEAST_TASKS[role])


def _is_exempt(host: Host) -> bool:
    """Return whether the kernel ignores RLIMIT_NPROC for this process (setrlimit(2)), as for the machine's root.

    Neither the root of a user namespace, as in a rootless container, nor its capabilities count.
    """
    uid_map = (host.read("/proc/self/uid_map") or "").split()
    if os.getuid() == 0:
        return uid_map[:2] == ["0", "0"]
    held = int(_status(host, "self").get("CapEff", "0"), 16)
    return uid_map == ["0", "0", "4294967295"] and bool(held & _CAN_EXCEED)


def _threads_of(host: Host, uid: int) -> int:
    """Return how many threads of this user are visible; those in other containers count, too, but cannot be seen."""
    found = [_status(host, entry.name) for entry in host.path("/proc").iterdir() if entry.name.isdecimal()]
    return sum(int(each["Threads"]) for each in found if each.get("Uid", "").split()[:1] == [str(uid)])


def _status(host: Host, process: str) -> dict[str, str]:
    """Return the fields of a process in proc_pid_status(5); none if it has ended."""
    lines = (host.read(f"/proc/{process}/status") or "").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def neighbours(node: Node) -> Iterator[Finding]:
    """Check that the kernel's neighbour (ARP) table holds the run's nodes, as if all of them were in one subnet.

    A run of 2 000 nodes needed a larger table (https://github.com/ray-project/ray/pull/30113). In a network namespace,
    such as a container's, the file is absent, although the table is the machine's.
    """
    size_of_run = max(node.identity.size or 0, node.settings.min_nodes or 0)
    limit = (node.host.read("/proc/sys/net/ipv4/neigh/default/gc_thresh3") or "").strip()
    if limit.isdecimal() and size_of_run > int(limit) * NEIGHBOURS_SHARE:
        message = (
            f"the kernel's neighbour (ARP) table holds {limit} (gc_thresh3), and this run has {size_of_run} nodes: in"
            ' one subnet connections fail ("neighbor table overflow" in dmesg)'
        )
        wanted = {"gc_thresh1": 1, "gc_thresh2": 2, "gc_thresh3": 4}
        given = " ".join(f"net.ipv4.neigh.default.{name}={factor * size_of_run}" for name, factor in wanted.items())
        yield Finding("neighbours", message, f"as root, on every node: sysctl -w {given}", fatal=False)


def cpus(node: Node) -> Iterator[Finding]:
    """Check that this process may use the CPUs that Slurm grants on the node: a site may bind each task to one.

    That is TaskPluginParam=autobind in slurm.conf(5), where the step does not say ``--cpus-per-task``.
    """
    granted, have = node.host.get("SLURM_CPUS_ON_NODE") or "", node.resources
    bound = have.sources.get("cpus", "").startswith("affinity")
    if bound and granted.isdecimal() and have.cpus < int(granted):
        message = f"this task is bound to {have.cpus} of the {granted} CPUs that Slurm grants on this node"
        yield Finding("cpus", message, "srun --cpu-bind=none ...", fatal=False)
