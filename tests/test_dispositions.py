"""Ray's daemons ignore what Slurm sends to the program, Python workers do not; with real Ray: test_real_hosts.py."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from bootstrap.raynode import dispositions

RAYS_OWN = """
import json, signal, sys
signals = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
ignored = [n for n in signals if signal.getsignal(n) is signal.SIG_IGN]
print(json.dumps([__name__, __file__, sys.argv, sys.path[0], ignored]))
"""


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ray's module of that name, empty."""
    module = types.ModuleType("ray._private.services")
    for name in ("ray", "ray._private"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_the_raylet_is_given_our_worker(services: Any) -> None:
    services.start_raylet = lambda name, worker_path, *, kind: (name, worker_path, kind)
    dispositions.patch_worker_path()
    name, path, kind = services.start_raylet("raylet", "/ray/default_worker.py", kind="k")
    assert (name, kind) == ("raylet", "k")
    assert path == str(Path(dispositions.__file__).with_name("default_worker.py"))
    assert Path(path).is_file()


@pytest.mark.parametrize("name", ["start_raylet", "start_node"])
def test_a_ray_that_names_things_otherwise_starts_its_own(services: Any, name: str) -> None:
    setattr(services, name, lambda program: program)
    dispositions.patch_worker_path()
    assert getattr(services, name)("/ray/default_worker.py") == "/ray/default_worker.py"


@pytest.mark.parametrize("safe_path", [False, True])
def test_our_worker_becomes_rays_with_the_signals_back(tmp_path: Path, safe_path: bool) -> None:
    theirs = tmp_path / "ray" / "_private" / "workers" / "default_worker.py"
    theirs.parent.mkdir(parents=True)
    (tmp_path / "ray" / "__init__.py").write_text("raise RuntimeError('imported before Ray begins')")
    theirs.write_text(RAYS_OWN)
    ours = Path(dispositions.__file__).with_name("default_worker.py")
    ran = subprocess.run(
        [sys.executable, str(ours), "--worker-id=7"],
        env={"PYTHONPATH": str(tmp_path), **({"PYTHONSAFEPATH": "1"} if safe_path else {})},
        preexec_fn=dispositions.ignore,
        capture_output=True,
        check=True,
    )
    answer = json.loads(ran.stdout)
    assert answer == ["__main__", str(theirs), [str(theirs), "--worker-id=7"], str(theirs.parent), []]
