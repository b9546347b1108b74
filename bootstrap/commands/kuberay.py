"""``kuberay``: check the node in a KubeRay pod, then run KubeRay's command, since KubeRay manages Ray itself.

With the annotation ``ray.io/overwrite-container-cmd: "true"`` KubeRay leaves a container's command alone and puts the
``ray start`` line that it would have run into KUBERAY_GEN_RAY_START_CMD
(https://docs.ray.io/en/latest/cluster/kubernetes/user-guides/pod-command.html).
"""

import json
import os
import resource
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from bootstrap.errors import IdentityError, UsageError
from bootstrap.files.secret import demanded_by
from bootstrap.host import Host, raise_soft_limits
from bootstrap.log import Log
from bootstrap.model import NodeIdentity, Resources, Role
from bootstrap.preflight.prepare import judge, prepare
from bootstrap.process import signals
from bootstrap.raynode.command import memory_argv, shm_free
from bootstrap.raynode.environment import for_kuberay
from bootstrap.settings import Settings
from bootstrap.switches import Switches

COMMAND = "KUBERAY_GEN_RAY_START_CMD"
_ENOUGH_FILES = 65536
"""The limit that KubeRay's own command sets, unless RAY_START_ULIMIT_OPEN_FILES says otherwise."""
_YAML = """\
in the RayCluster or RayService, and its containers:
  metadata: {annotations: {ray.io/overwrite-container-cmd: "true"}}
  command: [env, "--block-signal=HUP,INT,QUIT,TERM,USR1,USR2", RAY_BOOTSTRAP_SIGNALS=blocked, ray-bootstrap, kuberay]"""


def hand_over(settings: Settings, host: Host, _switches: Switches) -> int:
    """Check this node, correct its /etc/hosts, then exec KubeRay's command; never return.

    :raises UsageError: if an option demands a token or TLS.
    :raises IdentityError: if KubeRay has not set the command, or it is not ``ray start``.
    :raises PreflightFailed: with all fatal findings.
    :raises Stopped: if this process, being PID 1, received a signal meanwhile.
    """
    if option := demanded_by(settings):
        hint = "authOptions and tlsOptions in the RayCluster's spec"
        raise UsageError([f"{option}: KubeRay decides about its cluster's token and TLS"], hint=hint)
    if settings.setup:
        hint = "an init container, or KubeRay's own command with the commands before it"
        raise UsageError([f"--setup={settings.setup[0]!r}: KubeRay starts Ray in its pods"], hint=hint)
    log = Log(as_json=settings.log_format == "json")
    line = host.get(COMMAND)
    if line is None:
        raise IdentityError(f"{COMMAND} is not set: not a KubeRay pod, or KubeRay runs its own command", hint=_YAML)
    given = _options(line)
    role, name = Role.HEAD if "--head" in given else Role.WORKER, host.get("RAY_CLUSTER_NAME") or "kuberay"
    hints = tuple(filter(None, [host.get("FQ_RAY_IP")]))
    identity = NodeIdentity("kuberay", role, rank=None, size=None, run_id=name, head_hints=hints)
    ray_dir = Path(given.get("--temp-dir") or "/tmp/ray")  # noqa: S108 (Ray's own default)
    prepared = prepare(settings, host, identity, ray_dir)
    judge(prepared, log)
    measured = prepared.node.resources
    env = for_kuberay(prepared.node)
    added = missing(given, measured, memory_argv(settings, measured, shm_free()))
    _raise_nofile(host)
    raise_soft_limits(resource.RLIMIT_NPROC)
    plus = f", with {shlex.join(added)}" if added else ""
    log.say(f"this node is fit as {identity.role.value}; running KubeRay's command{plus}")
    signals.restore(host)
    sys.stderr.flush()
    # The line is shell syntax: KubeRay itself passes it to `bash -c`.
    os.execve("/bin/sh", ["sh", "-c", f"exec {line} {shlex.join(added)}"], env)  # noqa: S606


def missing(given: Mapping[str, str], measured: Resources, memory: Iterable[str]) -> list[str]:
    """Return the options that the command lacks, from what this node measured.

    KubeRay derives CPUs, memory and whole GPUs from the container's limits. It knows neither MIG instances nor the size
    of /dev/shm, and Ray puts an object store that does not fit there on disk.

    :param given: the options that the command has, with their values.
    :param memory: options for the memory and the object store.
    """
    added = [option for option in memory if option.partition("=")[0] not in given]
    if "--num-cpus" not in given:
        added.append(f"--num-cpus={measured.cpus}")
    if "--num-gpus" not in given and measured.num_gpus:
        added.append(f"--num-gpus={measured.num_gpus}")
    if "--resources" not in given and measured.custom:
        added.append(f"--resources={json.dumps(dict(measured.custom), sort_keys=True)}")
    return added


def _options(line: str) -> dict[str, str]:
    """Return the options of a ``ray start`` line, with their values. :raises IdentityError: if it is something else."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise IdentityError(f"{COMMAND}={line!r}: {error}", hint="check the quotes in rayStartParams") from None
    if words[:2] != ["ray", "start"]:
        raise IdentityError(f"{COMMAND}={line!r} is not a `ray start` command", hint=_YAML)
    return {name: value for name, _, value in (word.partition("=") for word in words[2:])}


def _raise_nofile(host: Host) -> None:
    """Raise the soft limit of open files, as KubeRay's own command does with ``ulimit -n``."""
    asked = host.get("RAY_START_ULIMIT_OPEN_FILES") or ""
    wanted = int(asked) if asked.isdecimal() else _ENOUGH_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )
