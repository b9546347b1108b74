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
@pytest.mark.requires("nft")
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.requires(*row.needs)) for n, row in BROKEN.items()])
def test_the_head_names_the_culprit(name, make_hosts, tmp_path):
    row = BROKEN[name]
    hosts = make_hosts(row.nodes, hosts_file="right", dns={})
    hosts.set_names({host.name: host.ip for host in hosts})
    lab = Lab(hosts, tmp_path)
    row.break_it(lab)
    seconds = lab.named_after(row.names, LIMIT_S)
    lab.mend()
    if row.finish:
        lab.finish()
    assert lab.statuses() == row.statuses
    assert re.search(row.names, lab.tail(), re.DOTALL)
    assert not re.search(r"Traceback|^ *File \"", lab.tail(), re.MULTILINE)
    assert row.at_timeout or seconds <= BAR_S
    for undo in lab.at_end:
        undo()
    record(name, seconds, lab)


def record(name: str, seconds: float, lab: Lab) -> None:
    """Add what was measured to the file that the variable DIAGNOSIS names, if it is set."""
    if file := os.environ.get("DIAGNOSIS"):
        path = Path(file)
        known = json.loads(path.read_text()) if path.exists() else {}
        lines = lab.err(0).splitlines()[-LAST_LINES:]
        path.write_text(json.dumps({**known, name: {"seconds": seconds, "lines": lines}}, indent=1))


def test_the_document_has_the_rows() -> None:
    """Their seconds and lines were measured; all else of the table is that of tests/broken.py."""
    table, *sections = broken.table_in(broken.DOCUMENT.read_text()).split("\n### ")
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| [")]
    found = [(what, statuses, why.rstrip(" |")) for what, _, statuses, why in rows]
    listed = [(f"| [{row.what}](#{name})", ", ".join(map(str, row.statuses)), row.why) for name, row in BROKEN.items()]
    assert found == listed, "run the tests with DIAGNOSIS=FILE, then `python tests/broken.py FILE`"
    said = {name: text for name, _, text in (section.partition("\n") for section in sections)}
    assert list(said) == list(BROKEN)
    for name, row in BROKEN.items():
        lines = said[name].partition("```text\n")[2].partition("\n```")[0]
        assert re.search(row.names, lines, re.DOTALL), name


def test_each_status_that_differs_has_a_reason() -> None:
    for name, row in BROKEN.items():
        assert len(set(row.statuses)) == 1 or row.why, name
    assert len(BROKEN) >= 30
