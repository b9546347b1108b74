"""Two agents that check each other, the second of which finds the first through a name as Kubernetes publishes it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kube_proxy
from hosts import Hosts

REPOSITORY = Path(__file__).parent.parent
CLUSTER_IP, PORT = "10.96.0.70", 6370
BY = ("name", "service")
"""The head's own name in a headless Service, or a ClusterIP Service in front of the head."""


def start(
    hosts: Hosts, by: str, run: str, published: Sequence[float]
) -> tuple[list[subprocess.Popen[Any]], threading.Thread]:
    """Starts both agents, and a thread that publishes the endpoint of each after so many seconds.

    The names hold the run's, so that no answer for another run is cached.
    """
    domain = f"{run}.svc.cluster.local"
    name, service = f"ray-0.ray.{domain}", f"ray-head.{domain}"
    for host in hosts:  # the kubelet's line
        line = f"{host.ip} ray-{host.index}.ray.{domain} {host.name}"
        (host.base / "hosts").write_text(f"127.0.0.1 localhost\n{line}\n")
    kube_proxy.program(hosts, CLUSTER_IP, PORT, None)
    names: dict[str, str | list[str]] = {service: CLUSTER_IP}
    hosts.set_names(names)
    how = [f"--head-address={name}", "--rendezvous=dns"] if by == "name" else [f"--head-address={service}"]
    argv = [sys.executable, "-m", "bootstrap", "check", "--run", "--nodes=2", f"--run-id={run}"]
    argv += [f"--rollcall-port={PORT}", "--head-timeout=60", *how]
    begun = time.monotonic()
    env = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    agents = [host.popen([*argv, f"--rank={host.index}"], cwd=str(REPOSITORY), env=env) for host in hosts]

    def publish() -> None:
        endpoints: list[str] = []
        for when, host in sorted(zip(published, hosts, strict=True), key=lambda each: each[0]):
            time.sleep(max(0.0, begun + when - time.monotonic()))
            endpoints.append(host.ip)
            names.update({f"ray-{host.index}.ray.{domain}": host.ip, f"ray.{domain}": list(endpoints)})
            hosts.set_names(names)
            if host.index == 0:
                kube_proxy.program(hosts, CLUSTER_IP, PORT, (host.ip, PORT))

    publisher = threading.Thread(target=publish)
    publisher.start()
    return agents, publisher
