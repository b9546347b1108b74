"""Kubernetes: Indexed Jobs, and the controllers that make Jobs or pods of several."""

import re
from functools import partial

from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.launchers import events
from bootstrap.launchers.row import Context, Facts, Launcher


def pod_name(host: Host) -> tuple[str, str]:
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


def kubernetes(found: Facts, context: Context) -> Facts:
    """Derive the Job's name from the pod's, ``<job>-<index>``, and the head's from the pod's line in /etc/hosts.

    Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode
    """
    pod, domain = pod_name(context.host)
    job, _, index = pod.rpartition("-")
    if not job or index != found.get("rank", ("", ""))[0]:
        return {}  # with hostNetwork the name is the machine's
    return {"run_name": (f"job-{job}", f"host name {pod}"), **_peer(f"{job}-0", domain)}


def jobset(found: Facts, context: Context) -> Facts:
    """Derive the rank across all Jobs of the set, and the first pod's name, ``<set>-<replicated job>-0-0``.

    Source: https://jobset.sigs.k8s.io/docs/concepts/

    :raises IdentityError: if the global index or the number of Jobs is missing or impossible.
    """
    pod, domain = pod_name(context.host)
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


def _label(label: str) -> str:
    return (
        "set it through the downward API:\n  env:\n  - name: RAY_BOOTSTRAP_RUN_ID\n"
        f"    valueFrom: {{fieldRef: {{fieldPath: \"metadata.labels['{label}']\"}}}}"
    )


def pods(labels: str, maker: str, these: str = "") -> str:
    """Return how to look at the pods with these labels, at their causes, and at what makes them.

    :param maker: the kind of that, and its name or labels.
    :param these: labels of the pods that are to be described.
    """
    described = ",".join(filter(None, [labels, these]))
    return (
        f"kubectl get pods -o wide -l {labels}; kubectl describe pods -l '{described}' (FailedScheduling: no room;"
        " ErrImagePull: no such image; CreateContainerConfigError: no such Secret or ConfigMap); where there is no pod:"
        f" kubectl describe {maker} (FailedCreate: a quota or an admission webhook)"
    )


_JOBSET_PODS = pods("jobset.sigs.k8s.io/jobset-name={name}", "jobs -l jobset.sigs.k8s.io/jobset-name={name}")
_JOBS_EVENTS = partial(events.causes, pods="{job}-([0-9]{1,9})-[a-z0-9]*", makers="{job}")
_NODES_YAML = """\
Kubernetes sets no variable for it; --nodes=N, or in the manifest (the number in spec.completions):
  env:
  - name: RAY_BOOTSTRAP_NODES
    value: "2\""""

ROWS: tuple[Launcher, ...] = (
    Launcher(
        "kubeflow-trainer",
        any_of=("PET_NODE_RANK", "PET_NNODES"),
        built_on=("jobset", "kubernetes"),
        rank=("PET_NODE_RANK",),
        size=("PET_NNODES",),
        head=("PET_MASTER_ADDR", "PET_RDZV_ENDPOINT"),
        attempt=("JOBSET_RESTART_ATTEMPT",),
        run_id=("jobset-{JOBSET_UID}",),
        run_name=("kubeflow-{PET_MASTER_ADDR}", "kubeflow-{PET_RDZV_ENDPOINT}"),
        rendezvous="dns",
        requeues=True,
        run_id_hint=_label("jobset.sigs.k8s.io/jobset-uid"),
        look=_JOBSET_PODS,
        why=_JOBS_EVENTS,
        name_in=("PET_MASTER_ADDR", r"[^.]+\.([^.]+).*"),
    ),
    # JobSet sets no variables: the manifest sets these through the downward API, from labels and annotations.
    Launcher(
        "jobset",
        any_of=("JOBSET_NAME", "JOBSET_UID", "JOBSET_RESTART_ATTEMPT", "JOBSET_COORDINATOR", "JOBSET_JOB_GLOBAL_INDEX"),
        all_of=("JOB_COMPLETION_INDEX",),
        built_on=("kubernetes",),
        rank=("JOB_COMPLETION_INDEX",),
        head=("JOBSET_COORDINATOR",),
        attempt=("JOBSET_RESTART_ATTEMPT",),
        run_id=("jobset-{JOBSET_UID}",),
        run_name=("jobset-{JOBSET_NAME}",),
        rendezvous="dns",
        requeues=True,
        derive=jobset,
        size_hint=_NODES_YAML,
        run_id_hint=_label("jobset.sigs.k8s.io/jobset-uid"),
        look=_JOBSET_PODS,
        why=_JOBS_EVENTS,
        name_in=("JOBSET_NAME", r"(.+)"),
    ),
    Launcher(
        "leaderworkerset",
        any_of=("LWS_LEADER_ADDRESS", "LWS_GROUP_SIZE", "LWS_WORKER_INDEX"),
        rank=("LWS_WORKER_INDEX",),
        size=("LWS_GROUP_SIZE",),
        head=("LWS_LEADER_ADDRESS",),
        run_name=("lws-{LWS_LEADER_ADDRESS}",),
        rendezvous="dns",
        requeues=True,
        run_id_hint=_label("leaderworkerset.sigs.k8s.io/group-key"),
        look=pods(
            "leaderworkerset.sigs.k8s.io/name={name}",
            "statefulsets -l leaderworkerset.sigs.k8s.io/name={name}",
            "leaderworkerset.sigs.k8s.io/worker-index in ({ranks})",
        ),
        why=partial(events.causes, pods="{pod}-([0-9]{1,9})", makers="{pod}"),
        name_in=("LWS_LEADER_ADDRESS", r"[^.]+\.([^.]+).*"),
    ),
    Launcher(
        "kubernetes",
        any_of=("JOB_COMPLETION_INDEX",),
        rank=("JOB_COMPLETION_INDEX",),
        rendezvous="dns",
        requeues=True,
        derive=kubernetes,
        size_hint=_NODES_YAML,
        run_id_hint=_label("batch.kubernetes.io/controller-uid"),
        look=pods(
            "batch.kubernetes.io/job-name={name}",
            "job {name}",
            "batch.kubernetes.io/job-completion-index in ({ranks})",
        ),
        why=_JOBS_EVENTS,
        name_in=("", r"(.+)-[0-9]+"),
    ),
)
