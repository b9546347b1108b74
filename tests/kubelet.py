"""Pods of rendered manifests as hosts of :mod:`hosts`: what a kubelet and a cluster's DNS do with them.

Not here: cgroups, the seccomp profile, and that a NetworkPolicy is enforced.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kube_proxy
import yaml
from cluster import Agents
from entrypoint import BEFORE
from hosts import MARK, Host, Hosts

REPOSITORY = Path(__file__).parent.parent
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a container sees its service account's token, from ``account`` in the hosts' folder."""
NAMESPACE, UID = "default", "0e6ac3c2-9bd3-4a51-8a30-6b0f7c1c9e55"
Object = Mapping[str, Any]
_SIZES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "": 1}


def render(path: str | Path) -> list[dict[str, Any]]:
    """The objects of ``kubectl kustomize PATH``, a folder of the repository."""
    argv = ["kubectl", "kustomize", str(REPOSITORY / path)]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {result.stderr}")
    return list(yaml.safe_load_all(result.stdout))


def with_components(tmp_path: Path, folder: str, *components: str) -> list[dict[str, Any]]:
    """The objects of a folder with these of k8s/components added, as in a kustomization of one's own."""
    here = tmp_path.resolve()
    paths = (folder, *(f"k8s/components/{name}" for name in components))
    its, *added = (os.path.relpath(REPOSITORY / path, here) for path in paths)
    (here / "kustomization.yaml").write_text(f"resources: [{its}]\ncomponents: [{', '.join(added)}]\n")
    return render(here)


def only(objects: Sequence[Object], kind: str) -> Any:
    """The one object of this kind."""
    (found,) = (o for o in objects if o["kind"] == kind)
    return found


def container(pod_spec: Object) -> Any:
    """The first container, which is Ray's in all of ours."""
    return pod_spec["containers"][0]


@dataclass(frozen=True)
class Image:
    """What the manifests' image holds, as far as a runtime looks at it."""

    entrypoint: Sequence[str] = (*BEFORE, sys.executable, "-m", "bootstrap")
    env: Mapping[str, str] = field(default_factory=lambda: {"PATH": _path(), "PYTHONPATH": str(REPOSITORY)})
    root: str = ""
    """Its root folder; "": this machine's, where everything is but the ``files``."""
    files: Mapping[str, str] = field(
        default_factory=lambda: {"/opt/ray-bootstrap/count_gpus.py": str(REPOSITORY / "examples/count_gpus.py")}
    )


def _path() -> str:
    return f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Pod:
    """One pod, placed on a host."""

    name: str
    hostname: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: Object
    host: Host
    env: Mapping[str, str] = field(default_factory=dict)
    """What its controller adds to the manifest."""


def start(
    objects: Sequence[Object], pods: Sequence[Pod], hosts: Hosts, image: Image, secrets: Mapping[str, Any] | None = None
) -> Agents:
    """Starts the containers of ``pods``; the names of the Services of ``objects`` are served, and lead to them."""
    hosts.set_names({**_names(objects, pods), **_cluster_ips(objects, pods)})
    return run(objects, pods, hosts, image, secrets)


def run(
    objects: Sequence[Object], pods: Sequence[Pod], hosts: Hosts, image: Image, secrets: Mapping[str, Any] | None = None
) -> Agents:
    """The same, with the names that are served already."""
    return Agents([pod.host for pod in pods], [_run(objects, pod, hosts, image, secrets or {}) for pod in pods])


def replace(
    objects: Sequence[Object], pods: Sequence[Pod], index: int, hosts: Hosts, image: Image, agents: Agents
) -> None:
    """A new container for a pod whose last one has ended."""
    agents.processes[index] = _run(objects, pods[index], hosts, image, {})
    agents.ended.pop(index, None)


def execute(agents: Agents, rank: int, *argv: str) -> str:
    """What ``kubectl exec`` in the container of this rank prints, with the container's environment."""
    its = agents.processes[rank].pid
    pairs = (pair.partition("=") for pair in Path(f"/proc/{its}/environ").read_text().split("\0") if pair)
    env = {name: value for name, _, value in pairs if name != "RAY_BOOTSTRAP_SIGNALS"}  # which the entrypoint sets
    enter = ["nsenter", "-t", str(its), "--root", "--mount", "--uts", "--ipc", "--net", "--pid"]
    enter += ["--setgid=100", "--setuid=1000"]
    result = subprocess.run([*enter, *argv], env=env, capture_output=True, text=True, timeout=60, check=False)
    return result.stdout if result.returncode == 0 else f"exit status {result.returncode}: {result.stderr}"


def is_ready(pod: Pod) -> bool:
    """What the readiness probe of a pod finds now; the kubelet asks from the machine, here that is the pod's host."""
    port = container(pod.spec)["readinessProbe"]["tcpSocket"]["port"]
    connect = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()"
    enter = ["nsenter", "-t", str(pod.host.init), "--net", sys.executable, "-c", connect, pod.host.ip, str(port)]
    return subprocess.run(enter, capture_output=True, timeout=30, check=False).returncode == 0


def _names(objects: Sequence[Object], pods: Sequence[Pod]) -> dict[str, str]:
    """A headless Service's records; none for pods that are not ready, unless it says so, and these never are."""
    names: dict[str, str] = {}
    for service in (o for o in objects if o["kind"] == "Service" and o["spec"].get("clusterIP") == "None"):
        if service["spec"].get("publishNotReadyAddresses"):
            selector = service["spec"]["selector"].items()
            mine = [pod for pod in pods if pod.spec.get("subdomain") == service["metadata"]["name"]]
            names |= {_full_name(pod): pod.host.ip for pod in mine if selector <= pod.labels.items()}
    return names


def _cluster_ips(objects: Sequence[Object], pods: Sequence[Pod]) -> dict[str, str]:
    """The records of the other Services, whose addresses kube-proxy leads to the first of their pods."""
    names: dict[str, str] = {}
    services = (o for o in objects if o["kind"] == "Service" and o["spec"].get("clusterIP") != "None")
    for number, service in enumerate(services, 1):
        address, selector = f"10.96.7.{number}", service["spec"]["selector"].items()
        behind = [pod.host.ip for pod in pods if selector <= pod.labels.items()]
        names[f"{service['metadata']['name']}.{NAMESPACE}.svc.cluster.local"] = address
        for port in service["spec"]["ports"]:
            to = (behind[0], port.get("targetPort", port["port"])) if behind else None
            kube_proxy.program([pod.host for pod in pods], address, port["port"], to)
    return names


def _full_name(pod: Pod) -> str:
    return f"{pod.hostname}.{pod.spec['subdomain']}.{NAMESPACE}.svc.cluster.local"


def _run(
    objects: Sequence[Object], pod: Pod, hosts: Hosts, image: Image, secrets: Mapping[str, Any]
) -> subprocess.Popen[Any]:
    host, its = pod.host, container(pod.spec)
    folder = host.base / f"pod-{len(host.commands)}"
    folder.mkdir()
    own_network = not pod.spec.get("hostNetwork")
    _write_network_files(pod, hosts, own_network)
    context = {**pod.spec.get("securityContext", {}), **its.get("securityContext", {})}
    account = [["bind", str(hosts.base / "account"), ACCOUNT]] if pod.spec.get("automountServiceAccountToken") else []
    user, group = context.get("runAsUser", 0), context.get("runAsGroup", 0)
    if context.get("runAsNonRoot") and user == 0:
        raise ValueError(f"{pod.name}: container has runAsNonRoot and image will run as root")
    env = {**image.env, **environment(objects, pod, secrets), MARK: os.environ.get(MARK, "hosts")}
    termination = folder / "termination-log"
    termination.touch()
    termination.chmod(0o666)
    mounts = [
        *_volumes(objects, pod.spec, its, hosts, folder),
        ["bind", str(termination), its.get("terminationMessagePath", "/dev/termination-log")],
        *account,
    ]
    spec = {
        "root": image.root,
        "hostname": pod.hostname if own_network else None,
        "mounts": mounts,
        "files": dict(image.files),
        "visible": [str(REPOSITORY), sys.prefix, sys.base_prefix],
        "read_only": context.get("readOnlyRootFilesystem", False),
        "user": user,
        "group": group,
        "groups": [context["fsGroup"]] if "fsGroup" in context else [],
        "capabilities": "ALL" not in context.get("capabilities", {}).get("drop", []),
        "cwd": "/",
        "env": env,
        "argv": [*(its.get("command") or image.entrypoint), *its.get("args", ())],
    }
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    return host.popen_as_pid1([sys.executable, str(Path(__file__).with_name("container.py")), str(path)], cwd="/")


def termination_message(agents: Agents, rank: int) -> Any:
    """What the container of this rank wrote to its termination log."""
    path = max(agents.hosts[rank].base.glob("pod-*/termination-log"), key=lambda p: p.stat().st_ctime)
    return json.loads(path.read_text())


def _write_network_files(pod: Pod, hosts: Hosts, own_network: bool) -> None:
    """/etc/hosts and /etc/resolv.conf as the kubelet writes them; in place, as they are mounted."""
    own = f"{pod.host.ip}\t{_full_name(pod)}\t{pod.hostname}\n" if "subdomain" in pod.spec else ""
    own = own or f"{pod.host.ip}\t{pod.hostname}\n"
    local = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n"
    if own_network:
        (pod.host.base / "hosts").write_text(f"# Kubernetes-managed hosts file.\n{local}{own}")
    domains = f"{NAMESPACE}.svc.cluster.local svc.cluster.local cluster.local"
    resolver = f"nameserver {hosts.gateway}\nsearch {domains}\noptions ndots:5 timeout:1 attempts:2\n"
    (pod.host.base / "resolv.conf").write_text(resolver)


def environment(objects: Sequence[Object], pod: Pod, secrets: Mapping[str, Any]) -> dict[str, str]:
    """As the kubelet makes it: the API server's Service, envFrom, then env, in which $(NAME) means one before it."""
    its = container(pod.spec)
    env = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    maps = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
    for source in its.get("envFrom", ()):
        env |= maps[source["configMapRef"]["name"]]
    for entry in its.get("env", ()):
        value = entry.get("value", "") if "valueFrom" not in entry else _value(entry["valueFrom"], pod, maps, secrets)
        if value is not None:
            env[entry["name"]] = re.sub(r"\$\(([^)]+)\)", lambda m: env.get(m[1], m[0]), value)
    return env | dict(pod.env)


def _value(source: Object, pod: Pod, maps: Mapping[str, Any], secrets: Mapping[str, Any]) -> str | None:
    if "fieldRef" in source:
        return _field(source["fieldRef"]["fieldPath"], pod)
    if "resourceFieldRef" in source:
        return resource_field(source["resourceFieldRef"], container(pod.spec))
    (kind, ref), *_ = source.items()
    known = secrets if kind == "secretKeyRef" else maps
    if ref["name"] not in known and ref.get("optional"):
        return None
    return str(known[ref["name"]][ref["key"]])


def _field(path: str, pod: Pod) -> str:
    """The downward API; a label that is not there is the empty text."""
    if match := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        table = pod.labels if match[1] == "labels" else pod.annotations
        return table.get(match[2], "")
    fields = {"status.podIP": pod.host.ip, "status.hostIP": pod.host.ip, "spec.nodeName": pod.host.name}
    return {**fields, "metadata.name": pod.name, "metadata.namespace": NAMESPACE, "metadata.uid": UID}[path]


def resource_field(ref: Object, its: Object) -> str:
    """A container's CPUs by the downward API, rounded up to the divisor (ExtractContainerResourceValue in
    pkg/api/v1/resource/helpers.go); without a limit that is what the machine has, without a request 0."""
    which, name = ref["resource"].split(".")
    assert name == "cpu"
    resources = its.get("resources", {})
    limit = resources.get("limits", {}).get("cpu")
    given = limit if which == "limits" else resources.get("requests", {}).get("cpu", limit)
    amount = _milli(given or (str(os.cpu_count()) if which == "limits" else "0"))
    return str(-(-amount // _milli(ref.get("divisor", "1"))))


def _milli(quantity: str) -> int:
    return int(quantity[:-1]) if quantity.endswith("m") else int(float(quantity) * 1000)


def _volumes(objects: Sequence[Object], spec: Object, its: Object, hosts: Hosts, folder: Path) -> list[list[str]]:
    """emptyDir on disk or in memory, a ConfigMap's files, and a claim, which is the folder that all hosts share."""
    volumes = {volume["name"]: volume for volume in spec.get("volumes", ())}
    mounts = []
    for use in its.get("volumeMounts", ()):
        volume = volumes[use["name"]]
        empty = volume.get("emptyDir", {})
        if empty.get("medium") == "Memory":
            mounts.append(["tmpfs", f"mode=1777,size={_bytes(empty['sizeLimit'])}", use["mountPath"]])
        elif "emptyDir" in volume:
            disk = folder / use["name"]
            disk.mkdir(exist_ok=True)
            disk.chmod(0o777)
            mounts.append(["bind", str(disk), use["mountPath"]])
        elif "configMap" in volume:
            (files,) = (o["data"] for o in objects if o["metadata"]["name"] == volume["configMap"]["name"])
            (folder / use["name"]).mkdir()
            for name, text in files.items():
                (folder / use["name"] / name).write_text(text)
            mounts.append(["bind", str(folder / use["name"]), use["mountPath"]])
        else:
            mounts.append(["bind", str(hosts.shared if "persistentVolumeClaim" in volume else None), use["mountPath"]])
    return mounts


def _bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMG]i)?", quantity).groups()  # type: ignore[union-attr]
    return int(number) * _SIZES[unit or ""]
