"""What was taken off the way to ready is all there soon after it: dashboard, metrics and job submission."""

from __future__ import annotations

import sys

import pytest
from cluster import nothing_left, start

pytestmark = [pytest.mark.hosts, pytest.mark.ray, pytest.mark.timeout(200)]

USE = """
import json, os, time, urllib.request
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

version = json.loads(answer("http://127.0.0.1:8265/api/version"))
print("dashboard", version["ray_version"], f"after {time.monotonic() - begun:.1f} s", flush=True)

from ray.job_submission import JobSubmissionClient
client = JobSubmissionClient("http://127.0.0.1:8265")
job = client.submit_job(entrypoint="echo a job ran")
while not client.get_job_status(job).is_terminal():
    time.sleep(0.2)
while "a job ran" not in client.get_job_logs(job).splitlines():  # the logs may come after the status
    assert time.monotonic() - begun < 60
print("job", client.get_job_status(job).value, flush=True)

import ray
ray.init(log_to_driver=False, logging_level="error")
node = ray.nodes()[0]
while "ray_" not in answer(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"):
    assert time.monotonic() - begun < 60
print("metrics", flush=True)
"""


def test_dashboard_jobs_and_metrics_work_soon_after_ready(make_hosts):
    hosts = make_hosts(1)
    agents = start(hosts, "--num-cpus=2", workload=[sys.executable, "-c", USE])
    assert agents.wait() == [0]
    dashboard, job, metrics = agents.out(0).splitlines()
    assert dashboard.startswith("dashboard 2.")
    assert float(dashboard.split()[-2]) < 30
    assert job == "job SUCCEEDED"
    assert metrics == "metrics"
    nothing_left(hosts)
