"""The real command on one node."""

from __future__ import annotations

import sys

from agents import Site

pytest_plugins = ["agents"]

PYTHON = sys.executable


def test_the_workload_runs(site: Site) -> None:
    node = site.run("--", "true")
    assert node.wait() == 0, node.err
    print(node.err, node.out, node.verdict, node.argv)


def test_two(site: Site) -> None:
    nodes = site.several(2)
    for n in nodes:
        s = n.wait()
        print(s, n.err)
