"""examples/frameworks: what users copy starts one agent on each node, which runs the framework's own command.

For frameworks that cannot be installed here, programs that ask the same of Ray stand in (tests/stand_ins), on a real cluster.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from cluster import nothing_left, start

REPOSITORY = Path(__file__).parent.parent
FOLDER = REPOSITORY / "examples" / "frameworks"
STAND_INS = REPOSITORY / "tests" / "stand_ins"
STOOD_IN = re.findall(r'^@stand_in\("(.+)"\)$', (STAND_INS / "frameworks.py").read_text(), re.MULTILINE)


@pytest.mark.hosts
@pytest.mark.ray
@pytest.mark.timeout(240)
def test_what_their_scripts_ask_of_ray(make_hosts):
    hosts = make_hosts(2)
    options = ["--shared-dir=/shared", "--num-gpus=2", "--num-cpus=2", "--dashboard-port=8265", "--dashboard-wait=60s"]
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    agents = start(hosts, *options, workload=["python", str(STAND_INS / "frameworks.py")], env=path)
    assert agents.wait(seconds=200) == [0, 0], agents.out(0)
    said = [line for line in agents.out(0).splitlines() if line.endswith(": ok")]
    assert said == [f"{name}: ok" for name in STOOD_IN]
    nothing_left(hosts)
