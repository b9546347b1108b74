"""The pods of the rendered manifests run: clusters form and end, and their Jobs become what docs/kubernetes.md says."""

from __future__ import annotations

import copy
import re
import signal
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import api_server
import controllers
import kube_proxy
import kubelet
import pytest
from cluster import Agents
from faults import check
from job_controller import outcome
from kubelet import Image
from namespaces import wait_for

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.ray,
    pytest.mark.timeout(280),
    pytest.mark.requires("kubectl", "nft"),
]
IMAGE = Image()
IPV6_LOOPBACK = "00000000000000000000000001000000"
OF_RAYS_OWN = {44217, 44227}
"""Metrics of the autoscaler and the dashboard, on the head (ray_constants.py); read by no other pod of ours."""
ON_EVERY_NODE = """
import ray, time
ray.init(log_to_driver=False, logging_level="error")
@ray.remote(scheduling_strategy="SPREAD", num_cpus=1)
def where():
    time.sleep(0.5)
    return ray.get_runtime_context().get_node_id(), bytes(300_000)
refs = [where.remote() for _ in range(6)]
print("nodes", len({ray.get(ref)[0] for ref in refs}), "CPUs", int(ray.cluster_resources()["CPU"]), flush=True)
time.sleep(600)
"""


AGENT = (sys.executable, "-m", "bootstrap")
COUNT_NODES = """
import ray
ray.init(log_to_driver=False, logging_level="error")
print("nodes", len(ray.nodes()))
"""


def changed(objects: Any, args: list[str] | None = None, **env: str) -> Any:
    """The same objects with another workload, or variables."""
    objects = copy.deepcopy(objects)
    its = kubelet.container(kubelet.only(objects, "Job")["spec"]["template"]["spec"])
    if args is not None:
        its["args"] = ["--", *args]
    its["env"] = [e for e in its["env"] if e["name"] not in env]
    its["env"] += [{"name": name, "value": value} for name, value in env.items()]
    return objects


@pytest.fixture
def pods(make_hosts):
    """``pods(objects)`` starts a Job's pods, and returns them, its agents and its hosts."""

    def start(objects: Any, **more: Any) -> tuple[list[kubelet.Pod], Agents, Any]:
        job = kubelet.only(objects, "Job")
        hosts = make_hosts(job["spec"]["completions"], dns={})
        made = controllers.job_pods(job, hosts)
        return made, kubelet.start(objects, made, hosts, IMAGE, **more), hosts

    return start


@pytest.mark.parametrize(("path", "components"), [("k8s/base", ["logs"]), ("k8s/overlays/shared-fs", [])])
def test_the_job_as_it_is_completes(pods, tmp_path, path, components):
    objects = kubelet.with_components(tmp_path, path, *components)
    _, agents, hosts = pods(objects)
    assert agents.wait() == [0, 0]
    assert "PASS: 2 nodes" in agents.out(0)
    assert outcome(kubelet.only(objects, "Job"), [0, 0]) == "Complete"
    for rank in (0, 1):
        message = kubelet.termination_message(agents, rank)
        assert (message["status"], message["source"], message["rank"]) == (0, "workload", rank)
        assert message["run_id"] == kubelet.UID
    left = [path.relative_to(hosts.shared).parts for path in hosts.shared.rglob("*") if path.is_file()]
    assert {parts[1] for parts in left} == ({"rank-0", "rank-1"} if "logs" in components else set())
    assert bool(components) is any(parts[-1] == "raylet.out" for parts in left)


@pytest.mark.parametrize(
    ("args", "env", "status", "becomes"),
    [
        (["sh", "-c", "exit 3"], {}, 3, "FailedIndexes"),
        (["no-such-program"], {}, 127, "PodFailurePolicy"),
        (None, {"RAY_BOOTSTRAP_NODES": "two"}, 64, "PodFailurePolicy"),
        (None, {"RAY_BOOTSTRAP_AUTH": "required"}, 64, "PodFailurePolicy"),
    ],
)
def test_a_failure_is_every_pods_and_the_jobs(pods, args, env, status, becomes):
    objects = changed(kubelet.render("k8s/base"), args, **env)
    _, agents, _ = pods(objects)
    assert agents.wait() == [status, status]
    assert outcome(kubelet.only(objects, "Job"), [status, status]) == becomes


def test_a_script_brings_the_cluster_up_goes_on_and_takes_it_down(pods):
    """bash is PID 1 of the first pod, and the agent takes its place in the other."""
    objects = kubelet.render("k8s/overlays/script")
    _, agents, _ = pods(objects)
    assert agents.wait() == [0, 0]
    assert re.search("PASS: 2 nodes.*and the script goes on", agents.out(0), re.DOTALL)
    assert outcome(kubelet.only(objects, "Job"), [0, 0]) == "Complete"
    assert kubelet.termination_message(agents, 1)["source"] == "down"


def test_sigterm_ends_a_script_in_its_midst_and_the_cluster_with_it(pods):
    objects = kubelet.render("k8s/overlays/script")
    (files,) = (o["data"] for o in objects if "script.sh" in o.get("data", {}))
    program = next(line for line in files["script.sh"].splitlines() if line.startswith("python "))
    files["script.sh"] = files["script.sh"].replace(program, "sh -c 'echo up; exec sleep 600' &")
    _, agents, _ = pods(objects)
    agents.prints(0, "up")
    agents.signal(0, signal.SIGTERM)
    assert agents.wait(seconds=30) == [143, 143]
    assert outcome(kubelet.only(objects, "Job"), [143, 143], disrupted=[0]) == "Retry"


@pytest.mark.parametrize("path", ["k8s/base", "k8s/overlays/ports"])
def test_the_pods_use_the_ports_of_the_network_policy_and_a_stop_is_no_failure(pods, path):
    objects = changed(kubelet.render(path), ["python", "-c", ON_EVERY_NODE])
    job, secret = kubelet.only(objects, "Job"), "a" * 64
    made, agents, _ = pods(objects, secrets={"ray-bootstrap": {"secret": secret}})
    agents.prints(0, "nodes 2 CPUs 2")  # as the pods request, however many the machine has
    for pod in made:
        found = unlisted(pod, made, objects)
        assert found == [], found
    for rank, phase in enumerate(("running", "joined")):
        assert kubelet.execute(agents, rank, *AGENT, "status").startswith(f"{phase} for ")
    token = kubelet.execute(agents, 0, "sh", "-c", "cat /tmp/ray-bootstrap.*/token")
    assert re.fullmatch("[0-9a-f]{64}", token)  # for the dashboard
    if path == "k8s/base":
        assert kubelet.execute(agents, 1, *AGENT, "exec", "--", "python", "-c", COUNT_NODES) == "nodes 2\n"
        assert "/2.0 CPU" in kubelet.execute(agents, 0, *AGENT, "exec", "--", "ray", "status")  # the use lags behind
        assert "warning  ports" in (checked := kubelet.execute(agents, 0, *AGENT, "check"))  # and status 0
        assert f"held by this user's run {kubelet.UID!r}, pid " in checked
    agents.signal(0, signal.SIGTERM)
    grace = job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert agents.wait(seconds=grace) == [143, 143]
    assert outcome(job, [143, 143], disrupted=[0]) == "Retry"
    assert secret not in agents.err(0) + agents.err(1)


def test_a_lost_head_fails_the_try_and_the_next_one_runs(pods):
    objects = changed(kubelet.render("k8s/base"), ["sh", "-c", "echo up; exec sleep 600"])
    job = kubelet.only(objects, "Job")
    made, agents, hosts = pods(objects)
    agents.prints(0, "up")
    agents.signal(0, signal.SIGKILL)
    first, *others = agents.wait()
    check("pid-1", there=first, elsewhere=others)
    assert outcome(job, [137, 76]) == "FailedIndexes"
    job["spec"] |= {"backoffLimitPerIndex": 1, "maxFailedIndexes": 0}  # as components/retry
    assert outcome(job, [137, 76]) == "Retry"
    for rank in (1, 0):  # the worker before its head, under the same run id
        kubelet.replace(objects, made, rank, hosts, IMAGE, agents)
    agents.prints(0, "up")
    agents.signal(0, signal.SIGTERM)
    assert agents.wait() == [143, 143]


def unlisted(pod: kubelet.Pod, pods: list[kubelet.Pod], objects: Any) -> list[str]:
    """Connections between pods that the NetworkPolicy would not let through, and listeners on any other port.

    Not what leaves the cluster: Ray's dashboard asks the metadata service of three clouds where it is (docs/ray.md).
    """
    (rule,) = kubelet.only(objects, "NetworkPolicy")["spec"]["ingress"]
    allowed = {p for port in rule["ports"] for p in range(port["port"], port.get("endPort", port["port"]) + 1)}
    ports = kubelet.only(objects, "ConfigMap")["data"]
    fixed = {int(port) for name, port in ports.items() if name.endswith("_PORT")} | allowed | OF_RAYS_OWN
    others = {kernels_form(peer.host.ip) for peer in pods if peer is not pod}
    found = []
    for row in (row for name in ("tcp", "tcp6") for row in net_table(pod, name)):
        (here, port), (there, other) = (end.split(":") for end in row[1:3])
        if here.endswith("7F") or here == IPV6_LOOPBACK:  # 127.0.0.0/8, as the kernel prints it
            continue
        listens = row[3] == "0A"
        if listens and int(port, 16) not in fixed:
            found.append(f"listens on {int(port, 16)}")
        if there[-8:] in others and not {int(port, 16), int(other, 16)} & allowed:  # gRPC's sockets are ::ffff:10.0.0.1
            found.append(f"connection {int(port, 16)} - {int(other, 16)}")
    return found


def net_table(pod: kubelet.Pod, name: str) -> list[list[str]]:
    return [row.split() for row in Path(f"/proc/{pod.host.init}/net/{name}").read_text().splitlines()[1:]]


def kernels_form(address: str) -> str:
    """An IPv4 address as /proc/net/tcp prints it on a little-endian machine: 127.0.0.1 is 0100007F."""
    return ip_address(address).packed[::-1].hex().upper()


def test_the_pods_of_a_jobset_at_its_second_try(make_hosts):
    objects = kubelet.render("k8s/overlays/jobset")
    hosts = make_hosts(2, dns={})
    made = controllers.jobset_pods(kubelet.only(objects, "JobSet"), hosts, restarts=1)
    service = controllers.headless("ray", {"jobset.sigs.k8s.io/jobset-name": "ray"})
    agents = kubelet.start([*objects, service], made, hosts, IMAGE)
    assert agents.wait() == [0, 0]
    assert "PASS: 2 nodes" in agents.out(0)
    assert "launcher jobset" in agents.err(1)
    assert kubelet.termination_message(agents, 1)["run_id"] == f"jobset-{kubelet.UID}"


def test_the_pods_of_a_leaderworkerset_stay_until_they_are_stopped(make_hosts):
    objects = kubelet.render("k8s/overlays/leaderworkerset")
    hosts = make_hosts(2, dns={})
    made = controllers.leaderworkerset_pods(kubelet.only(objects, "LeaderWorkerSet"), hosts)
    service = controllers.headless("ray", {"leaderworkerset.sigs.k8s.io/name": "ray"})
    agents = kubelet.start([*objects, service], made, hosts, IMAGE)
    agents.says(0, "quorum reached: 2 nodes")
    assert "launcher leaderworkerset" in agents.err(1)
    agents.signal(0, signal.SIGTERM)
    assert agents.wait() == [143, 143]


def test_a_worker_pod_that_was_preempted_or_has_crashed_is_replaced_and_joins(pods):
    objects = changed(kubelet.render("k8s/base"), ["sh", "-c", "echo up; exec sleep 600"])
    made, agents, hosts = pods(objects)
    agents.prints(0, "up")
    wait_for(lambda: all(map(kubelet.is_ready, made)), what="ready pods")
    for signum in (signal.SIGTERM, signal.SIGKILL):
        agents.signal(1, signum)
        assert agents.wait([1])[0] in (128 + signum, -signum)  # a kubelet shows both as 128 + signum
        assert list(map(kubelet.is_ready, made)) == [True, False]
        kubelet.replace(objects, made, 1, hosts, IMAGE, agents)
        agents.says(1, "joined")
        wait_for(lambda: kubelet.is_ready(made[1]), what="a ready pod")
    agents.signal(0, signal.SIGTERM)
    assert agents.wait() == [143, 143]


def test_the_head_names_the_event_that_keeps_a_pod_from_starting(make_hosts, tmp_path):
    """Pod 1 has no room; the API server's Service leads to a server on its machine."""
    objects = kubelet.with_components(tmp_path, "k8s/base", "events")
    hosts = make_hosts(2, dns={})
    head, _ = controllers.job_pods(kubelet.only(objects, "Job"), hosts)
    api = "10.96.0.1"
    events = [api_server.event("Pod", "ray-1-x7k2p", "FailedScheduling", api_server.NO_ROOM)]
    token = api_server.write(hosts.base, api, events)
    program = [sys.executable, str(Path(api_server.__file__)), hosts[1].ip, "6443", str(hosts.base)]
    server = hosts[1].popen(program, env={"PYTHONPATH": str(kubelet.REPOSITORY)})
    kube_proxy.program([hosts[0]], api, 443, (hosts[1].ip, 6443))
    agents = kubelet.start(objects, [head], hosts, IMAGE)
    agents.says(0, f"rank 1 not seen: FailedScheduling (Pod ray-1-x7k2p): {api_server.NO_ROOM}")
    seen = [
        Path(f"/proc/{process.pid}/{file}").read_bytes()
        for process in head.host.pids()
        for file in ("cmdline", "environ")
    ]
    assert token.encode() not in b"".join(seen)
    agents.signal(0, signal.SIGTERM)
    assert agents.wait() == [143]
    assert token not in agents.err(0) + agents.out(0)
    server.kill()
