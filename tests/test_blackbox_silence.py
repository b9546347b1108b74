"""The real command on nodes that fall silent: stopped processes, lost workers, a head that is cut off."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]

UNTIL_GO = ["sh", "-c", "echo up; while ! test -e ../go; do sleep 0.02; done; exit 3"]


def test_a_stop_of_all_processes_is_no_loss(site: Site) -> None:
    """As by `scontrol suspend`, a freezer, or a virtual machine that is paused: for longer than the time-out."""
    nodes = site.several(3, "--heartbeat-timeout=2", "--on-node-loss=fail", workload=UNTIL_GO)
    nodes[0].says("up", where="out")
    for node in nodes:
        node.stop()
    time.sleep(5)
    for node in nodes:
        node.go_on()
    time.sleep(1)  # some beats, in which each could blame the others
    (site.folder / "go").touch()
    assert [node.wait() for node in nodes] == [3, 3, 3], nodes[0].err
