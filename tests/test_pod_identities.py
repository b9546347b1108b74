"""The pods of the rendered manifests, as their controllers make them, know who they are: each a rank, all one run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import controllers
import kubelet
import pytest
from hosts import Host as Machine

from bootstrap import settings
from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.launchers import identify
from bootstrap.model import NodeIdentity, Role

pytestmark = [pytest.mark.requires("kubectl")]
Objects = list[dict[str, Any]]


class Here(Machine):
    """A machine as far as a pod's environment shows it."""

    def __init__(self, number: int) -> None:
        self.ip, self.name = f"10.0.0.{number + 1}", f"machine-{number}"


def identities(
    objects: Objects, kind: str, make: Callable[..., list[kubelet.Pod]], tmp_path: Path
) -> list[NodeIdentity]:
    """Of each pod; the test fails if one has something to note."""
    thing = kubelet.only(objects, kind)
    machines = [Here(number) for number in range(controllers.pods_of(thing))]
    found = []
    for pod in make(thing, machines):
        root = tmp_path / pod.hostname
        (root / "etc").mkdir(parents=True)
        service = f".{pod.spec['subdomain']}.default.svc.cluster.local"
        (root / "etc/hosts").write_text(f"{pod.host.ip}\t{pod.hostname}{service}\t{pod.hostname}\n")
        env = kubelet.environment(objects, pod, {})
        identity, notes = identify(settings.load({}, env), Host(env, pod.hostname, root))
        assert notes == []
        found.append(identity)
    return found


@pytest.mark.parametrize(
    ("folder", "kind", "make", "launcher", "run_id", "attempt"),
    [
        ("k8s/base", "Job", controllers.job_pods, "kubernetes", kubelet.UID, 0),
        ("k8s/overlays/jobset", "JobSet", controllers.jobset_pods, "jobset", f"jobset-{kubelet.UID}", 0),
        ("k8s/overlays/jobset-head", "JobSet", controllers.jobset_pods, "jobset", f"jobset-{kubelet.UID}", 0),
        ("k8s/overlays/volcano", "Job", controllers.volcano_pods, "volcano", f"ray-{kubelet.UID}", 0),
        ("examples/frameworks/aws-batch", "Job", controllers.job_pods, "kubernetes", kubelet.UID, 0),
        ("examples/frameworks/nemo-rl", "JobSet", controllers.jobset_pods, "jobset", f"jobset-{kubelet.UID}", 0),
    ],
)
def test_the_pods_as_they_are(
    tmp_path: Path, folder: str, kind: str, make: Any, launcher: str, run_id: str, attempt: int
) -> None:
    found = identities(kubelet.render(folder), kind, make, tmp_path)
    assert [identity.rank for identity in found] == list(range(len(found)))
    assert [identity.role for identity in found] == [Role.HEAD, *[Role.WORKER] * (len(found) - 1)]
    for identity in found:
        its = (identity.launcher, identity.size, identity.run_id, identity.attempt, identity.head_hints)
        assert its == (launcher, len(found), run_id, attempt, ("ray-head",))


def test_the_pods_of_a_later_try_of_volcanos_have_its_number(tmp_path: Path) -> None:
    """All the same one; that of retries also counts the restarts of single pods, which join those that run."""
    objects = kubelet.render("k8s/overlays/volcano")
    found = identities(objects, "Job", lambda job, hosts: controllers.volcano_pods(job, hosts, 3), tmp_path)
    assert [identity.attempt for identity in found] == [3, 3]


@pytest.mark.parametrize("names", [("node", "worker"), ("worker", "master")])
def test_a_volcano_job_of_two_tasks(tmp_path: Path, names: tuple[str, str]) -> None:
    objects = kubelet.render("k8s/overlays/volcano")
    spec = kubelet.only(objects, "Job")["spec"]
    (task,) = spec["tasks"]
    spec["tasks"] = [{**task, "name": name, "replicas": replicas} for name, replicas in zip(names, (2, 3), strict=True)]
    found = identities(objects, "Job", controllers.volcano_pods, tmp_path)
    assert [identity.rank for identity in found] == ([0, 1, 2, 3, 4] if names[0] == "node" else [3, 4, 0, 1, 2])
    assert {identity.size for identity in found} == {5}


def more_workers(pods_per_job: str) -> Objects:
    """The overlay with three Jobs of workers."""
    objects = kubelet.render("k8s/overlays/jobset-head")
    jobs = kubelet.only(objects, "JobSet")["spec"]["replicatedJobs"]
    jobs[1]["replicas"] = 3
    for job in jobs:
        env = kubelet.container(job["template"]["spec"]["template"]["spec"])["env"]
        next(entry for entry in env if entry["name"] == "JOBSET_PODS_PER_JOB")["value"] = pods_per_job
    return objects


def test_a_head_and_several_jobs_of_workers(tmp_path: Path) -> None:
    found = identities(more_workers("1,2,2,2"), "JobSet", controllers.jobset_pods, tmp_path)
    assert [identity.rank for identity in found] == list(range(7))


def test_a_head_workers_and_a_job_whose_pod_is_no_node(tmp_path: Path) -> None:
    """As in NeMo-RL's infra/examples/monolithic-jobset.yaml: its driver's pod submits a job and starts no Ray."""
    objects = more_workers("1,4,0")
    jobs = kubelet.only(objects, "JobSet")["spec"]["replicatedJobs"]
    head, worker = jobs
    worker["replicas"] = 1
    worker["template"]["spec"] |= {"completions": 4, "parallelism": 4}
    jobs.append({**head, "name": "driver"})

    def nodes(jobset: Any, hosts: Any) -> list[Any]:
        return list(controllers.jobset_pods(jobset, hosts))[:5]

    found = identities(objects, "JobSet", nodes, tmp_path)
    assert [(identity.rank, identity.size, identity.role) for identity in found] == [
        (0, 5, Role.HEAD),
        *((rank, 5, Role.WORKER) for rank in (1, 2, 3, 4)),
    ]


def test_jobs_that_are_not_counted_are_refused_from_the_first_pod_on(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="JOBSET_PODS_PER_JOB='1,2' with JOBSET_GLOBAL_REPLICAS=4"):
        identities(more_workers("1,2"), "JobSet", controllers.jobset_pods, tmp_path)
    objects = kubelet.render("k8s/overlays/jobset")
    kubelet.only(objects, "JobSet")["spec"]["replicatedJobs"][0]["replicas"] = 2
    (tmp_path / "equal").mkdir()
    with pytest.raises(IdentityError, match="JOBSET_PODS_PER_JOB=None") as caught:
        identities(objects, "JobSet", controllers.jobset_pods, tmp_path / "equal")
    assert "- name: JOBSET_PODS_PER_JOB" in caught.value.hint
