"""docs/kubernetes.md: its kubectl commands are ones that kubectl understands, and the wait for either end ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from kubelet import REPOSITORY

from bootstrap import settings

pytestmark = [pytest.mark.requires("kubectl")]
TEXT = re.sub(r"```.*?```", "", (REPOSITORY / "docs/kubernetes.md").read_text(), flags=re.DOTALL)
LINES = [line.strip() for line in TEXT.splitlines() if line.startswith("    ") and "kubectl" in line]
"""The indented lines, which people paste."""
WAIT = next(line for line in LINES if line.startswith("until "))
COMMANDS = [
    match.group().partition("   #")[0].removesuffix("&").strip().removesuffix(")")
    for line in LINES
    for match in re.finditer(r"kubectl (?!wait)(?:[^|;$]|\$head)+", line)
]


def understood(argv: str, tmp_path: Path) -> str:
    """What kubectl says to this command where no API server answers."""
    config = {"apiVersion": "v1", "kind": "Config", "current-context": "none"}
    config |= {"clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:1"}}]}
    config |= {"contexts": [{"name": "none", "context": {"cluster": "none", "user": ""}}]}
    (tmp_path / "config").write_text(json.dumps(config))
    env = {**os.environ, "KUBECONFIG": str(tmp_path / "config"), "head": "pod/ray-0-x7k2p"}
    result = subprocess.run(
        ["bash", "-c", argv],
        cwd=REPOSITORY,
        env=env,
        input="secret",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_kubectl_understands_the_command(command: str, tmp_path: Path) -> None:
    assert re.search(r"127.0.0.1:1( was|: connect: connection) refused", understood(command, tmp_path))


def test_a_misspelt_option_would_be_noticed(tmp_path: Path) -> None:
    assert "unknown flag: --field-selektor" in understood("kubectl get pods --field-selektor=x", tmp_path)


@pytest.mark.requires("kubernetes-validate")
def test_the_stateful_set_of_the_docs_is_valid_and_understood() -> None:
    import kubernetes_validate

    blocks = re.findall("```yaml\n(.*?)```", (REPOSITORY / "docs/kubernetes.md").read_text(), flags=re.DOTALL)
    (service, its) = yaml.safe_load_all(next(block for block in blocks if "kind: StatefulSet" in block))
    for thing in (service, its):
        assert kubernetes_validate.validate(thing, "1.29", strict=True) == "1.29"
    spec, pod = its["spec"], its["spec"]["template"]["spec"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert service["spec"]["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    (container,) = pod["containers"]
    env = {entry["name"]: entry.get("value", "1") for entry in container["env"]}  # 1 of the downward API
    told = settings.load({}, env)
    assert (told.rank, told.nodes) == (1, spec["replicas"])
    assert told.head_address == f"{its['metadata']['name']}-0.{spec['serviceName']}"
    assert service["metadata"]["name"] == spec["serviceName"]


KUBECTL = """#!/bin/bash
# `kubectl get job ray -o jsonpath=...`, of the first Job in a folder that is not the last, each time of the next one;
# the real one evaluates the path.
[[ "$1 $2 $3 $4" == "get job ray -o" && $# == 5 ]] || exit 64
jobs=("$JOBS"/*)
exec_on=${jobs[0]}
"$KUBECTL" annotate --local -f "$exec_on" seen=yes -o "$5"
(( ${#jobs[@]} == 1 )) || rm "$exec_on"
"""


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ([[], [], ["SuccessCriteriaMet"], ["SuccessCriteriaMet", "Complete"]], "Complete"),
        ([[], ["FailureTarget"], ["FailureTarget", "Failed"]], "Failed"),
        ([["Suspended"], ["Suspended", "FailureTarget", "Failed"]], "Failed"),
    ],
)
def test_the_wait_ends_on_either_outcome_and_says_which(tmp_path: Path, conditions: list[list[str]], said: str) -> None:
    import shutil

    jobs, bin_dir = tmp_path / "jobs", tmp_path / "bin"
    jobs.mkdir()
    bin_dir.mkdir()
    for number, types in enumerate(conditions):
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "ray"}, "spec": {}}
        job["status"] = {"conditions": [{"type": each, "status": "True"} for each in types]} if types else {}
        (jobs / f"{number}.json").write_text(json.dumps(job))
    (bin_dir / "kubectl").write_text(KUBECTL)
    (bin_dir / "kubectl").chmod(0o755)
    (bin_dir / "sleep").symlink_to("/bin/true")
    path = f"{bin_dir}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "JOBS": str(jobs), "KUBECTL": str(shutil.which("kubectl"))}
    result = subprocess.run(["sh", "-c", WAIT], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout) == (0, f"{said}\n"), result.stderr
    assert len(list(jobs.iterdir())) == 1  # it looked at each
