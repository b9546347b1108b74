"""All pods of k8s/ may run where the namespace enforces ``restricted``, but for those that say why they cannot."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from controllers import templates
from pod_security import violations
from test_manifests import FOLDERS, UNPRIVILEGED_ROOT, rendered

pytestmark = [pytest.mark.requires("kubectl", "kubernetes-validate")]


def pods(folder: str) -> list[dict[str, Any]]:
    """Of a RayCluster the head's with the container that KubeRay adds to it (``BuildAutoscalerContainer``)."""
    found = []
    for thing in rendered(folder):
        found += [template["spec"] for template in templates(thing)]
        cluster = thing.get("spec", {}).get("rayClusterConfig", thing.get("spec", {}))
        if cluster.get("enableInTreeAutoscaling"):
            context = cluster["autoscalerOptions"].get("securityContext", {})
            cluster["headGroupSpec"]["template"]["spec"]["containers"].append(
                {"name": "autoscaler", "securityContext": context}
            )
    return found


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder not in UNPRIVILEGED_ROOT])
def test_pods_may_run_in_a_restricted_namespace(folder: str) -> None:
    for pod in pods(folder):
        assert violations(pod) == []


@pytest.mark.parametrize("folder", sorted(UNPRIVILEGED_ROOT))
def test_what_the_exceptions_need_is_only_what_the_docs_say(folder: str) -> None:
    (pod,) = pods(folder)
    network = ["hostNetwork"] if "efa" in folder else []
    container = [f"container ray: {fault}" for fault in ("adds IPC_LOCK", "runAsNonRoot is not true", "runAsUser is 0")]
    assert violations(pod) == network + container


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("securityContext.runAsNonRoot", None, "runAsNonRoot is not true"),
        ("securityContext.runAsUser", 0, "runAsUser is 0"),
        ("securityContext.seccompProfile", None, "no seccompProfile"),
        ("securityContext.seccompProfile.type", "Unconfined", "no seccompProfile"),
        ("securityContext.sysctls", [{"name": "kernel.msgmax", "value": "1"}], "sysctls kernel.msgmax"),
        ("hostPID", True, "hostPID"),
        ("volumes.0.emptyDir", None, ""),
        ("volumes.0.hostPath", {"path": "/"}, "volume tmp: hostPath"),
        ("containers.0.securityContext.capabilities", None, "capabilities do not drop ALL"),
        ("containers.0.securityContext.allowPrivilegeEscalation", None, "allowPrivilegeEscalation is not false"),
        ("containers.0.securityContext.privileged", True, "privileged"),
        ("containers.0.ports", [{"containerPort": 8265, "hostPort": 8265}], "hostPort"),
        ("containers.0.readinessProbe.tcpSocket.host", "127.0.0.1", "a probe names a host"),
    ],
)
def test_each_rule_is_enforced(path: str, value: Any, fault: str) -> None:
    (pod,) = copy.deepcopy(pods("k8s/base"))
    *parents, last = path.split(".")
    at: Any = pod
    for part in parents:
        at = at[int(part)] if part.isdigit() else at[part]
    if value is None:
        del at[last]
    else:
        at[last] = value
    assert [found.removeprefix("container ray: ") for found in violations(pod)] == ([fault] if fault else [])
