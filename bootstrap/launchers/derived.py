"""What a launcher says, but not simply in a variable: one pure function per row of the table that needs one."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass

from bootstrap import net
from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.rendezvous import slurm, static
from bootstrap.settings import Settings

Fact = tuple[str, str]
"""A value as text, and where it came from."""
Facts = dict[str, Fact]
"""By our word: rank, size, role, head, run_id (no other run's), run_name (the next run's too), attempt, note."""


@dataclass(frozen=True)
class Context:
    """What a value may be derived from."""

    settings: Settings
    host: Host
    own_addresses: Callable[[], Collection[str]]
    resolve: net.Resolve


def kubernetes(found: Facts, context: Context) -> Facts:
    """The Job's name out of the pod's, ``<job>-<index>``; the head's out of the pod's line in /etc/hosts.

    https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode
    """
    pod, domain = _pod_name(context.host)
    job, _, index = pod.rpartition("-")
    if not job or index != found.get("rank", ("", ""))[0]:
        return {}  # hostNetwork: the name is the machine's
    return {"run_name": (f"job-{job}", f"host name {pod}"), **_peer(f"{job}-0", domain)}


def jobset(found: Facts, context: Context) -> Facts:
    """The rank over all Jobs of the set, and the first pod's name, ``<set>-<replicated job>-0-0``.

    https://jobset.sigs.k8s.io/docs/concepts/
    """
    pod, domain = _pod_name(context.host)
    derived: Facts = {}
    if match := re.fullmatch(r"(.+)-[0-9]+-[0-9]+", pod):
        guesses = {"run_name": (f"jobset-{match[1]}", f"host name {pod}"), **_peer(f"{match[1]}-0-0", domain)}
        derived = {word: fact for word, fact in guesses.items() if word not in found}
    job, jobs = context.host.get("JOBSET_JOB_GLOBAL_INDEX"), context.host.get("JOBSET_GLOBAL_REPLICAS")
    if (job is None and jobs in (None, "1")) or context.settings.rank is not None or "rank" not in found:
        return derived
    quoted = f"JOBSET_JOB_GLOBAL_INDEX={job!r} and JOBSET_GLOBAL_REPLICAS={jobs!r}"
    nodes = context.settings.nodes
    if job is None or jobs is None or not job.isdecimal() or not jobs.isdecimal() or not int(job) < int(jobs):
        raise IdentityError(
            f"{quoted}: both are needed, as whole numbers, the first below the second",
            hint="take both from the pod's labels of the same name by the downward API, or give --rank=N",
        )
    if nodes is None or nodes % int(jobs) or not found["rank"][0].isdecimal():
        raise IdentityError(
            f"{quoted} with --nodes={nodes}: the nodes must be the same number in each of the {jobs} Jobs",
            hint="--nodes=N with the pods of all Jobs, or --rank=N",
        )
    index, name = found["rank"]
    rank = int(job) * (nodes // int(jobs)) + int(index)
    return {**derived, "rank": (str(rank), f"JOBSET_JOB_GLOBAL_INDEX={job} and {name}={index}")}


def openmpi(_found: Facts, context: Context) -> Facts:
    """Nothing, but with several processes per node their ranks are not the nodes'."""
    local = context.host.get("OMPI_COMM_WORLD_LOCAL_SIZE") or "1"
    if local != "1":
        raise IdentityError(
            f"OMPI_COMM_WORLD_LOCAL_SIZE={local!r}: mpirun started several processes on this node, and one is wanted",
            hint="mpirun --map-by ppr:1:node ray-bootstrap ...",
        )
    return {}


_NO_TASKS = {"4294967290": "an interactive step", "4294967291": "the batch script", "4294967292": "the extern step"}
"""Slurm's reserved step ids (slurm.h, SLURM_INTERACTIVE_STEP and its neighbours): each runs on one node only."""


def slurm_step(_found: Facts, context: Context) -> Facts:
    """The first host of the step; the batch script and an salloc shell are no step.

    Both have SLURM_NODEID=0 and SLURM_JOB_NUM_NODES, so that they look like rank 0.
    """
    get = context.host.get
    step = get("SLURM_STEP_ID") or get("SLURM_STEPID")
    if step in _NO_TASKS or not (step or get("SLURM_STEP_NODELIST")):
        where = f"SLURM_STEP_ID={step} is {_NO_TASKS[step]}" if step else "SLURM_STEP_ID is not set"
        raise IdentityError(
            f"SLURM_JOB_ID={get('SLURM_JOB_ID')!r}, but this is no task of srun: {where}",
            hint="srun --ntasks-per-node=1 ray-bootstrap ...   (--launcher=local for this machine alone)",
        )
    nodelist, name = slurm.nodelist(context.host)
    if not nodelist or context.settings.head_address is not None:
        return {}
    try:
        return {"head": (slurm.first(nodelist), f"{name}={nodelist}")}
    except ValueError as error:
        raise IdentityError(f"{name}: {error}", hint="--head-address=HOST says where the head is") from None


def skypilot(_found: Facts, context: Context) -> Facts:
    """The first line of SKYPILOT_NODE_IPS."""
    ips = (context.host.get("SKYPILOT_NODE_IPS") or "").split()
    return {"head": (ips[0], "SKYPILOT_NODE_IPS")} if ips else {}


def pytorchjob(found: Facts, context: Context) -> Facts:
    """The master's name, which some versions call ``localhost`` on the master itself."""
    head = found.get("head", ("", ""))[0]
    on_master = not head or is_loopback(head)
    return {"run_name": (f"pytorchjob-{context.host.hostname if on_master else head}", "MASTER_ADDR")}


def address(_found: Facts, context: Context) -> Facts:
    """The node that has the head's address is the head, as in ``ray symmetric-run --address``.

    On the head itself its name may resolve to 127.0.1.1 (Debian's habit), so a loopback address counts as its own.
    """
    wanted, count = context.settings.head_address, max(context.settings.nodes or 1, context.settings.min_nodes or 1)
    if wanted is None:
        raise IdentityError("--launcher=address goes by the head's address", hint="--head-address=HOST, on all nodes")
    if context.settings.role != "auto" or context.settings.rank is not None:
        return {"run_name": ("default", "")}  # the head may not have been told its own address
    # All nodes spell it alike, and two clusters on one machine differ in it.
    return {"run_name": (f"address-{wanted}", "--head-address"), **_role_by_address(wanted, count, context)}


def _role_by_address(wanted: str, count: int, context: Context) -> Facts:
    name, source = static.host_of(wanted), f"--head-address={wanted}"
    if is_loopback(name) and count > 1:
        raise IdentityError(
            f"{source} with {count} nodes: each of them would take itself for the head",
            hint="--head-address=HOST with the address under which the others reach the head",
        )
    if name.partition(".")[0] == context.host.hostname.partition(".")[0] and not _is_ip(name):
        return {"rank": ("0", f"{source} is this host's name")}
    try:
        found = {_canonical(a) for a in context.resolve(name)}
    except (OSError, UnicodeError) as error:
        # The head knows its own name, above or through /etc/hosts; a worker's resolver may be behind.
        return {"role": ("worker", source), "note": (f"{name} does not resolve yet ({error}): not this node", source)}
    mine = {_canonical(a) for a in context.own_addresses()}
    if own := sorted(a for a in found if a in mine or is_loopback(a)):
        return {"rank": ("0", f"{source} is this node's own {own[0]}")}
    return {"role": ("worker", f"{source} is not among this node's own addresses")}


_COUNTS = ("PMI_SIZE", "FLUX_JOB_NNODES", "AWS_BATCH_JOB_NUM_NODES", "AZUREML_NODE_COUNT")
"""Of launchers without a row: several nodes that each take themselves for the only one help nobody."""


def local(_found: Facts, context: Context) -> Facts:
    """This machine alone, unless something says that there are others."""
    settings, get = context.settings, context.host.get
    if (settings.nodes or 1) > 1 or (settings.min_nodes or 1) > 1 or settings.rank or settings.role == "worker":
        raise IdentityError(
            "--launcher=local is one node, and --nodes, --min-nodes, --rank or --role says that there are more",
            hint="--launcher=explicit with --rank=N and --nodes=N",
        )
    for name in _COUNTS if settings.launcher != "local" else ():
        if (count := get(name) or "").isdecimal() and int(count) > 1:
            raise IdentityError(
                f"{name}={count}: there are several, but this node's rank is in no variable that is known here",
                hint="--rank=N and --nodes=N on each node, or --launcher=local for this machine alone",
            )
    alone = "no launcher's variables are set"
    facts = {"rank": ("0", alone), "size": ("1", alone), "run_id": (f"local-{secrets.token_hex(4)}", "made up here")}
    if get("KUBERNETES_SERVICE_HOST") and settings.launcher != "local":
        facts["note"] = ("a pod without JOB_COMPLETION_INDEX or the like: taken as the only node", alone)
    return facts


def is_loopback(host: str) -> bool:
    """Whether a name or address as it is written means the machine that reads it."""
    return host == "localhost" or (_is_ip(host) and ipaddress.ip_address(_canonical(host)).is_loopback)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _canonical(ip: str) -> str:
    """One spelling per address, without the zone of a link-local one."""
    return str(ipaddress.ip_address(ip.partition("%")[0]))


def _pod_name(host: Host) -> tuple[str, str]:
    """The pod's host name and the domain of its headless Service; "" without one.

    The domain is in no variable, but the kubelet writes ``10.0.0.5 pod.service.namespace.svc.cluster.local pod``.
    """
    pod, _, domain = host.hostname.partition(".")
    for line in (host.read("/etc/hosts") or "").splitlines():
        for name in line.partition("#")[0].split()[1:]:
            first, _, rest = name.partition(".")
            if first == pod and rest and not domain:
                domain = rest
    return pod, domain


def _peer(pod: str, domain: str) -> Facts:
    return {"head": (f"{pod}.{domain}", "host name and /etc/hosts")} if domain else {}
