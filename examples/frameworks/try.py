"""Run the job of a framework on two nodes that are made on this machine, of Linux namespaces; needs root.

    make framework NAME=modin

Each node runs `NAME/on-cpus.sh`, with what `make` has installed of `NAME/requirements.txt` in .frameworks/NAME.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))
from hosts import make_hosts  # noqa: E402

NODES = 2


def main(name: str) -> int:
    script = Path(__file__).parent / name / "on-cpus.sh"
    installed = {"PYTHONPATH": str(REPOSITORY / ".frameworks" / name)}
    options = [f"--nodes={NODES}", f"--run-id={name}", "--shared-dir=/shared"]
    options += ["--num-cpus=1", "--object-store-memory=100Mi"]
    visible = [str(REPOSITORY), sys.prefix, sys.base_prefix]
    with (
        tempfile.TemporaryDirectory() as folder,
        make_hosts(NODES, base=Path(folder) / "hosts", visible=visible, shm_size="2g") as hosts,
    ):
        nodes = [
            host.popen(["sh", str(script), f"--rank={rank}", *options], env=installed, stdout=None, stderr=None)
            for rank, host in enumerate(hosts)
        ]
        statuses = [node.wait() for node in nodes]
    print("exit statuses:", *statuses)
    return max(map(abs, statuses))


if __name__ == "__main__":
    if len(sys.argv) != 2 or os.geteuid() != 0:
        sys.exit("usage, as root: make framework NAME=...")
    sys.exit(main(sys.argv[1]))
