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


def found_by_a_worker(folder: Path, brought: dict[str, str], noted: str) -> dict[str, str]:
    """The environment of Ray's own program where a runtime environment brings these variables along."""
    theirs = folder / "ray" / "_private" / "workers" / "default_worker.py"
    theirs.parent.mkdir(parents=True)
    (folder / "ray" / "__init__.py").touch()
    theirs.write_text("import json, os; print(json.dumps(dict(os.environ)))")
    ours = Path(dispositions.__file__).with_name("default_worker.py")
    env = {"PYTHONPATH": str(folder), **brought, own_values.VARIABLE: noted}
    ran = subprocess.run([sys.executable, str(ours)], env=env, capture_output=True, check=True)
    return dict(json.loads(ran.stdout))


def test_a_worker_keeps_its_own_nodes_token_and_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/tmp/here/token")
    monkeypatch.setenv("VLLM_HOST_IP", "10.0.0.2")
    monkeypatch.delenv("RAY_TLS_CA_CERT", raising=False)
    own_values.note()
    noted = os.environ.pop(own_values.VARIABLE)
    brought = {"RAY_AUTH_TOKEN_PATH": "/tmp/head/token", "VLLM_HOST_IP": "10.0.0.1", "RAY_TLS_CA_CERT": "/mine"}
    found = found_by_a_worker(tmp_path, brought, noted)
    expected = {**brought, "RAY_AUTH_TOKEN_PATH": "/tmp/here/token", "VLLM_HOST_IP": "10.0.0.2"}
    assert {name: found[name] for name in brought} == expected
    assert own_values.VARIABLE not in found


@pytest.mark.parametrize(
    ("name", "brought", "own", "found"),
    [
        ("GLOO_SOCKET_IFNAME", "head0", "lo", "lo"),
        ("GLOO_SOCKET_IFNAME", "head0", None, None),
        ("NCCL_SOCKET_IFNAME", "=head0", "=lo", "=lo"),
        ("HCCL_SOCKET_IFNAME", "=head0", None, None),
        # The job's own choice, as far as it can work here.
        ("TP_SOCKET_IFNAME", "lo", "own0", "lo"),
        ("NCCL_SOCKET_IFNAME", "=lo", "=own0", "=lo"),
        ("NCCL_SOCKET_IFNAME", "head", "=own0", "head"),
        ("NCCL_SOCKET_IFNAME", "^docker,lo", "=own0", "^docker,lo"),
        ("GLOO_SOCKET_IFNAME", "head0,head1", "own0", "head0,head1"),
    ],
)
def test_a_worker_that_is_brought_the_interface_of_another_node(
    tmp_path: Path, name: str, brought: str, own: str | None, found: str | None
) -> None:
    noted = json.dumps({} if own is None else {name: own})
    assert found_by_a_worker(tmp_path, {name: brought}, noted).get(name) == found
