"""What the controllers of Job, JobSet, LeaderWorkerSet and Volcano make of their objects: pods.

What becomes of a Job whose pods end: :mod:`job_controller`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hosts import Host
from kubelet import NAMESPACE, UID, Object, Pod

CRDS = {"jobset.x-k8s.io", "leaderworkerset.x-k8s.io", "ray.io", "batch.volcano.sh"}
"""Groups of other projects: validated as a whole by :mod:`custom_kinds`, and what they hold of Kubernetes' own."""


def is_custom(thing: Object) -> bool:
    """Not by the kind: Volcano's is called Job, too."""
    return thing["apiVersion"].partition("/")[0] in CRDS


def native(thing: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The object itself, or the parts of a custom one that are Kubernetes' own, as objects."""
    spec = thing.get("spec", {})
    if not is_custom(thing):
        yield thing
    elif thing["kind"] == "JobSet":
        for job in spec["replicatedJobs"]:
            yield {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}, **job["template"]}
    else:
        for template in templates(thing):
            yield {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": template}


def templates(thing: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates of any of our kinds."""
    spec = thing.get("spec", {})
    if thing["kind"] == "Job":
        return [task["template"] for task in spec["tasks"]] if is_custom(thing) else [spec["template"]]
    if thing["kind"] == "JobSet":
        return [job["template"]["spec"]["template"] for job in spec["replicatedJobs"]]
    if thing["kind"] == "LeaderWorkerSet":
        return [spec["leaderWorkerTemplate"]["workerTemplate"]]
    if thing["kind"] in ("RayCluster", "RayJob", "RayService"):
        cluster = ray_cluster(thing)
        return [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    return []


def ray_cluster(thing: Object) -> dict[str, Any]:
    """The spec of the RayCluster that this is, or that it holds."""
    spec: dict[str, Any] = thing["spec"]
    return spec.get("rayClusterConfig") or spec.get("rayClusterSpec") or spec


def pods_of(thing: Object) -> int:
    """How many pods there are of a Job, a JobSet or a Volcano Job."""
    spec = thing["spec"]
    if thing["kind"] == "JobSet":
        return sum(job.get("replicas", 1) * job["template"]["spec"]["completions"] for job in spec["replicatedJobs"])
    return sum(task["replicas"] for task in spec["tasks"]) if is_custom(thing) else int(spec["completions"])


def job_pods(job: Object, hosts: Sequence[Host], labels: Mapping[str, str] | None = None) -> list[Pod]:
    """The pods that the controller of an Indexed Job makes, one on each host.

    https://kubernetes.io/docs/concepts/workloads/controllers/job/#completion-mode
    """
    name, template = job["metadata"]["name"], job["spec"]["template"]
    if job["spec"]["completionMode"] != "Indexed" or job["spec"]["completions"] != len(hosts):
        raise ValueError(f"{name} is not an Indexed Job of {len(hosts)} pods")
    pods = []
    for index, host in enumerate(hosts):
        own = {"batch.kubernetes.io/job-completion-index": str(index), "batch.kubernetes.io/job-name": name}
        own |= {"batch.kubernetes.io/controller-uid": UID, "controller-uid": UID, "job-name": name, **(labels or {})}
        meta = template.get("metadata", {})
        pods.append(
            Pod(
                name=f"{name}-{index}-x7k2p",
                hostname=f"{name}-{index}",
                labels={**meta.get("labels", {}), **own},
                annotations={**meta.get("annotations", {}), "batch.kubernetes.io/job-completion-index": str(index)},
                spec=template["spec"],
                host=host,
                env={"JOB_COMPLETION_INDEX": str(index)},
            )
        )
    return pods


def jobset_pods(jobset: Object, hosts: Sequence[Host], restarts: int = 0) -> list[Pod]:
    """The pods of a JobSet, on the hosts in the order of its Jobs; https://jobset.sigs.k8s.io/docs/concepts/"""
    name, parts = jobset["metadata"]["name"], jobset["spec"]["replicatedJobs"]
    subdomain = jobset["spec"]["network"].get("subdomain", name)
    head = jobset["spec"]["coordinator"]
    coordinator = f"{name}-{head['replicatedJob']}-{head['jobIndex']}-{head['podIndex']}.{subdomain}"
    every = [(part, index) for part in parts for index in range(part.get("replicas", 1))]
    pods: list[Pod] = []
    for number, (part, index) in enumerate(every):
        job = {**copy.deepcopy(part["template"]), "metadata": {"name": f"{name}-{part['name']}-{index}"}}
        job["spec"]["template"]["spec"]["subdomain"] = subdomain
        labels = {"jobset-name": name, "jobset-uid": UID, "restart-attempt": str(restarts), "coordinator": coordinator}
        labels |= {"replicatedjob-name": part["name"], "replicatedjob-replicas": str(part.get("replicas", 1))}
        labels |= {"job-index": str(index), "job-global-index": str(number), "global-replicas": str(len(every))}
        own = {f"jobset.sigs.k8s.io/{key}": value for key, value in labels.items()}
        meta = job["spec"]["template"]["metadata"]
        meta["annotations"] = {**meta.get("annotations", {}), **own}
        pods += job_pods(job, hosts[len(pods) : len(pods) + job["spec"]["completions"]], own)
    return pods


def leaderworkerset_pods(lws: Object, hosts: Sequence[Host]) -> list[Pod]:
    """The pods of a LeaderWorkerSet's first group; https://lws.sigs.k8s.io/docs/reference/."""
    name, its = lws["metadata"]["name"], lws["spec"]["leaderWorkerTemplate"]
    if its["size"] != len(hosts):
        raise ValueError(f"{name} is not of {len(hosts)} pods")
    names = [f"{name}-0", *(f"{name}-0-{index}" for index in range(1, its["size"]))]
    spec = {**its["workerTemplate"]["spec"], "subdomain": name}
    prefix = "leaderworkerset.sigs.k8s.io"
    labels = {**its["workerTemplate"]["metadata"]["labels"], f"{prefix}/name": name, f"{prefix}/group-key": "b7f3"}
    leader = {"LWS_LEADER_ADDRESS": f"{names[0]}.{name}.{NAMESPACE}", "LWS_GROUP_SIZE": str(its["size"])}
    return [
        Pod(pod, pod, labels, {}, spec, host, {**leader, "LWS_WORKER_INDEX": str(index)})
        for index, (pod, host) in enumerate(zip(names, hosts, strict=True))
    ]


def volcano_pods(job: Object, hosts: Sequence[Host], version: int = 0) -> list[Pod]:
    """The pods of a Volcano Job with the plugins env and svc, on the hosts in the order of its tasks.

    createJobPod in pkg/controllers/job/job_controller_util.go, https://github.com/volcano-sh/volcano
    """
    name = job["metadata"]["name"]
    tasks = [(task, index) for task in job["spec"]["tasks"] for index in range(task["replicas"])]
    pods = []
    for (task, index), host in zip(tasks, hosts, strict=True):
        pod, meta = f"{name}-{task['name']}-{index}", task["template"].get("metadata", {})
        own = {
            "job-name": name,
            "task-spec": task["name"],
            "task-index": str(index),
            "queue-name": job["spec"]["queue"],
        }
        labels = {f"volcano.sh/{key}": value for key, value in {**own, "job-namespace": NAMESPACE}.items()}
        own |= {"job-version": str(version), "job-retry-count": str(version + 1)}
        annotations = {f"volcano.sh/{key}": value for key, value in own.items()}
        annotations["scheduling.k8s.io/group-name"] = f"{name}-{UID}"
        spec = {"hostname": pod, "subdomain": name, **task["template"]["spec"]}
        indices = {"VK_TASK_INDEX": str(index), "VC_TASK_INDEX": str(index)}
        pods.append(
            Pod(
                name=pod,
                hostname=spec["hostname"],
                labels={**meta.get("labels", {}), **labels},
                annotations={**meta.get("annotations", {}), **annotations},
                spec=spec,
                host=host,
                env={**indices, **volcano_lists(job)},
            )
        )
    return pods


def volcano_lists(job: Object, *, files: bool = False) -> dict[str, str]:
    """What Volcano's plugin svc says of a Job: variables, or all the files that it mounts at /etc/volcano.

    GenerateHosts in pkg/controllers/job/plugins/svc/svc.go, https://github.com/volcano-sh/volcano
    """
    found, name = {}, job["metadata"]["name"]
    for task in job["spec"]["tasks"]:
        its, variable = task["template"]["spec"], task["name"].replace("-", "_")
        fixed, subdomain = its.get("hostname"), its.get("subdomain", name)
        names = [f"{fixed or name + '-' + task['name'] + '-' + str(i)}.{subdomain}" for i in range(task["replicas"])]
        names = names[:1] if fixed else names
        found |= {f"VC_{variable.upper()}_HOSTS": ",".join(names), f"VC_{variable.upper()}_NUM": str(len(names))}
        found |= {f"{variable}.host": "\n".join(names)} if files else {}
    return found


def headless(name: str, labels: Mapping[str, str]) -> Object:
    """The Service that the controllers of JobSet, LeaderWorkerSet and Volcano make."""
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": dict(labels)}
    return {"kind": "Service", "metadata": {"name": name}, "spec": spec}
