"""Why the kernel, a distribution or a container denies us namespaces, and what allows them.

Sources: user_namespaces(7) and namespaces(7); the patches of Debian (kernel.unprivileged_userns_clone) and Ubuntu
(kernel.apparmor_restrict_unprivileged_userns); Docker's default seccomp profile, which leaves unshare(2), setns(2) and
mount(2) to CAP_SYS_ADMIN, its AppArmor profile, which denies mount(2), and the paths of /proc that it hides, over which
the kernel mounts no other proc.
"""

import errno

from bootstrap.host import Host

USER, IDS, PID = "a user namespace", "root's ids in a user namespace", "a PID namespace"
OWN, PRIVATE, PROC = "mount and IPC namespaces", "mounts of our own", "a /proc of our own"
"""What :mod:`bootstrap.namespaces.enter` asks of the kernel: the ``filename`` of its OSError."""

_LIMITS = {USER: ("user",), PID: ("pid",), OWN: ("mnt", "ipc")}
"""Of which kinds of namespaces, as in the names of the files /proc/sys/user/max_*_namespaces."""
_ENOUGH = 10000
"""Namespaces for any rehearsal; the kernel sets a limit by the memory's size."""
_UNDOCKED = " ".join(f"--security-opt {name}=unconfined" for name in ("seccomp", "apparmor", "systempaths"))


def reason(host: Host, error: OSError) -> str:
    """Return why a step failed, with the limit if one is the reason, and the fix."""
    step, what = str(error.filename), f"{error.filename}: {error.strerror}"
    if error.errno == errno.ENOSPC:
        for name in (f"user.max_{kind}_namespaces" for kind in _LIMITS.get(step, ())):
            if (most := _number(host, name)) is not None and most < _ENOUGH:
                return f"{what}: {name} is {most}; fix: sudo sysctl -w {name}={_ENOUGH}"
        return f"{what}: this user has reached a limit in /proc/sys/user/, or they are nested 32 deep"
    if error.errno in (errno.EINVAL, errno.ENOSYS):
        return f"{what}: this kernel was built without them (CONFIG_USER_NS, CONFIG_PID_NS)"
    if error.errno in (errno.EPERM, errno.EACCES):
        return f"{what}: {_forbidden_by(host, step)}"
    return what


def no_network(said: str) -> str:
    """Return why there is no network for hosts, from what ``ip`` says."""
    if "nknown device type" in said or "not supported" in said:
        return f"no bridge or veth: {said}; fix: sudo modprobe -a bridge veth"
    return f"no network for hosts: {said}"


def _forbidden_by(host: Host, step: str) -> str:
    """Return who denies a step, as far as the system shows that, and the fix."""
    debian, ubuntu = "kernel.unprivileged_userns_clone", "kernel.apparmor_restrict_unprivileged_userns"
    if step == USER and _number(host, debian) == 0:
        return f"{debian} is 0; fix: sudo sysctl -w {debian}=1"
    # Ubuntu 24.04 lets us have the namespace, and that profile denies what we do in it; a container's has another name.
    unconfined = (host.read("/proc/self/attr/current") or "").partition(" ")[0].strip() in (
        "unconfined",
        "unprivileged_userns",
    )
    if _number(host, ubuntu) == 1 and unconfined:
        return f"{ubuntu} is 1; fix: sudo sysctl -w {ubuntu}=0"
    filtered = any(line.split() == ["Seccomp:", "2"] for line in (host.read("/proc/self/status") or "").splitlines())
    if filtered or step in (PRIVATE, PROC):
        return f"as in a container; fix: docker run {_UNDOCKED}, or --privileged"
    return "by a security module such as SELinux, or in a chroot; fix: run as root"


def _number(host: Host, sysctl: str) -> int | None:
    text = (host.read(f"/proc/sys/{sysctl.replace('.', '/')}") or "").strip()
    return int(text) if text.isdecimal() else None
