"""Ray's daemons ignore what Slurm sends to the program, Python workers do not; with real Ray: test_real_hosts.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bootstrap.raynode import dispositions

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
