"""Preflight: is this node fit for the run? Every check runs, and all findings appear at once, each with its remedy.

To add a check, write a function that yields findings and add a row here.
"""

import difflib
from collections.abc import Collection, Iterator, Sequence

from bootstrap.errors import PreflightFailed
from bootstrap.model import Role
from bootstrap.node.inspection import Node
from bootstrap.preflight import addresses, authentication, folders, limits, machine
from bootstrap.preflight.finding import Check, Finding
from bootstrap.settings import Settings

__all__ = ["CHECKS", "Check", "Finding", "judge", "render", "reports", "run", "unknown_names"]


CHECKS: tuple[Check, ...] = (
    Check("ray", "Ray is installed and supported", machine.ray),
    Check("memory", "there is enough memory for Ray and its object store", machine.memory),
    Check("shm", "the object store fits into /dev/shm", machine.shm),
    Check("nofile", "Ray can open enough files", machine.nofile),
    Check("address-space", "Ray's processes can map its object store", limits.address_space),
    Check("nproc", "this user may start enough processes and threads", limits.nproc),
    Check("pids", "the control group permits enough processes and threads", limits.pids),
    Check("mpi-variables", "no environment variable makes Ray's workers act as MPI ranks", machine.mpi_variables),
    Check(
        "secret",
        "the nodes share a secret, or there is one node; a given one has at least 16 bytes",
        authentication.secret,
        # KubeRay's authOptions decide in its pods.
        lambda node: node.settings.auth != "off" and node.identity.launcher != "kuberay",
    ),
    Check(
        "token-file",
        "no other user can read the secret",
        authentication.token_file,
        lambda node: node.secret.path is not None,
    ),
    Check(
        "setup",
        "the shell understands the commands of --setup",
        machine.setup,
        lambda node: bool(node.settings.setup),
    ),
    Check("gpus", "there are as many GPUs as expected", machine.gpus),
    Check("nvml", "NVML shows GPUs, or its library is not installed", machine.nvml),
    Check("gpu-health", "the GPUs are healthy and free", machine.gpu_health),
    Check(
        "cpus",
        "this process may use the CPUs that Slurm grants",
        limits.cpus,
        lambda node: node.identity.launcher == "slurm",
    ),
    Check("ports", "the chosen ports are free", addresses.ports),
    Check(
        "worker-ports",
        "each of Ray's processes gets a port",
        addresses.worker_ports,
        lambda node: node.identity.launcher != "kuberay",  # rayStartParams decide
    ),
    Check("node-address", "the node address belongs to this machine and is not loopback", addresses.node_address),
    Check("host-name", "this node's name is short enough", addresses.host_name),
    Check("own-name", "this node's name resolves to its address", addresses.own_name, lambda node: node.multi_node),
    Check("neighbours", "the kernel's neighbour (ARP) table holds the run's nodes", limits.neighbours),
    Check("socket-path", "the paths of Ray's sockets are short enough", folders.socket_path),
    Check("temp-dir", "this user can write to Ray's folder, and no other user can replace it", folders.temp_dir),
    Check("temp-dir-disk", "Ray's folder is on a local disk with free space", folders.temp_dir_disk),
    Check(
        "trace",
        "the file of --trace can be written",
        folders.trace,
        lambda node: node.settings.trace is not None and node.identity.role is Role.HEAD,
    ),
    Check(
        "shared-dir",
        "the shared folder can be written and listed",
        folders.shared_dir,
        lambda node: bool(node.settings.shared_dir),
    ),
)


def run(node: Node) -> list[Finding]:
    """Run every check that applies and return the findings; a check that fails to run is a warning."""
    return [finding for check in CHECKS if check.applies(node) for finding in _findings(check, node)]


def _findings(check: Check, node: Node) -> Iterator[Finding]:
    try:
        yield from check.run(node)
    except OSError as error:
        remedy = f"verify by hand that {check.meaning}"
        yield Finding(check.name, f"could not be checked: {error}", remedy, fatal=False)


def reports(findings: Sequence[Finding], ignored: Collection[str]) -> list[str]:
    """Return, as text, the findings that do not make this node unfit: warnings, and those of ``ignored`` checks."""
    mild = (finding for finding in findings if not finding.fatal or finding.check in ignored)
    return [f"{finding.check}: {finding.message}; fix: {finding.remedy}" for finding in mild]


def judge(findings: Sequence[Finding], ignored: Collection[str]) -> None:
    """Raise if a check that is not ``ignored`` has a fatal finding.

    :raises PreflightFailed: with all such findings, each with its remedy.
    """
    fatal = [finding for finding in findings if finding.fatal and finding.check not in ignored]
    if not fatal:
        return
    count = "1 finding" if len(fatal) == 1 else f"{len(fatal)} findings"
    lines = [f"{finding.check}: {finding.message}\n  fix: {finding.remedy}" for finding in fatal]
    names = dict.fromkeys(finding.check for finding in fatal)
    hint = "see above; or, to continue anyway: " + " ".join(f"--ignore-check {name}" for name in names)
    raise PreflightFailed("\n".join([f"this node is unfit ({count})", *lines]), hint=hint)


def render(node: Node, findings: Sequence[Finding], ignored: Collection[str] = ()) -> list[str]:
    """Return one line per check without findings and two per finding, in the order of :data:`CHECKS`."""
    width = max(len(check.name) for check in CHECKS)
    lines = []
    for check in CHECKS:
        mine = [finding for finding in findings if finding.check == check.name]
        if not check.applies(node):
            lines.append(f"-        {check.name:{width}}  does not apply here")
        elif not mine:
            lines.append(f"ok       {check.name:{width}}  {check.meaning}")
        for finding in mine:
            word = "warning" if not finding.fatal else "ignored" if check.name in ignored else "unfit"
            lines.append(f"{word:8} {check.name:{width}}  {finding.message}")
            lines.append(f"{'':8} {'':{width}}  fix: {finding.remedy}")
    return lines


def unknown_names(settings: Settings) -> list[str]:
    """Return a fault for each ``--ignore-check`` that does not name a check."""
    names = [check.name for check in CHECKS]
    faults = []
    for name in settings.ignore_check:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            meant = f" (did you mean {close[0]}?)" if close else ""
            faults.append(f"--ignore-check={name!r}: unknown check{meant}; the checks are {', '.join(names)}")
    return faults
