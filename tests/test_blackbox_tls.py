"""--tls with the real command and a fake Ray: which variables Ray and the workload get, and what lies on the disk."""

from __future__ import annotations

import json
import os
import signal
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from agents import Node, Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux")

SECRET = {"RAY_BOOTSTRAP_SECRET": "correct horse battery staple"}
FILES = {"RAY_TLS_SERVER_CERT": "tls.crt", "RAY_TLS_SERVER_KEY": "tls.key", "RAY_TLS_CA_CERT": "ca.crt"}
UNTIL_TOLD = ["sh", "-c", "echo $RAY_USE_TLS $RAY_TLS_SERVER_CERT; while ! test -e ../go; do sleep 0.02; done"]


def statuses(*nodes: Node) -> list[int]:
    return [node.wait() for node in nodes]


def tls_of(node: Node) -> dict[str, Any]:
    """What ``ray start`` got."""
    (start,) = node.starts
    return {name: value for name, value in start["env"].items() if name == "RAY_USE_TLS" or "_TLS_" in name}


def decoded(certificate: Path) -> dict[str, Any]:
    return dict(ssl._ssl._test_decode_cert(str(certificate)))  # type: ignore[attr-defined]


def meet(site: Site, how: str, *options: str) -> list[Node]:
    """Two nodes and a third that comes when they run, by ``how`` they share a secret."""
    if how == "record":
        shared = [f"--shared-dir={site.shared}", "--nodes=3", "--min-nodes=2", "--last-call=0", *options]
        started = [site.run(*shared, f"--rank={rank}", "--", *UNTIL_TOLD) for rank in range(2)]
        started[0].says("tls.crt", where="out")
        late = site.run(*shared, "--rank=2", "--", *UNTIL_TOLD)
    else:
        few = ["--min-nodes=2", "--last-call=0", *options]
        started = [site.rank(rank, 3, *few, workload=UNTIL_TOLD, env=SECRET) for rank in range(2)]
        started[0].says("tls.crt", where="out")
        late = site.rank(2, 3, *few, workload=UNTIL_TOLD, env=SECRET)
    late.says("joined")
    return [*started, late]


@pytest.mark.parametrize(("how", "option"), [("record", "--tls=required"), ("given", "--tls=auto")])
def test_every_node_has_its_certificate_also_one_that_comes_late(site: Site, how: str, option: str) -> None:
    nodes = meet(site, how, option)
    paths: list[Path] = []
    authorities = set()
    for number, node in enumerate(nodes, start=1):
        env = tls_of(node)
        assert env.pop("RAY_USE_TLS") == "1"
        assert {name: Path(path).name for name, path in env.items()} == FILES
        files = [Path(path) for path in env.values()]
        assert [path.stat().st_mode & 0o777 for path in files] == [0o600] * 3
        names = decoded(Path(env["RAY_TLS_SERVER_CERT"]))["subjectAltName"]
        assert ("IP Address", f"127.0.0.{number}") in names
        authorities.add(Path(env["RAY_TLS_CA_CERT"]).read_text())
        paths += files
    assert len(authorities) == 1
    assert len({path.parent for path in paths}) == 3
    assert nodes[0].out == f"1 {tls_of(nodes[0])['RAY_TLS_SERVER_CERT']}\n"
    assert ", with TLS, after" in nodes[0].err
    (site.folder / "go").touch()
    assert statuses(*nodes) == [0, 0, 0]
    assert [path for path in paths if path.exists()] == []
    assert not any("PRIVATE KEY" in node.err + node.out for node in nodes)


@pytest.mark.parametrize(
    ("args", "env", "used"),
    [
        ([], SECRET, False),
        (["--tls=off"], SECRET, False),
        (["--tls=auto"], {}, True),  # the only node makes a secret
        (["--tls=auto", "--auth=off"], {}, False),
        (["--tls=required"], {}, True),
        ([], {"RAY_BOOTSTRAP_TLS": "auto"}, True),
    ],
)
def test_a_single_node(site: Site, args: list[str], env: dict[str, str], used: bool) -> None:
    script = (
        "import json, os; print(json.dumps([name for name in os.environ if 'TLS' in name and 'BOOTSTRAP' not in name]))"
    )
    node = site.run(*args, "--", sys.executable, "-c", script, env=env)
    assert node.wait() == 0, node.err
    names = ["RAY_USE_TLS", *FILES] if used else []
    assert sorted(tls_of(node)) == sorted(names)
    assert sorted(json.loads(node.out)) == sorted(names)
    assert (", with TLS," in node.err) is used


def test_the_users_own_certificates_stay_without_the_option(site: Site) -> None:
    own = {"RAY_USE_TLS": "1", "RAY_TLS_SERVER_CERT": "/c", "RAY_TLS_SERVER_KEY": "/k", "RAY_TLS_CA_CERT": "/ca"}
    node = site.run("--", "true", env=own)
    assert node.wait() == 0, node.err
    assert tls_of(node) == own


def test_required_without_a_secret(site: Site) -> None:
    head = site.rank(0, 2, "--tls=required")
    assert statuses(head) == [64]
    assert "--tls=required, but the nodes share no secret" in head.err
    assert "openssl rand -hex 32" in head.verdict["hint"]
    assert head.starts == []


def test_auto_without_a_secret_is_off(site: Site) -> None:
    nodes = site.several(2, "--tls=auto")
    assert statuses(*nodes) == [0, 0]
    assert [tls_of(node) for node in nodes] == [{}, {}]


@pytest.mark.parametrize(("head_s", "worker_s"), [("required", "off"), ("off", "auto")])
def test_nodes_that_disagree(site: Site, head_s: str, worker_s: str) -> None:
    head = site.rank(0, 2, f"--tls={head_s}", env=SECRET)
    worker = site.rank(1, 2, f"--tls={worker_s}", env=SECRET)
    assert statuses(worker, head) == [77, 77]
    theirs, ours = ("without" if setting == "off" else "with" for setting in (worker_s, head_s))
    for node in (worker, head):
        assert f"Ray {theirs} TLS on {os.uname().nodename}, Ray {ours} TLS on {os.uname().nodename}" in node.err
        assert "fix: give all nodes the same --tls and the same --auth" in node.err
    assert worker.starts == []


def test_an_unfit_node_needs_no_certificate_to_say_so(site: Site) -> None:
    head = site.rank(0, 2, "--tls=required", env=SECRET)
    worker = site.rank(1, 2, "--tls=required", "--expect-gpus=9", env=SECRET)
    assert statuses(worker, head) == [78, 78]
    assert "expect" in head.err
    assert worker.starts == []


def test_a_head_that_is_unfit_tells_a_worker_that_waits_for_its_certificate(site: Site) -> None:
    head = site.rank(0, 2, "--tls=required", "--expect-gpus=9", env=SECRET)
    worker = site.rank(1, 2, "--tls=required", env=SECRET)
    assert statuses(worker, head) == [78, 78]
    assert worker.starts == []


def test_an_installation_without_the_library(site: Site) -> None:
    """cryptography is a dependency; a copy of the package alone may lack it all the same."""
    (site.folder / "sitecustomize.py").write_text("import sys; sys.modules['cryptography'] = None")
    node = site.run("--tls=required", "--", "true", env={"PYTHONPATH": f"{site.folder}:{site._python_path}"})
    assert node.wait() == 78
    assert "fix: pip install 'cryptography>=42', or --tls=off on all nodes" in node.err
    assert node.starts == []


def test_killed_agents_leave_no_key(site: Site) -> None:
    node = site.run("--tls=required", "--", *UNTIL_TOLD)
    node.says("tls.crt", where="out")
    key = Path(tls_of(node)["RAY_TLS_SERVER_KEY"])
    assert key.exists()
    os.kill(node.agent, signal.SIGKILL)
    assert node.wait() == 137
    assert not key.exists()
