"""What it takes to get to the first child: modules, and none that has no business there.

benchmarks/start.py measures the CPU time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux")

# Python runs it before anything of ours. The audit event comes right before fork(2) or vfork(2).
HOOK = """
import json, os, resource, sys, time

def spent():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

supervisor = []
os.register_at_fork(before=lambda: supervisor.append(spent()))

def first_child(event, arguments):
    if event == "subprocess.Popen":
        seconds = spent() + supervisor[0]
        with open(os.environ["STARTUP"], "w") as file:
            found = {"seconds": seconds, "at": time.time(), "modules": sorted(sys.modules)}
            json.dump({**found, "argv": list(map(str, arguments[1]))}, file)
        os._exit(9)

sys.addaudithook(first_child)
"""
HEAVY = {
    "aiohttp",
    "cryptography",
    "grpc",
    "hypothesis",
    "numpy",
    "pandas",
    "psutil",
    "pynvml",
    "pytest",
    "ray",
    "requests",
    "tenacity",
    "torch",
    "yaml",
}
"""Each would take a good part of the time; some are needed later, inside the function that needs them."""
LATER = {
    "bootstrap.commands.reports",  # not for a run
    "importlib.metadata",  # the roll call's hello wants it, 10 ms
    "urllib.request",
}
MODULES = 315
"""At most, Python's own included, which differ a little between its versions; 293 with 3.11."""


def started(site: Site, *args: str) -> dict[str, Any]:
    folder = site.folder / "hook"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(HOOK)
    result = site.folder / "startup.json"
    node = site.run(*args, env={"PYTHONPATH": str(folder), "STARTUP": str(result)})
    assert node.wait(clean=False) == 9, node.err
    return dict(json.loads(result.read_text()))


@pytest.mark.parametrize(
    "args",
    [["--", "true"], ["--rank=1", "--nodes=2", "--head-address=10.0.0.1", "--", "true"]],
    ids=["head", "worker"],
)
def test_the_way_to_the_first_child(site: Site, args: list[str]) -> None:
    found = started(site, *args)
    assert found["argv"][:2] == [sys.executable, "-c"]
    assert "bootstrap.raynode.child_main" in found["argv"][2]
    modules = set(found["modules"])
    assert HEAVY & modules == set()
    assert LATER & modules == set()
    assert len(modules) <= MODULES


@pytest.mark.parametrize(
    "module", ["bootstrap", "bootstrap.process.supervisor", "bootstrap.cli", "bootstrap.run.agent"]
)
def test_importing_does_nothing(module: str) -> None:
    """No output, no thread, no file, no variable, no handler, and none of the heavy modules."""
    code = f"""
import os, signal, sys, threading
def state():
    return dict(os.environ), os.getcwd(), os.listdir('/proc/self/fd'), signal.getsignal(signal.SIGTERM)
before = state()
import {module}
assert before == state()
assert threading.active_count() == 1
print(sorted(set({sorted(HEAVY)!r}) & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "[]\n", "")
