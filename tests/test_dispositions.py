"""Ray's daemons ignore what Slurm sends to the program, Python workers do not; with real Ray: test_real_hosts.py.

The same file gives a worker its own node's token; with real Ray: test_framework_scripts.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bootstrap.raynode import dispositions, own_values

RAYS_OWN = """
import json, signal, sys
signals = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
ignored = [n for n in signals if signal.getsignal(n) is signal.SIG_IGN]
print(json.dumps([__name__, __file__, sys.argv, sys.path[0], ignored]))
"""


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


def test_a_worker_keeps_its_own_nodes_token_and_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / "ray" / "_private" / "workers" / "default_worker.py"
    theirs.parent.mkdir(parents=True)
    (tmp_path / "ray" / "__init__.py").touch()
    theirs.write_text("import json, os; print(json.dumps(dict(os.environ)))")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/tmp/here/token")
    monkeypatch.setenv("VLLM_HOST_IP", "10.0.0.2")
    monkeypatch.delenv("RAY_TLS_CA_CERT", raising=False)
    own_values.note()
    noted = os.environ.pop(own_values.VARIABLE)
    brought = {"RAY_AUTH_TOKEN_PATH": "/tmp/head/token", "VLLM_HOST_IP": "10.0.0.1", "RAY_TLS_CA_CERT": "/mine"}
    ours = Path(dispositions.__file__).with_name("default_worker.py")
    argv = [sys.executable, str(ours)]
    env = {"PYTHONPATH": str(tmp_path), **brought, own_values.VARIABLE: noted}
    found = json.loads(subprocess.run(argv, env=env, capture_output=True, check=True).stdout)
    expected = {**brought, "RAY_AUTH_TOKEN_PATH": "/tmp/here/token", "VLLM_HOST_IP": "10.0.0.2"}
    assert {name: found[name] for name in brought} == expected
    assert own_values.VARIABLE not in found
