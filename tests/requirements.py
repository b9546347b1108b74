"""What some tests need of the machine, how to tell, and how to get it."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

SKIPPED = "needs "
"""How every reason for a skip of ours begins."""


@dataclass(frozen=True)
class Requirement:
    present: Callable[[], bool]
    remedy: str


def _program(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name) is not None


def _module(name: str) -> Callable[[], bool]:
    return lambda: importlib.util.find_spec(name) is not None


def _namespaces_and_bridge() -> bool:
    """Root in a container without CAP_SYS_ADMIN may not; nor may one whose kernel lacks the modules."""
    argv = ["unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "ip", "link", "add", "type", "bridge"]
    if not all(map(shutil.which, ("unshare", "ip"))):
        return False
    return subprocess.run(argv, capture_output=True, check=False, timeout=30).returncode == 0


def _user_namespaces() -> bool:
    """For an ordinary user; Debian, Ubuntu and containers may close them."""
    argv = ["setpriv", "--reuid=65534", "--clear-groups", "unshare", "--user", "--map-root-user", "true"]
    return subprocess.run(argv, capture_output=True, check=False, timeout=30).returncode == 0


def _slurm() -> bool:
    return all(map(shutil.which, ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "scancel", "sinfo")))


def _grid_engine() -> bool:
    return all(map(shutil.which, ("sge_qmaster", "sge_execd", "qconf", "qsub", "qrsh", "qdel", "qstat", "qhost")))


def _sshd() -> bool:
    return Path("/usr/sbin/sshd").is_file() and all(map(shutil.which, ("ssh", "ssh-keygen")))


def _kubectl() -> bool:
    """One whose kustomize (5) knows components and `labels`; Debian 12's kubectl 1.20 has version 2."""
    if shutil.which("kubectl") is None:
        return False
    argv = ["kubectl", "version", "--client", "--output=json"]
    said = subprocess.run(argv, capture_output=True, check=False, timeout=30).stdout
    return b'"kustomizeVersion": "v5' in said


def _freezer() -> bool:
    """Of cgroups v1, beside whatever is mounted at /sys/fs/cgroup; Slurm's proctrack/cgroup uses it."""
    mount = "mount -t tmpfs none /sys/fs/cgroup && mount -t cgroup -o freezer none /sys/fs/cgroup"
    return subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True, check=False).returncode == 0


def memory_group() -> Path | None:
    """A new control group with a memory controller, and the file of its limit; None if none can be made here."""
    groups = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    for mount, own in (("/sys/fs/cgroup/memory", groups.get("memory", "/")), ("/sys/fs/cgroup", groups.get("", "/"))):
        for parent in (Path(f"{mount}{own}"), Path(mount)):
            group = parent / f"ray-bootstrap-test-{os.getpid()}"
            with contextlib.suppress(OSError):
                group.mkdir()
                if any((group / name).exists() for name in MEMORY_LIMITS):
                    return group
                group.rmdir()
    return None


MEMORY_LIMITS = ("memory.max", "memory.limit_in_bytes")
"""Of cgroups v2 and v1."""


def _memory_controller() -> bool:
    group = memory_group()
    if group is not None:
        group.rmdir()
    return group is not None


def _oldest_ray() -> bool:
    return os.access(os.environ.get("OLDEST_RAY_PYTHON", ""), os.X_OK)


def _framework(name: str) -> Requirement:
    """What `make` has installed for the job of examples/frameworks/<name>."""
    stamp = Path(__file__).parent.parent / ".frameworks" / name / "stamp"
    return Requirement(stamp.exists, f"make .frameworks/{name}/stamp")


FRAMEWORKS = ("daft", "modin", "verl")
"""Those whose jobs the tests run; the others' run by `make framework NAME=...`."""

REQUIREMENTS: Mapping[str, Requirement] = {
    "linux": Requirement(lambda: sys.platform == "linux", "these tests use Linux's own system calls"),
    "root": Requirement(lambda: os.geteuid() == 0, "run as root: sudo make test"),
    "ip": Requirement(_program("ip"), "apt-get install iproute2"),
    "unshare": Requirement(_program("unshare"), "apt-get install util-linux"),
    "nft": Requirement(_program("nft"), "apt-get install nftables"),
    "nsenter": Requirement(_program("nsenter"), "apt-get install util-linux"),
    "setpriv": Requirement(_program("setpriv"), "apt-get install util-linux"),
    "ethtool": Requirement(_program("ethtool"), "apt-get install ethtool"),
    "faketime": Requirement(_program("faketime"), "apt-get install faketime"),
    "slirp4netns": Requirement(_program("slirp4netns"), "apt-get install slirp4netns"),
    "user-namespaces": Requirement(
        _user_namespaces,
        "sysctl user.max_user_namespaces=10000 kernel.apparmor_restrict_unprivileged_userns=0; docker run --privileged",
    ),
    "namespaces": Requirement(_namespaces_and_bridge, "in a container: docker run --privileged"),
    "sshd": Requirement(_sshd, "apt-get install openssh-server openssh-client"),
    "rsync": Requirement(_program("rsync"), "apt-get install rsync"),
    "cc": Requirement(_program("cc"), "a C compiler: apt-get install gcc libc6-dev"),
    "openmpi": Requirement(_program("mpirun.openmpi"), "apt-get install openmpi-bin"),
    "mpich": Requirement(_program("mpiexec.hydra"), "apt-get install mpich"),
    "munge": Requirement(_program("munged"), "apt-get install munge"),
    "slurm": Requirement(_slurm, "apt-get install slurmctld slurmd slurm-client munge"),
    "grid-engine": Requirement(
        _grid_engine, "apt-get install gridengine-master gridengine-exec gridengine-client (Debian)"
    ),
    "freezer": Requirement(_freezer, "a kernel with the freezer of cgroups v1 (CONFIG_CGROUP_FREEZER)"),
    "memory-controller": Requirement(
        _memory_controller, "a control group with a memory controller in which root can make another: bare metal, or v1"
    ),
    "torch": Requirement(_module("torch"), "pip install -e '.[train-test]'"),
    "kubectl": Requirement(_kubectl, "kubectl of 1.27 or later: https://kubernetes.io/docs/tasks/tools/"),
    "kubernetes-validate": Requirement(_module("kubernetes_validate"), "pip install -e '.[test]'"),
    "buildah": Requirement(_program("buildah"), "apt-get install buildah"),
    "serve": Requirement(_module("fastapi"), "pip install -e '.[serve-test]'"),
    "oldest-ray": Requirement(_oldest_ray, "OLDEST_RAY_PYTHON: a Python with Ray 2.52.0; `make test` makes one"),
    **{name: _framework(name) for name in FRAMEWORKS},
}
HOSTS = ("linux", "root", "ip", "unshare", "nsenter", "setpriv", "namespaces")
"""What the fixture ``make_hosts`` and the mark ``hosts`` need."""

_present = functools.cache(lambda name: REQUIREMENTS[name].present())


def requires(*names: str) -> None:
    """Skips the test, or fails it where CI=true, unless this machine has everything named; says what is missing."""
    missing = [name for name in names if not _present(name)]
    if missing:
        reason = SKIPPED + "; ".join(f"{name} ({REQUIREMENTS[name].remedy})" for name in missing)
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason} - and with CI=true nothing is skipped", pytrace=False)
        pytest.skip(reason)


def summary(reports: Sequence[pytest.TestReport]) -> list[str]:
    """One line for each reason: how many tests did not run, and why."""
    counts: dict[str, int] = {}
    for report in reports:
        reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else "?"
        counts[reason] = counts.get(reason, 0) + 1
    return [f"not run: {count} test{'s' * (count > 1)}: {reason}" for reason, count in sorted(counts.items())]
