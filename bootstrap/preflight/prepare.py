"""The first steps of every command, each with a time limit: who is this node, what has it, is it fit?"""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bootstrap import launchers, preflight, timeouts
from bootstrap.errors import BootstrapError, IdentityError, PreflightFailed
from bootstrap.host import Host
from bootstrap.log import Log
from bootstrap.model import NodeIdentity
from bootstrap.node import hosts_file
from bootstrap.node.hosts_file import HostsOutcome
from bootstrap.node.inspection import Node, inspect
from bootstrap.preflight.finding import Finding
from bootstrap.process.bounded import TimedOut, run_bounded
from bootstrap.raynode import frameworks
from bootstrap.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """A node that was inspected and checked."""

    node: Node
    hosts: HostsOutcome
    findings: Sequence[Finding]


def identify(settings: Settings, host: Host) -> tuple[NodeIdentity, list[str]]:
    """Return who this node is, and notes for the log.

    :raises IdentityError: if that is not clear, or a name server hangs.
    """
    hangs = IdentityError(
        f"finding out who this node is timed out after {timeouts.IDENTIFY_S:g} s: a name server or a file system hangs",
        hint="--head-address=ADDRESS instead of a name, or --rank and --nodes",
    )
    return _in_time(timeouts.IDENTIFY_S, lambda: launchers.identify(settings, host), hangs)


def inspect_only(settings: Settings, host: Host, identity: NodeIdentity, ray_dir: Path) -> Node:
    """Return what this node has; neither repair nor check anything. :raises BootstrapError: see :func:`prepare`."""
    return _in_time(timeouts.PREPARE_S, lambda: inspect(settings, host, identity, ray_dir), _hangs())


def prepare(settings: Settings, host: Host, identity: NodeIdentity, ray_dir: Path, *, repair: bool = True) -> Prepared:
    """Inspect this node, make its name resolve to its address, and run all checks.

    :param ray_dir: Ray's folder unless ``--temp-dir`` names one.
    :param repair: False leaves /etc/hosts alone.
    :raises BootstrapError: what is wrong with this node, or PreflightFailed if that takes too long to find out.
    """

    def work() -> Prepared:
        node = inspect(settings, host, identity, ray_dir)
        outcome = hosts_file.ensure(settings.hosts if repair else "off", node.address, host)
        node = dataclasses.replace(node, named=not outcome.fault)
        added = frameworks.variables(node, host.env, None, ray_ip=node.address.ip)
        seen = dataclasses.replace(host, env={**host.env, **added})
        return Prepared(node, outcome, preflight.run(dataclasses.replace(node, host=seen)))

    return _in_time(timeouts.PREPARE_S, work, _hangs())


def judge(prepared: Prepared, log: Log, unsaid: Collection[str] = ()) -> None:
    """Log what was repaired and what is not as it should be.

    :param unsaid: the checks whose warnings another node logs.
    :raises PreflightFailed: with all that makes this node unfit.
    """
    outcome, ignored = prepared.hosts, prepared.node.settings.ignore_check
    if outcome.changed:
        log.say(f"{hosts_file.FILE}: {prepared.node.address.hostname} now means {prepared.node.address.ip}")
    if outcome.fault:
        log.warn(f"{outcome.fault}; {_gloo(prepared.node)}; fix: {outcome.remedy}")
    for finding in preflight.reports(prepared.findings, ignored):
        if finding.partition(":")[0] not in unsaid:
            log.warn(finding)
    preflight.judge(prepared.findings, ignored)


def _gloo(node: Node) -> str:
    """Return what Gloo does on a node whose name does not lead to its address."""
    if theirs := node.host.get(frameworks.GLOO):
        return f"{frameworks.GLOO}={theirs} stays as it is"
    added = frameworks.variables(node, node.host.env, None, ray_ip=node.address.ip)
    if frameworks.GLOO in added:
        return f"{frameworks.GLOO}={added[frameworks.GLOO]} is set instead"
    return f"{frameworks.GLOO} is not set, so Gloo may take the wrong interface"


def _in_time(seconds: float, function: Callable[[], T], otherwise: BootstrapError) -> T:
    try:
        return run_bounded(seconds, function)
    except TimedOut:
        raise otherwise from None


def _hangs() -> PreflightFailed:
    return PreflightFailed(
        f"the inspection of this node timed out after {timeouts.PREPARE_S:g} s: NVML, a name server or a folder hangs",
        hint="`nvidia-smi`, `getent hosts $(hostname)` and `ls` of the folders show which; --num-gpus=N skips NVML",
    )
