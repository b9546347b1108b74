"""Kubernetes: Indexed Jobs, and the controllers that make Jobs or pods of several."""

import re
from functools import partial

from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.launchers import events, hostlist
from bootstrap.launchers.row import Context, Fact, Facts, Launcher, number
from bootstrap.settings import Settings


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
    """Derive the rank across all Jobs of the set, how many pods these have, and the name of the first one.

    Its pods are called ``<set>-<replicated job>-<job>-<index>``. Only a pod whose Job has the same index in its own
    replicated Job as in the set belongs to the first replicated Job, and so knows the head's name.

    Sources: https://jobset.sigs.k8s.io/docs/concepts/; globalJobIndex in pkg/controllers/jobset_controller.go
    (https://github.com/kubernetes-sigs/jobset)

    :raises IdentityError: if a number is missing or impossible, or the head's name is unknown or not that of rank 0.
    """
    pod, domain = pod_name(context.host)
    match = re.fullmatch(r"(.+)-([0-9]+)-([0-9]+)", pod)
    own = match if match and match[3] == found["rank"][0] else None  # with hostNetwork the name is the machine's
    derived: Facts = {}
    if own and domain:
        derived["run_name"] = (f"jobset-{domain.partition('.')[0]}", "/etc/hosts")  # the Service's name is the set's
    if own and context.host.get("JOBSET_JOB_GLOBAL_INDEX") in (None, own[2]):
        derived |= _peer(f"{own[1]}-0-0", domain)
    facts = {word: fact for word, fact in derived.items() if word not in found}
    if context.settings.rank is None:
        facts |= _across_jobs(found["rank"], own[2] if own else "0", context)
    if own and domain:
        _refuse_other_head({**found, **facts}, pod, context.settings)
    return facts


def _across_jobs(own: Fact, named: str, context: Context) -> Facts:
    """Return the rank across all Jobs of the set, and the size; nothing if there is but one Job.

    :param named: the index of the Job in the pod's name.
    """
    get, (index, name) = context.host.get, own
    job, jobs, pods_of = (get(f"JOBSET_{each}") for each in ("JOB_GLOBAL_INDEX", "GLOBAL_REPLICAS", "PODS_PER_JOB"))
    if pods_of is None and (jobs == "1" or (job is None and jobs is None and named == "0")):
        return {}
    if not 0 <= number(job) < number(jobs) <= hostlist.MOST_HOSTS:
        raise IdentityError(
            f"JOBSET_JOB_GLOBAL_INDEX={job!r} and JOBSET_GLOBAL_REPLICAS={jobs!r} in a set of several Jobs: expected"
            " two whole numbers, the first below the second",
            hint="set both through the downward API, from the pod's labels jobset.sigs.k8s.io/job-global-index and "
            "jobset.sigs.k8s.io/global-replicas; or --rank=N",
        )
    listed = re.fullmatch("[0-9]{1,9}(?:, ?[0-9]{1,9})*", pods_of or "")
    numbers = list(map(int, listed[0].split(","))) if listed else []
    numbers *= number(jobs) if len(numbers) == 1 else 1
    if len(numbers) != number(jobs) or not 0 <= number(index) < numbers[number(job)]:
        raise IdentityError(
            f"JOBSET_PODS_PER_JOB={pods_of!r} with JOBSET_GLOBAL_REPLICAS={jobs}, JOBSET_JOB_GLOBAL_INDEX={job} and"
            f" {name}={index!r}: expected how many pods each of the {jobs} Jobs has",
            hint=_PODS_PER_JOB,
        )
    if context.settings.nodes not in (None, sum(numbers)):
        what = f"--nodes={context.settings.nodes}, and JOBSET_PODS_PER_JOB={pods_of!r} for {jobs} Jobs"
        raise IdentityError(f"{what} makes {sum(numbers)}", hint=f"--nodes={sum(numbers)}, or none")
    rank = sum(numbers[: number(job)]) + number(index)
    where = f"JOBSET_JOB_GLOBAL_INDEX={job} of JOBSET_PODS_PER_JOB={pods_of} and {name}={index}"
    return {"rank": (str(rank), where), "size": (str(sum(numbers)), "JOBSET_PODS_PER_JOB")}


def _refuse_other_head(facts: Facts, pod: str, settings: Settings) -> None:
    """Raise an error if the head's name is not known where nothing else leads to it, or if it has another rank."""
    if settings.head_address or settings.shared_dir or settings.rendezvous not in ("auto", "dns"):
        return
    head, rank = facts.get("head", ("", ""))[0].partition(".")[0], facts.get("rank", ("", ""))[0]
    if not head:
        raise IdentityError(
            f"{pod} is not of the first replicated Job, and so does not know the name of rank 0",
            hint="--head-address=HOST; or JOBSET_COORDINATOR from the pod's label jobset.sigs.k8s.io/coordinator, with"
            " `coordinator` in the JobSet's spec",
        )
    if settings.rank is None and (head == pod) is not (rank == "0"):
        raise IdentityError(
            f"the head is {head}, and {pod} has rank {rank}: rank 0 is the head",
            hint="in the JobSet's spec the head's replicated Job first, `coordinator` with its jobIndex 0, podIndex 0",
        )


def downward(path: str) -> str:
    """Return how to set the run id from a field of the pod, such as ``metadata.labels['NAME']``."""
    return (
        "set it through the downward API:\n  env:\n  - name: RAY_BOOTSTRAP_RUN_ID\n"
        f'    valueFrom: {{fieldRef: {{fieldPath: "{path}"}}}}'
    )


def _label(name: str) -> str:
    return downward(f"metadata.labels['{name}']")


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
_PODS_PER_JOB = """\
in the template of each Job, the same text: the completions of all Jobs in their order, or one number if they are equal
  env:
  - name: JOBSET_PODS_PER_JOB
    value: "1,8\""""
_NODES_YAML = """\
Kubernetes sets no variable for it; --nodes=N, or in the manifest (the number in spec.completions):
  env:
  - name: RAY_BOOTSTRAP_NODES
    value: "2\""""

ROWS: tuple[Launcher, ...] = (
    # Its pods are an Indexed Job's; those of a PyTorchJob, which have the same variables, are not.
    Launcher(
        "kubeflow-trainer",
        all_of=("JOB_COMPLETION_INDEX",),
        built_on=("jobset", "kubernetes", "pytorchjob"),
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
