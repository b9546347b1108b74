"""Checks of the software and hardware: Ray, memory, limits, GPUs, and variables that Ray's workers would inherit."""

import re
import resource
import sys
from collections.abc import Iterator, Mapping

from bootstrap import cgroup, parsers, timeouts
from bootstrap.errors import PreflightFailed
from bootstrap.files.runtime_dir import run_of
from bootstrap.files.secret import Channel
from bootstrap.host import Host
from bootstrap.model import Role
from bootstrap.node import by_role
from bootstrap.node import gpus as nvidia
from bootstrap.node.inspection import Node
from bootstrap.node.nvml import GpuHealth
from bootstrap.preflight.finding import GIB, KIB, MIB, Finding, size
from bootstrap.process.command import output
from bootstrap.raynode import command

OLDEST_RAY = (2, 52)
CLOSED_RAY = (2, 54)
"""The first whose dashboard agent asks for the token (its http_server_agent.py), and whose workers can have their own
session folder (https://github.com/ray-project/ray/pull/57735)."""
SHM = "/dev/shm"  # noqa: S108 (Ray's object store lives there)
LEAST_STORE = 75 * MIB
"""Ray refuses a smaller object store (OBJECT_STORE_MINIMUM_MEMORY_BYTES in its ray_constants.py)."""
LEAST_MEMORY, LITTLE_MEMORY = {Role.HEAD: 512 * MIB, Role.WORKER: 256 * MIB}, GIB
"""Ray 2.60 with this agent: a head takes 650 MiB (PSS) before its first worker process. In a memory cgroup of 512 MiB
the driver is killed at the first task; 700 MiB are enough for four. On a worker raylet and agents take 220 MiB, and
each worker process 65."""
LEAST_FILES, ENOUGH_FILES = 4096, 65536
"""Ray asks for 65536 (Node.max_fds in its worker.py); old enterprise distributions allow 4096."""

_MPI = ("OMPI_COMM_WORLD_", "PMIX_", "PMI_", "PMI2_", "MPI_LOCAL", "MV2_COMM_WORLD_")
_MPI_TUNABLES = ("PMIX_MCA_",)
"""Tuning parameters for MPI, which are not ranks."""
_MPI_RANKS = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")


def ray(node: Node) -> Iterator[Finding]:
    """Check the version of the installed distribution, without importing Ray (0.8 s)."""
    from importlib import metadata  # noqa: PLC0415 (20 ms)

    wanted, closed = (".".join(map(str, release)) for release in (OLDEST_RAY, CLOSED_RAY))
    install = f"{sys.executable} -m pip install 'ray[default]>="
    remedy = f"{install}{wanted}'"
    try:
        version = metadata.version("ray")
    except metadata.PackageNotFoundError:
        yield Finding("ray", f"Ray is not installed for {sys.executable}", remedy)
        return
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        yield Finding("ray", f"Ray's version {version!r} does not begin with two numbers", remedy, fatal=False)
    elif (int(match[1]), int(match[2])) < OLDEST_RAY:
        yield Finding("ray", f"Ray {version} is older than {wanted}, the oldest supported version", remedy)
    elif (int(match[1]), int(match[2])) < CLOSED_RAY and node.secret.channel is not Channel.NONE:
        message = f"Ray {version}: its dashboard agent runs jobs for anyone who reaches its port, token or not"
        yield Finding("ray", message, f"{install}{closed}'", fatal=node.settings.auth == "required")


def memory(node: Node) -> Iterator[Finding]:
    """Check that this node's memory holds Ray, its object store and its tasks."""
    settings, have = node.settings, node.resources.memory
    source = node.resources.sources.get("memory", "measured")
    store, tasks = settings.object_store_memory, settings.memory
    if store is not None and store < LEAST_STORE:
        message = f"--object-store-memory is {size(store)}; Ray needs at least {size(LEAST_STORE)}"
        yield Finding("memory", message, "--object-store-memory=100Mi or more, or leave it out")
    if not have:  # unknown
        return
    least, free, free_source = LEAST_MEMORY[node.identity.role], *_free_memory(node.host, have)
    if have < LITTLE_MEMORY:
        message = f"{size(have)} of memory ({source}); Ray itself takes most of a GiB"
        remedy = "resources: {limits: {memory: 4Gi}}" if node.in_pod else "ask for more memory (srun --mem=4G)"
        yield Finding("memory", message, remedy, fatal=have < least)
    elif free < LITTLE_MEMORY:
        message = f"{size(free)} of memory free ({free_source}); Ray itself takes most of a GiB"
        remedy = "stop what uses it (ps -e -o pid,user,rss,args --sort=-rss | head), or ask for more memory"
        yield Finding("memory", message, remedy, fatal=free < least)
    if store is not None and store > have:
        message = f"--object-store-memory is {size(store)}, more than the {size(have)} that this node has ({source})"
        yield Finding("memory", message, f"--object-store-memory={int(have * 0.3)}, or leave it out")
    elif (store or 0) + (tasks or 0) > have:
        promised = f"--memory and --object-store-memory are {size((store or 0) + (tasks or 0))} together"
        message = f"{promised}, more than the {size(have)} that this node has ({source})"
        yield Finding("memory", message, "lower them: the kernel kills processes beyond the limit", fatal=False)


def _free_memory(host: Host, otherwise: int) -> tuple[int, str]:
    """Return the bytes of memory that are still free here, by the tightest limit, and the source."""
    amounts = [(use.free, f"{size(use.used)} used of {size(use.limit)}: {use.source}") for use in _memory_usages(host)]
    return min(amounts, default=(otherwise, ""))


def _memory_usages(host: Host) -> Iterator[cgroup.Usage]:
    yield from cgroup.usages(host, "memory")
    found = dict(re.findall(r"^(MemTotal|MemAvailable):\s*([0-9]+) kB", host.read("/proc/meminfo") or "", re.MULTILINE))
    if len(found) == 2:
        total, available = (int(found[name]) * KIB for name in ("MemTotal", "MemAvailable"))
        yield cgroup.Usage(total, total - available, "MemAvailable")


def shm(node: Node) -> Iterator[Finding]:
    """Check that /dev/shm has room for the object store; otherwise Ray puts it on disk or refuses to start."""
    if any(arg.startswith("--plasma-directory") for arg in node.settings.ray_start_arg):
        return
    store = node.settings.object_store_memory
    if not node.host.path(SHM).is_dir():
        yield Finding("shm", f"{SHM} does not exist, and Ray needs it", _more_shm(node, store))
        return
    free = command.shm_free()
    if store is not None and store > free:
        # Ray starts with the store on disk if the user sets this variable.
        slow = node.host.get("RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE") is not None
        message = f"--object-store-memory is {size(store)}, and {SHM} has {size(free)} free"
        yield Finding("shm", message, _more_shm(node, store), fatal=not slow)
    elif store is None and free < command.SHM_MINIMUM:
        message = f"{SHM} has {size(free)} free, so Ray's object store goes to disk and is slow"
        yield Finding("shm", message, _more_shm(node, store), fatal=False)


def _more_shm(node: Node, store: int | None) -> str:
    """Return what to type for a /dev/shm that holds ``store``, or Ray's default, 30% of the memory."""
    wanted = store or int(node.resources.memory * 0.3) or 8 * GIB
    gib = -(-wanted // GIB)
    if node.in_pod:
        return (
            f"in the pod: volumes: [{{name: shm, emptyDir: {{medium: Memory, sizeLimit: {gib}Gi}}}}],"
            " in its container: volumeMounts: [{name: shm, mountPath: /dev/shm}]"
        )
    return f"docker run --shm-size={gib}g, or as root: mount -o remount,size={gib}G /dev/shm"


def nofile(node: Node) -> Iterator[Finding]:
    """Check the hard limit of open files, to which the agent raises the soft one: each worker costs Ray several."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < ENOUGH_FILES:
        message = f"the hard limit of open files is {hard}; Ray asks for {ENOUGH_FILES}"
        remedy = (
            "raise LimitNOFILE in the unit of the machine's container runtime"
            if node.in_pod
            else f"docker run --ulimit nofile={ENOUGH_FILES}:{ENOUGH_FILES}, LimitNOFILE={ENOUGH_FILES} in the"
            f" service's unit (slurmd.service), or `* hard nofile {ENOUGH_FILES}` in /etc/security/limits.conf"
        )
        yield Finding("nofile", message, remedy, fatal=hard < LEAST_FILES)


def mpi_variables(node: Node) -> Iterator[Finding]:
    """Check for variables of an MPI launcher: MPI in Ray's workers would join its world, all as the same rank."""
    env = node.host.env
    found = sorted(n for n in env if n.startswith(_MPI) and not n.startswith(_MPI_TUNABLES))
    if not found:
        return
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    rank = next((name for name in _MPI_RANKS if name in env), None)
    named = ", ".join(found[:3])
    message = f"{named}{more}: MPI in Ray's workers (mpi4py, DeepSpeed) would take itself for " + (
        f"{rank}={env[rank]}" if rank else "a process of the launcher"
    )
    yield Finding("mpi-variables", message, _without_mpi(node, rank), fatal=False)


def _without_mpi(node: Node, rank: str | None) -> str:
    if node.host.get("SLURM_STEP_ID"):
        return "srun --mpi=none"
    if rank is None:
        return "in bash: unset ${!OMPI_COMM_*} ${!PMI*}, then exec ray-bootstrap"
    nodes = f" --nodes={node.identity.size}" if node.identity.size else ""
    given = f"--rank=$rank{nodes} --run-id=NAME"
    return f"bash -c 'rank=${rank}; unset ${{!OMPI_COMM_*}} ${{!PMI*}}; exec ray-bootstrap {given} …'"


def setup(node: Node) -> Iterator[Finding]:
    """Check that the shell can read the commands of ``--setup``, without running them."""
    for given in node.settings.setup:
        _, complaint = output(["/bin/sh", "-n", "-c", given], node.host.env, timeouts.SHELL_S)
        if complaint:
            message = f"/bin/sh does not understand --setup={parsers.quoted(given)}: {complaint}"
            yield Finding("setup", message, "mend the command; in RAY_BOOTSTRAP_SETUP each line is one")


def gpus(node: Node) -> Iterator[Finding]:
    """Check that this node offers Ray as many GPUs as every node must have."""
    expected, found = by_role.expected(node.settings).get("GPU"), node.resources.num_gpus
    if expected is not None and found < expected:
        option = "--expect-resources" if node.settings.expect_gpus is None else "--expect-gpus"
        sources = node.resources.sources
        source = "; ".join(dict.fromkeys(sources[name] for name in ("num_gpus", "gpus") if name in sources))
        message = f"{expected:g} GPUs are expected ({option}), {found} found ({source or 'NVML'})"
        remedy = f"ask the scheduler for {expected:g} GPUs on this node"
        if node.in_pod:
            remedy = f"resources: {{limits: {{nvidia.com/gpu: {expected:g}}}}}"
        fewer = f"--expect-gpus={found}" if option == "--expect-gpus" else f"a lower 'GPU' in {option}"
        leads = f", or --head-gpus={found} on all nodes" if node.identity.role is Role.HEAD and node.multi_node else ""
        yield Finding("gpus", message, f"{remedy}, or {fewer}{leads}")


def nvml(node: Node) -> Iterator[Finding]:
    """Check that the driver, where its library is installed, shows GPUs: a run may go on without, and end with 0."""
    text, remedy = node.resources.no_gpus
    if text:
        yield Finding("nvml", f"{text}, so this node has no GPUs", remedy, fatal=False)


def gpu_health(node: Node) -> Iterator[Finding]:
    """Check for NVML's signs of a GPU that is failing, or will soon, or that other processes use."""
    asked = node.settings.num_gpus
    if asked.isdecimal() and int(asked) == 0:  # the way past a broken GPU, so none matters
        return
    try:
        states = nvidia.health(node.host, node.resources.gpus)
    except PreflightFailed as error:
        yield Finding("gpu-health", error.message, error.hint)
        return
    for gpu in states:
        # A user who asked for a number of GPUs, and got it, does not need the broken one.
        yield from _signs(gpu, lost_is_fatal=asked == "auto")


def _holder(pid: int) -> str:
    own = run_of(pid)
    return f"pid {pid}" + (f" of this user's run {own!r}" if own else "")


_REPLACE: Mapping[str, str] = {
    "lost": "drain the node; nvidia-smi --gpu-reset, or reboot it; dmesg | grep Xid says why",
    "reset": "with nothing running on it: nvidia-smi --gpu-reset -i {index}; or reboot the node",
    "failed": "drain the node and have the GPU replaced (NVIDIA's RMA policy for row remapping)",
}


def _signs(gpu: GpuHealth, *, lost_is_fatal: bool) -> Iterator[Finding]:
    who = f"GPU {gpu.index}" + (f" ({gpu.name}, {gpu.uuid})" if gpu.uuid else "")
    reset = _REPLACE["reset"].format(index=gpu.index)
    if gpu.fault:
        yield Finding("gpu-health", f"{who} does not answer: {gpu.fault}", _REPLACE["lost"], lost_is_fatal)
        return
    if gpu.uncorrected_ecc:
        message = f"{who} had {gpu.uncorrected_ecc} uncorrectable memory errors since the driver was loaded"
        yield Finding("gpu-health", message, reset)
    if gpu.remap_failed:
        yield Finding("gpu-health", f"{who} could not remap a broken memory row", _REPLACE["failed"])
    elif gpu.remap_pending:
        # Not fatal: NVIDIA allows new work on it (docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt).
        message = f"{who} waits for a reset to remap a broken memory row"
        yield Finding("gpu-health", message, reset, fatal=False)
    if gpu.processes:
        # Not fatal: it may be MPS, a monitor or a GPU that is shared on purpose.
        held = ", ".join(_holder(pid) + (f" ({size(used)})" if used else "") for pid, used in gpu.processes)
        remedy = f"stop them (nvidia-smi -i {gpu.index} shows them), or leave the GPU out of {nvidia.VISIBLE}"
        yield Finding("gpu-health", f"{who} is in use by other processes: {held}", remedy, fatal=False)
