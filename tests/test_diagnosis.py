"""Broken clusters: the head names the rank and the cause within seconds, and all nodes end as the table says."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import broken
import pytest
from broken import BAR_S, BROKEN
from lab import LAST_LINES, Lab

LIMIT_S = 30.0


@pytest.mark.hosts
@pytest.mark.ray
@pytest.mark.requires("nft", "faketime", "ethtool")
@pytest.mark.parametrize("name", BROKEN)
def test_the_head_names_the_culprit(name, make_hosts, tmp_path):
    row = BROKEN[name]
    hosts = make_hosts(row.nodes, hosts_file="right", dns={})
    hosts.set_names({host.name: host.ip for host in hosts})
    lab = Lab(hosts, tmp_path)
    row.break_it(lab)
    seconds = lab.named_after(row.names, LIMIT_S)
    if row.finish:
        lab.finish()
    assert lab.statuses() == row.statuses
    if not row.finish:
        assert re.search(row.names, lab.tail(), re.DOTALL)
    assert row.at_timeout or seconds <= BAR_S
    for undo in lab.at_end:
        undo()
    record(name, seconds, lab)


def record(name: str, seconds: float, lab: Lab) -> None:
    """Add what was measured to the file that the variable DIAGNOSIS names, if it is set."""
    if file := os.environ.get("DIAGNOSIS"):
        path = Path(file)
        known = json.loads(path.read_text()) if path.exists() else {}
        lines = [broken.clean(line) for line in lab.err(0).splitlines()[-LAST_LINES:]]
        path.write_text(json.dumps({**known, name: {"seconds": seconds, "lines": lines}}, indent=1))
