"""The Pod Security Standard "restricted", which includes "baseline", as the API server's admission enforces it.

https://kubernetes.io/docs/concepts/security/pod-security-standards/, of Kubernetes 1.34; one check for each row of its
tables, but for AppArmor's and SELinux' options and HostProcess, which our pods must leave alone altogether.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Object = Mapping[str, Any]
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
PROFILES = {"RuntimeDefault", "Localhost"}


def violations(pod: Object) -> list[str]:
    """Why the admission refuses a pod with this spec in a namespace that enforces ``restricted``; empty if not."""
    return [*_of_pod(pod), *(fault for container in _containers(pod) for fault in _of_container(container, pod))]


def _containers(pod: Object) -> list[Object]:
    return [one for kind in ("initContainers", "containers", "ephemeralContainers") for one in pod.get(kind, ())]


def _of_pod(pod: Object) -> Iterator[str]:
    context = pod.get("securityContext", {})
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield name
    for volume in pod.get("volumes", ()):
        if kinds := volume.keys() - VOLUMES - {"name"}:
            yield f"volume {volume['name']}: {', '.join(kinds)}"
    if names := {each["name"] for each in context.get("sysctls", ())} - SYSCTLS:
        yield f"sysctls {', '.join(sorted(names))}"
    yield from (f"{name} of the pod" for name in _untouched(context))


def _untouched(context: Object) -> list[str]:
    return [name for name in ("windowsOptions", "seLinuxOptions", "appArmorProfile") if name in context]


def _of_container(container: Object, pod: Object) -> Iterator[str]:
    own, whole, name = container.get("securityContext", {}), pod.get("securityContext", {}), container["name"]
    context = {**whole, **own}
    added = set(own.get("capabilities", {}).get("add", ()))
    probes = [container.get(f"{kind}Probe", {}) for kind in ("liveness", "readiness", "startup")]
    handlers = [*probes, *container.get("lifecycle", {}).values()]
    ways = [handler[kind] for handler in handlers for kind in ("httpGet", "tcpSocket") if kind in handler]
    faults = {
        "privileged": own.get("privileged"),
        "allowPrivilegeEscalation is not false": own.get("allowPrivilegeEscalation") is not False,
        "capabilities do not drop ALL": "ALL" not in own.get("capabilities", {}).get("drop", ()),
        f"adds {', '.join(sorted(added))}": added - {"NET_BIND_SERVICE"},
        "runAsNonRoot is not true": context.get("runAsNonRoot") is not True,
        "runAsUser is 0": context.get("runAsUser") == 0,
        "no seccompProfile": context.get("seccompProfile", {}).get("type") not in PROFILES,
        "procMount": own.get("procMount", "Default") != "Default",
        "hostPort": any(port.get("hostPort") for port in container.get("ports", ())),
        "a probe names a host": any("host" in way for way in ways),
        **dict.fromkeys(_untouched(own), True),
    }
    yield from (f"container {name}: {fault}" for fault, found in faults.items() if found)
