"""With real Ray: a neighbour puts code of his where the victim's next task takes its own from."""

from __future__ import annotations

import sys
from pathlib import Path

import neighbour
import pytest
from cluster import AGENT, SECONDS
from hosts import Host, wait_for

pytestmark = [pytest.mark.hosts, pytest.mark.ray, pytest.mark.timeout(240)]

VICTIM = 23456
"""A uid without a name, as containers run under; neither HOME nor USER is set."""

GREET = """
import os, pathlib, time, ray

pathlib.Path("/tmp/code").mkdir()
pathlib.Path("/tmp/code/greeting.py").write_text("TEXT = 'mine'")
ray.init(runtime_env={"working_dir": "/tmp/code"}, log_to_driver=False, logging_level="error")

@ray.remote(max_calls=1)
def greet():
    import greeting
    return os.geteuid(), greeting.TEXT

print(*ray.get(greet.remote()), flush=True)
while not os.path.exists("/tmp/attacked"):
    time.sleep(0.05)
print(*ray.get(greet.remote()), flush=True)
"""

SWAP = """
for package in $(find /tmp -type d -name '_ray_pkg_*' 2>/dev/null); do
    files=${package%/*}
    mv "$files" "$files.away" && cp -r "$files.away" "$files"
    rm -rf "$package/__pycache__"
    echo "TEXT = 'his'" >"$package/greeting.py"
done
touch /tmp/attacked
"""

OPEN_TO_ALL = """
closed=$1
shift
number=0
for path; do
    number=$((number + 1))
    mkdir -p "/run/kept/$number"
    mount --rbind "$path" "/run/kept/$number"
done
mount -t tmpfs -o mode=755 open "$closed"
number=0
for path; do
    number=$((number + 1))
    mkdir -p "$path"
    mount --rbind "/run/kept/$number" "$path"
done
"""


def open_to_all(host: Host) -> None:
    """Lets every user of the host run this Python, although it may lie in root's home (mode 0700)."""
    repository = Path(__file__).parents[2]
    needed = {Path(path).resolve() for path in (sys.prefix, sys.base_prefix, repository, *sys.path) if path}
    below: dict[Path, set[Path]] = {}
    for path in filter(Path.is_dir, needed):
        if closed := [folder for folder in path.parents if not folder.stat().st_mode & 0o001]:
            below.setdefault(closed[-1], set()).add(path)
    for closed, paths in below.items():
        outermost = sorted(path for path in paths if paths.isdisjoint(path.parents))
        host.run(["sh", "-euc", OPEN_TO_ALL, "open", str(closed), *map(str, outermost)])


def test_the_next_task_runs_the_victims_code(make_hosts) -> None:
    (host,) = make_hosts(1)
    open_to_all(host)
    him = ["setpriv", f"--reuid={VICTIM}", f"--regid={VICTIM}", "--clear-groups", "env", "-u", "HOME", "-u", "USER"]
    options = ["--temp-dir=/tmp/ray", "--num-cpus=1", "--object-store-memory=100Mi"]
    agent = host.popen([*him, *AGENT, *options, "--", sys.executable, "-c", GREET])
    wait_for(lambda: host.out(agent) or agent.poll() is not None, SECONDS)
    assert host.out(agent) == f"{VICTIM} mine\n", host.err(agent)
    his = [f"--reuid={neighbour.UID}", f"--regid={neighbour.UID}", "--clear-groups"]
    host.run(["setpriv", *his, "sh", "-c", SWAP])
    assert agent.wait(SECONDS) == 0
    assert host.out(agent) == f"{VICTIM} mine\n" * 2
    assert "Ray's folder is /tmp/ray/" in host.err(agent)
    assert host.leftovers() == []
    left = host.run(["find", "/tmp/ray", "(", "-type", "f", "-o", "-type", "s", ")", "-not", "-path", "*/logs/*"])
    assert left.stdout == ""
