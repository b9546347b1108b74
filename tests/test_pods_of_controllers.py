"""The pods of a JobSet with a head of its own and of a Volcano Job find each other, with a fake Ray; on hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import controllers
import kubelet
import nvml
import pytest
from agents import FAKE_RAY
from cluster import Agents
from hosts import Hosts

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(120), pytest.mark.requires("kubectl", "nft")]
_FILES = {
    "PYTHONPATH": f"{FAKE_RAY}:{kubelet.REPOSITORY}",
    "FAKE_RAY_CLUSTER": "/fake",
    "FAKE_RAY_RECORD": "/tmp/record",
}
IMAGE = kubelet.Image(env={**kubelet.Image().env, **_FILES})


def run(objects: Any, pods: Sequence[kubelet.Pod], hosts: Hosts) -> Agents:
    """To the end, with a volume for the fake Ray's cluster and a workload that needs no Ray."""
    for pod in pods:
        its, spec = kubelet.container(pod.spec), cast("dict[str, Any]", pod.spec)
        its["args"] = ["--", "true"]
        its["volumeMounts"] = [*its["volumeMounts"], {"name": "fake", "mountPath": "/fake"}]
        spec["volumes"] = [*spec["volumes"], {"name": "fake", "persistentVolumeClaim": {}}]
    agents = kubelet.start(objects, pods, hosts, IMAGE)
    assert agents.wait() == [0] * len(pods)
    return agents


def test_the_pods_of_a_volcano_job(make_hosts):
    objects = kubelet.render("k8s/overlays/volcano")
    hosts = make_hosts(2, dns={})
    agents = run(objects, controllers.volcano_pods(kubelet.only(objects, "Job"), hosts, version=1), hosts)
    for rank in (0, 1):
        assert "launcher volcano" in agents.err(rank)
        message = kubelet.termination_message(agents, rank)
        assert (message["rank"], message["run_id"]) == (rank, f"ray-{kubelet.UID}")


@pytest.mark.requires("cc")
def test_a_head_without_gpus_and_workers_with_eight(make_hosts):
    """Each worker checks that it has them, and the head that Ray offers them there; nothing is expected of itself."""
    objects = kubelet.render("k8s/overlays/jobset-head")
    hosts = make_hosts(3, dns={})
    made = controllers.jobset_pods(kubelet.only(objects, "JobSet"), hosts)
    (hosts.shared / "nvml.txt").write_text(nvml.gpus(8))
    (hosts.shared / "libnvidia-ml.so.1").write_bytes((nvml.library_folder() / "libnvidia-ml.so.1").read_bytes())
    driver = {"LD_LIBRARY_PATH": "/fake", "NVML_STUB": "/fake/nvml.txt"}
    kubelet.container(made[1].spec)["env"] += [{"name": name, "value": value} for name, value in driver.items()]
    agents = run(objects, made, hosts)
    assert [kubelet.termination_message(agents, rank)["rank"] for rank in (0, 1, 2)] == [0, 1, 2]
    assert ["8 GPUs" in agents.err(rank) for rank in (1, 2)] == [True, True]
    assert "0 CPUs\n" in agents.err(0)
    assert "quorum reached: 3 nodes" in agents.err(0)
