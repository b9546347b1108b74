"""`ray-bootstrap kuberay`: what it adds to KubeRay's command, when it refuses, and a real cluster started that way."""

from __future__ import annotations

import ast
import dataclasses
import signal
import sys
from collections.abc import Mapping
from typing import Any

import kubelet
import pytest
from cluster import AGENT, COUNT, Agents
from hosts import wait_for
from kubelet import Image, Pod

from bootstrap.cli import main
from bootstrap.commands import kuberay
from bootstrap.model import Gpu, Resources

A100 = tuple(Gpu(i, f"GPU-{i}", "NVIDIA A100-SXM4-80GB", 80 << 30) for i in range(2))
TWO = Resources(cpus=12, memory=64 << 30, gpus=A100, num_gpus=2, custom={"NVIDIA-A100-SXM4-80GB": 2})
NONE = Resources(cpus=12, memory=64 << 30)
SIZES = ["--object-store-memory=7", "--memory=9"]
PRODUCT = '--resources={"NVIDIA-A100-SXM4-80GB": 2}'


def ray_start(kind: str, params: Mapping[str, str]) -> str:
    """KubeRay's line: ``--key=value`` sorted by key with blanks around, ``--key`` for "true", nothing for "false".

    https://github.com/ray-project/kuberay/blob/master/ray-operator/controllers/ray/common/pod.go
    """
    line = "ray start --head " if kind == "head" else "ray start "
    for key, value in sorted(params.items()):
        if value.lower() not in ("true", "false"):
            line += f" --{key}={value} "
        elif value.lower() == "true":
            line += f" --{key} "
    return line


@pytest.mark.parametrize(
    ("params", "measured", "added"),
    [
        ({"num-cpus": "1", "memory": "8", "object-store-memory": "8"}, NONE, []),
        ({"num-cpus": "1", "memory": "8"}, NONE, SIZES[:1]),
        ({"memory": "8", "object-store-memory": "8"}, NONE, ["--num-cpus=12"]),
        ({"num-cpus": "1"}, TWO, [*SIZES, "--num-gpus=2", PRODUCT]),
        ({"num-cpus": "1", "num-gpus": "1"}, TWO, [*SIZES, PRODUCT]),
        ({"num-cpus": "0", "num-gpus": "0", "resources": r'"{\"full-worker\": 1}"'}, TWO, SIZES),
    ],
)
def test_only_what_the_command_lacks_is_added(params: Mapping[str, str], measured: Resources, added: list[str]) -> None:
    line = ray_start("worker", {"block": "true", "address": "head:6379", **params})
    assert kuberay.missing(kuberay._options(line), measured, SIZES) == added


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (None, "is not set: not a KubeRay pod"),
        ("ray stop", "is not a `ray start` command"),
        ("ray start --resources='{", "No closing quotation"),
    ],
)
def test_anything_else_than_kuberays_command_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str | None, said: str
) -> None:
    monkeypatch.delenv(kuberay.COMMAND, raising=False)
    if line is not None:
        monkeypatch.setenv(kuberay.COMMAND, line)
    assert main(["kuberay"]) == 65
    told = capsys.readouterr().err
    assert said in told
    assert "fix: " in told


def pods(cluster: Any, hosts: Any) -> list[Pod]:
    """The head's pod and one of the first worker group's, with what KubeRay adds to their environment."""
    name, head_ip = cluster["metadata"]["name"], hosts[0].ip
    service = f"{name}-head-svc.{kubelet.NAMESPACE}.svc.cluster.local"
    hosts.set_names({service: head_ip})
    made = []
    for kind, group, host in (
        ("head", cluster["spec"]["headGroupSpec"], hosts[0]),
        ("worker", cluster["spec"]["workerGroupSpecs"][0], hosts[1]),
    ):
        limits = kubelet.container(group["template"]["spec"])["resources"]["limits"]
        params = {"num-cpus": limits["cpu"], "memory": str(3 << 30), "metrics-export-port": "8080", "block": "true"}
        params |= {"dashboard-agent-listen-port": "52365", **group["rayStartParams"]}
        env = {"RAY_CLUSTER_NAME": name, "RAY_PORT": "6379", "RAY_USAGE_STATS_ENABLED": "0"}
        if kind == "head":
            params["dashboard-host"] = "0.0.0.0"
            env["RAY_ADDRESS"] = "127.0.0.1:6379"
        else:
            params["address"] = f"{service}:6379"
            env |= {"RAY_ADDRESS": f"{service}:6379", "FQ_RAY_IP": service, "RAY_IP": f"{name}-head-svc"}
        env[kuberay.COMMAND] = ray_start(kind, params)
        pod = f"{name}-{kind}-x7k2p"
        made.append(Pod(pod, pod, {"ray.io/cluster": name}, {}, group["template"]["spec"], host, env))
    return made


@pytest.mark.hosts
@pytest.mark.ray
@pytest.mark.timeout(280)
@pytest.mark.requires("kubectl")
def test_the_pods_of_a_raycluster(make_hosts) -> None:
    objects = kubelet.render("k8s/overlays/kuberay/cluster")
    cluster = kubelet.only(objects, "RayCluster")
    group = cluster["spec"]["workerGroupSpecs"][0]
    group["rayStartParams"]["resources"] = r'"{\"full-worker\": 1, \"a product\": 2}"'  # as a user must quote it
    hosts = make_hosts(2, dns={})
    made = pods(cluster, hosts)
    image = Image()
    image = dataclasses.replace(image, env={**image.env, "HOME": "/tmp"})
    agents: Agents = kubelet.run(objects, made, hosts, image)
    agents.says(0, "running KubeRay's command")
    agents.says(1, "running KubeRay's command")
    count = "import ray; ray.init('127.0.0.1:6379', log_to_driver=False); print(ray.cluster_resources())"

    def resources() -> dict[str, float]:
        told = kubelet.execute(agents, 0, sys.executable, "-c", count)
        return {**ast.literal_eval(told)} if "a product" in told else {}

    told = wait_for(resources, timeout=90)
    assert (told["CPU"], told["a product"], told["full-worker"]) == (1, 2, 1)
    assert told["memory"] == 2 * (3 << 30)
    driver = kubelet.execute(agents, 0, *AGENT, "--nodes=2", "--", sys.executable, "-c", COUNT, "0")  # as a RayJob's
    assert driver == f"nodes 2 address {hosts[0].ip}:6379\n"
    for rank in (0, 1):  # in /dev/shm of 1 GiB, where Ray's own choice, by the machine's memory, would not fit
        assert "instead of /dev/shm" not in agents.err(rank)
    assert 0 < told["object_store_memory"] < 2 << 30
    for rank in (1, 0):
        agents.signal(rank, signal.SIGTERM)
    agents.wait()


@pytest.mark.hosts
@pytest.mark.requires("kubectl")
def test_a_pod_that_is_unfit_says_so_and_starts_nothing(make_hosts) -> None:
    objects = kubelet.render("k8s/overlays/kuberay/gpu-groups")
    hosts = make_hosts(2, dns={})
    made = pods(kubelet.only(objects, "RayCluster"), hosts)[1:]
    agents = kubelet.run(objects, made, hosts, Image())
    assert agents.wait() == [78]
    assert "but 1 GPUs are expected" in agents.err(0)
