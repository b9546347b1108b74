"""Facts that a launcher provides, but not in a variable: one pure function for each row that needs one."""

import contextlib
import ipaddress
import itertools
import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass

from bootstrap import net
from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.rendezvous import slurm, static
from bootstrap.settings import Settings

MOST_HOSTS = 1 << 16
"""Names in a node list that are read; a corrupt variable could stand for any number."""
Fact = tuple[str, str]
"""A value as text, and its source."""
Facts = dict[str, Fact]
"""By our word: rank, size, role, head, run_id (unique), run_name (perhaps the next run's too), attempt, note; hosts:
the names of all nodes by rank, with spaces between."""


@dataclass(frozen=True)
class Context:
    """The inputs of a derivation."""

    settings: Settings
    host: Host
    own_addresses: Callable[[], Collection[str]]
    resolve: net.Resolve


def kubernetes(found: Facts, context: Context) -> Facts:
    """Derive the Job's name from the pod's, ``<job>-<index>``, and the head's from the pod's line in /etc/hosts.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode
    """
    pod, domain = _pod_name(context.host)
    job, _, index = pod.rpartition("-")
    if not job or index != found.get("rank", ("", ""))[0]:
        return {}  # with hostNetwork the name is the machine's
    return {"run_name": (f"job-{job}", f"host name {pod}"), **_peer(f"{job}-0", domain)}


def jobset(found: Facts, context: Context) -> Facts:
    """Derive the rank across all Jobs of the set, and the first pod's name, ``<set>-<replicated job>-0-0``.

    Source: https://jobset.sigs.k8s.io/docs/concepts/

    :raises IdentityError: if the global index or the number of Jobs is missing or impossible.
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
            f"{quoted}: expected two whole numbers, the first below the second",
            hint="set both through the downward API, from the pod's labels jobset.sigs.k8s.io/job-global-index and "
            "jobset.sigs.k8s.io/global-replicas; or --rank=N",
        )
    if nodes is None or nodes % int(jobs) or not found["rank"][0].isdecimal():
        raise IdentityError(
            f"{quoted} with --nodes={nodes}: expected the same number of nodes in each of the {jobs} Jobs",
            hint=f"--nodes=N, a multiple of {jobs}: the pods of all Jobs together; or --rank=N",
        )
    index, name = found["rank"]
    rank = int(job) * (nodes // int(jobs)) + int(index)
    return {**derived, "rank": (str(rank), f"JOBSET_JOB_GLOBAL_INDEX={job} and {name}={index}")}


def openmpi(_found: Facts, context: Context) -> Facts:
    """Derive nothing, but refuse several processes per node: their ranks are not the nodes'.

    :raises IdentityError: if mpirun started more than one process on this node.
    """
    local = context.host.get("OMPI_COMM_WORLD_LOCAL_SIZE") or "1"
    if local != "1":
        raise IdentityError(
            f"OMPI_COMM_WORLD_LOCAL_SIZE={local!r}: mpirun started several processes on this node, expected one",
            hint="mpirun --map-by ppr:1:node ray-bootstrap ...",
        )
    return {}


_NO_TASKS = {"4294967290": "an interactive step", "4294967291": "the batch script", "4294967292": "the extern step"}
"""Slurm's reserved step ids (slurm.h, SLURM_INTERACTIVE_STEP and its neighbours): each runs on one node only."""


def slurm_step(_found: Facts, context: Context) -> Facts:
    """Derive the head, which is the first host of the step, and the names of all its nodes.

    A batch script and an salloc shell are not srun tasks, but they have SLURM_NODEID=0 and SLURM_JOB_NUM_NODES and so
    look like rank 0. A step with more tasks than nodes is refused as a whole: if only the surplus ones were, they would
    fail the job, with their status, after its program has run to its end.

    :raises IdentityError: if this process is not a task of srun, if a node has several, or the node list is malformed.
    """
    get = context.host.get
    step = get("SLURM_STEP_ID") or get("SLURM_STEPID")
    if step in _NO_TASKS or not (step or get("SLURM_STEP_NODELIST")):
        where = f"SLURM_STEP_ID={step} is {_NO_TASKS[step]}" if step else "SLURM_STEP_ID is not set"
        raise IdentityError(
            f"SLURM_JOB_ID={get('SLURM_JOB_ID')!r}, but this process is not a task of srun: {where}",
            hint=f"{slurm.ONE_TASK}   (--launcher=local for this machine alone)",
        )
    tasks, nodes = get("SLURM_STEP_NUM_TASKS"), get("SLURM_STEP_NUM_NODES")
    if tasks and nodes and tasks != nodes:
        spread = get("SLURM_STEP_TASKS_PER_NODE") or "?"
        what = f"SLURM_STEP_NUM_TASKS={tasks} on SLURM_STEP_NUM_NODES={nodes}"
        raise IdentityError(
            f"{what} (tasks on each node: {spread}): expected one task on each node", hint=slurm.ONE_TASK
        )
    nodelist, name = slurm.nodelist(context.host)
    hosts: Facts = {}
    with contextlib.suppress(ValueError):
        hosts["hosts"] = (" ".join(itertools.islice(slurm.hosts(nodelist), MOST_HOSTS)), name)
    if not nodelist or context.settings.head_address is not None:
        return hosts
    try:
        return {"head": (slurm.first(nodelist), f"{name}={nodelist}"), **hosts}
    except ValueError as error:
        raise IdentityError(f"{name}: {error}", hint="--head-address=HOST, the first node of the step") from None


def skypilot(_found: Facts, context: Context) -> Facts:
    """Derive the nodes from SKYPILOT_NODE_IPS, whose first line is the head's."""
    ips = (context.host.get("SKYPILOT_NODE_IPS") or "").split()
    if not ips:
        return {}
    return {"head": (ips[0], "SKYPILOT_NODE_IPS"), "hosts": (" ".join(ips), "SKYPILOT_NODE_IPS")}


def pytorchjob(found: Facts, context: Context) -> Facts:
    """Derive the run's name from the master's, which some versions call ``localhost`` on the master itself."""
    head = found.get("head", ("", ""))[0]
    on_master = not head or is_loopback(head)
    return {"run_name": (f"pytorchjob-{context.host.hostname if on_master else head}", "MASTER_ADDR")}


def address(_found: Facts, context: Context) -> Facts:
    """Make the node that has the head's address the head, as ``ray symmetric-run --address`` does.

    On the head, its name may resolve to 127.0.1.1 (Debian's default), so a loopback address counts as this node's.

    :raises IdentityError: if the head's address is missing, or is loopback with more than one node.
    """
    wanted, count = context.settings.head_address, max(context.settings.nodes or 1, context.settings.min_nodes or 1)
    if wanted is None:
        raise IdentityError("--launcher=address needs the head's address", hint="--head-address=HOST, on all nodes")
    if context.settings.role != "auto" or context.settings.rank is not None:
        return {"run_name": ("default", "")}  # not from the address, which the head's command line may lack
    # All nodes get it in the same spelling, and two clusters on one machine differ in it.
    return {"run_name": (f"address-{wanted}", "--head-address"), **_role_by_address(wanted, count, context)}


def _role_by_address(wanted: str, count: int, context: Context) -> Facts:
    name, source = static.host_of(wanted), f"--head-address={wanted}"
    if is_loopback(name) and count > 1:
        raise IdentityError(
            f"{source} with {count} nodes: each of them would take itself for the head",
            hint="--head-address=HOST, the address at which the other nodes reach the head",
        )
    if name.partition(".")[0] == context.host.hostname.partition(".")[0] and not net.is_address(name):
        return {"rank": ("0", f"{source} is this host's name")}
    try:
        found = _without_zone(context.resolve(name))
    except (OSError, UnicodeError) as error:
        # The head knows its name, from above or from /etc/hosts; a worker's resolver may lag.
        return {"role": ("worker", source), "note": (f"{name} does not resolve yet ({error}): not this node", source)}
    own = _without_zone(context.own_addresses())
    if held := sorted(a for a in found if a in own or is_loopback(a)):
        return {"rank": ("0", f"{source} is this node's address {held[0]}")}
    return {"role": ("worker", f"{source} is not an address of this node")}


_COUNTS = ("PMI_SIZE", "FLUX_JOB_NNODES", "AWS_BATCH_JOB_NUM_NODES", "AZUREML_NODE_COUNT")
"""Node counts of launchers without a row: their nodes must not each start a cluster alone."""


def local(_found: Facts, context: Context) -> Facts:
    """Take this machine as the only node.

    :raises IdentityError: if an option or a variable says that there are more.
    """
    settings, get = context.settings, context.host.get
    if (settings.nodes or 1) > 1 or (settings.min_nodes or 1) > 1 or settings.rank or settings.role == "worker":
        raise IdentityError(
            "--launcher=local means one node, but --nodes, --min-nodes, --rank or --role asks for more",
            hint="--launcher=explicit with --rank=N and --nodes=N",
        )
    for name in _COUNTS if settings.launcher != "local" else ():
        if (count := get(name) or "").isdecimal() and int(count) > 1:
            raise IdentityError(
                f"{name}={count}: there are several nodes, but no known variable has this node's rank",
                hint="--rank=N and --nodes=N on each node, or --launcher=local for this machine alone",
            )
    alone = "no launcher's variables are set"
    facts = {"rank": ("0", alone), "size": ("1", alone), "run_id": (f"local-{secrets.token_hex(4)}", "generated here")}
    if get("KUBERNETES_SERVICE_HOST") and settings.launcher != "local":
        facts["note"] = ("no JOB_COMPLETION_INDEX or the like in this pod: it counts as the only node", alone)
    return facts


def is_loopback(host: str) -> bool:
    """Return whether a name or address, without a look-up, means the machine that reads it."""
    return host == "localhost" or (net.is_address(host) and ipaddress.ip_address(host).is_loopback)


def _without_zone(addresses: Collection[str]) -> set[str]:
    """Return the canonical addresses, without the zone (``%eth0``) of link-local ones."""
    return {net.canonical(address.partition("%")[0]) for address in addresses}


def _pod_name(host: Host) -> tuple[str, str]:
    """Return the pod's host name and the domain of its headless Service, which is empty without one.

    No variable has the domain, but the kubelet writes ``10.0.0.5 pod.service.namespace.svc.cluster.local pod`` to
    /etc/hosts.
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
