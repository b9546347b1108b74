"""What was taken off the way to ready is all there soon after it: dashboard, metrics and job submission."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from cluster import Agents, nothing_left, start

pytestmark = [pytest.mark.hosts, pytest.mark.ray, pytest.mark.timeout(200)]

USE = """
import os, time, urllib.error, urllib.request
import ray
begun = time.monotonic()
token = open(os.environ["RAY_AUTH_TOKEN_PATH"]).read().strip()

def answer(url):
    while True:
        try:
            request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
            with urllib.request.urlopen(request, timeout=5) as reply:
                return reply.read().decode()
        except OSError as error:
            if time.monotonic() - begun > 60:
                raise
            time.sleep(0.1)

url = "http://" + ray.init(log_to_driver=False, logging_level="error").dashboard_url
answer(url + "/api/version")
print("dashboard", url, f"after {time.monotonic() - begun:.1f} s", flush=True)

def ask(path, method="GET", **headers):
    request = urllib.request.Request(url + path, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, reply.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers

# As a browser: the page itself, what asks for the token, and then its cookie.
page, _ = ask("/")
closed, _ = ask("/api/version")
wrong, _ = ask("/api/authenticate", "POST", Authorization="Bearer wrong")
login, headers = ask("/api/authenticate", "POST", Authorization=f"Bearer {token}")
opened, _ = ask("/api/version", Cookie=headers["Set-Cookie"].partition(";")[0])
print("browser", page, closed, wrong, login, opened, flush=True)

from ray.job_submission import JobSubmissionClient
client = JobSubmissionClient(url)
job = client.submit_job(entrypoint="echo a job of $RAY_ADDRESS")
while not client.get_job_status(job).is_terminal():
    time.sleep(0.2)
mine = "a job of " + os.environ["RAY_ADDRESS"]
while mine not in client.get_job_logs(job).splitlines():  # the logs may come after the status
    assert time.monotonic() - begun < 60
print("job", client.get_job_status(job).value, flush=True)

node = ray.nodes()[0]
while "ray_" not in answer(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"):
    assert time.monotonic() - begun < 60
print("metrics", flush=True)
"""

HELD = """
import os, sys, time
if any(word.endswith("dashboard/agent.py") for word in sys.orig_argv):
    while not os.path.exists("/shared/go-on"):
        time.sleep(0.1)
"""
"""A sitecustomize.py: Ray's dashboard agent is not there before the test says so; as on a cold disk, but for longer."""
WITHOUT_AGENTS = """
import time, urllib.request
import ray

@ray.remote(scheduling_strategy="SPREAD")
def where():
    return ray.get_runtime_context().get_node_id()

ray.init(log_to_driver=False, logging_level="error")
nodes = ray.nodes()
while len({*ray.get([where.remote() for _ in nodes])}) < len(nodes):
    pass
print("tasks ran on both", flush=True)
open("/shared/go-on", "w").close()
for node in nodes:
    while True:
        try:
            urllib.request.urlopen(f"http://{node['NodeManagerAddress']}:52365/api/healthz", timeout=5).close()
            break
        except OSError:
            time.sleep(0.1)
print("agents answer", flush=True)
"""


def used(agents: Agents) -> str:
    """Its dashboard's URL, from what a run of USE wrote."""
    dashboard, browser, job, metrics = agents.out(0).splitlines()
    _, url, _, seconds, _ = dashboard.split()
    assert float(seconds) < 30
    assert browser == "browser 200 401 403 200 200"
    assert job == "job SUCCEEDED"
    assert metrics == "metrics"
    return url


def test_dashboard_jobs_and_metrics_work_soon_after_ready(make_hosts):
    hosts = make_hosts(1)
    agents = start(hosts, "--num-cpus=2", workload=[sys.executable, "-c", USE])
    assert agents.wait() == [0]
    assert used(agents) == "http://127.0.0.1:8265"
    nothing_left(hosts)


def test_a_workload_may_begin_with_the_dashboard(make_hosts):
    hosts = make_hosts(1)
    ray = Path(sys.executable).with_name("ray")
    submit = f"{ray} job submit --address=http://127.0.0.1:8265 --"
    script = f"{submit} sh -c 'echo a job of $MASTER_ADDR $VLLM_HOST_IP' && {submit} sh -c 'exit 5'"
    proxies = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    agents = start(hosts, "--num-cpus=2", workload=["sh", "-c", script], env=proxies)
    assert agents.wait() == [1]  # what `ray job submit` makes of a job that fails
    assert re.search(r"^a job of (10\.\S+) \1$", agents.out(0), re.MULTILINE)
    assert "exit code 5" in agents.out(0) + agents.err(0)
    nothing_left(hosts)


def test_two_runs_that_start_in_one_instant_have_a_dashboard_each(make_hosts):
    hosts = make_hosts(1)
    one, two = (start(hosts, "--num-cpus=2", workload=[sys.executable, "-c", USE], run=run) for run in ("one", "two"))
    assert one.wait() == [0]
    assert two.wait() == [0]
    assert used(one) != used(two)
    nothing_left(hosts)


def test_a_node_does_not_wait_for_rays_agents(make_hosts):
    hosts = make_hosts(2)
    for host in hosts:
        host.run(["mkdir", "/tmp/held"])
        host.run([sys.executable, "-c", f"open('/tmp/held/sitecustomize.py', 'w').write({HELD!r})"])
    workload = [sys.executable, "-c", WITHOUT_AGENTS]
    agents = start(hosts, "--shared-dir=/shared", workload=workload, env={"PYTHONPATH": "/tmp/held"})
    assert agents.wait() == [0, 0]
    assert agents.out(0).splitlines() == ["tasks ran on both", "agents answer"]
    hosts[0].run(["rm", "/shared/go-on"])
    for host in hosts:
        host.run(["rm", "-r", "/tmp/held"])
    nothing_left(hosts)
