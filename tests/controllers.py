"""What the controllers of Job, JobSet and LeaderWorkerSet make of their objects: pods.

What becomes of a Job whose pods end: :mod:`job_controller`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hosts import Host
from kubelet import NAMESPACE, UID, Object, Pod

CRDS = {"JobSet", "LeaderWorkerSet", "RayCluster", "RayService"}
"""Kinds of other projects: validated as a whole by :mod:`custom_kinds`, and what they hold of Kubernetes' own kinds."""


def native(thing: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The object itself, or the parts of a custom one that are Kubernetes' own, as objects."""
    spec = thing.get("spec", {})
    if thing["kind"] not in CRDS:
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
        return [spec["template"]]
    if thing["kind"] == "JobSet":
        return [job["template"]["spec"]["template"] for job in spec["replicatedJobs"]]
    if thing["kind"] == "LeaderWorkerSet":
        return [spec["leaderWorkerTemplate"]["workerTemplate"]]
    if thing["kind"] in ("RayCluster", "RayService"):
        cluster = spec.get("rayClusterConfig", spec)
        return [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    return []


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
    """The pods of a JobSet of one Job; https://jobset.sigs.k8s.io/docs/concepts/"""
    (part,) = jobset["spec"]["replicatedJobs"]
    name = jobset["metadata"]["name"]
    subdomain = jobset["spec"]["network"].get("subdomain", name)
    job = {**copy.deepcopy(part["template"]), "metadata": {"name": f"{name}-{part['name']}-0"}}
    job["spec"]["template"]["spec"]["subdomain"] = subdomain
    labels = {"jobset-name": name, "jobset-uid": UID, "restart-attempt": str(restarts), "job-global-index": "0"}
    labels |= {"global-replicas": "1", "replicatedjob-name": part["name"], "replicatedjob-replicas": "1"}
    head = jobset["spec"]["coordinator"]
    pod = f"{name}-{head['replicatedJob']}-{head['jobIndex']}-{head['podIndex']}"
    labels["coordinator"] = f"{pod}.{subdomain}"
    own = {f"jobset.sigs.k8s.io/{key}": value for key, value in labels.items()}
    meta = job["spec"]["template"]["metadata"]
    meta["annotations"] = {**meta.get("annotations", {}), **own}
    return job_pods(job, hosts, own)


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
    """The Service that the controllers of JobSet and LeaderWorkerSet make."""
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": dict(labels)}
    return {"kind": "Service", "metadata": {"name": name}, "spec": spec}
