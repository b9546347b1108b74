"""The nodes of a rehearsal as hosts made of namespaces: their names, files, networks and faults."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bootstrap.launchers import environments
from bootstrap.launchers.place import Surroundings
from bootstrap.namespaces.host import NamespaceHost
from bootstrap.namespaces.hosts import Hosts, make_hosts
from bootstrap.rehearsal.plan import Plan

_BASE = Path("/dev/shm")  # noqa: S108 (a tmpfs that only this process and its children see)
"""Where the hosts' files are: they go with the namespaces, however these end."""
_HOSTS_FILE = {"none": "absent", "loopback": "127.0.1.1", "right": "right"}
"""Our words for /etc/hosts, and those of :func:`make_hosts`."""
_PROGRAMS = "/run/rehearsal"
_OWN_FOLDER = """
new=/run/$(echo "$1" | tr / _)
mkdir "$new"
mount --rbind "$1" "$new"
mount -t tmpfs -o mode=755 rehearsal "$1"
for path in "$new"/* "$new"/.[!.]*; do
    entry=$1/${path##*/}
    if [ -L "$path" ]; then ln -s "$(readlink "$path")" "$entry"
    elif [ -d "$path" ]; then mkdir "$entry" && mount --rbind "$path" "$entry"
    elif [ -e "$path" ]; then : >"$entry" && mount --bind "$path" "$entry"
    fi
done
"""
"""Puts a folder of the host's own in the place of one of the machine's, with all that is in there."""


@contextmanager
def made(plan: Plan) -> Iterator[Hosts]:
    """Make the hosts of a plan, with each node's names, files and network faults; they end with the block."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "rehearsal", str(_BASE)], check=True)
    name = plan.row.name if plan.row is not None else ""
    by_dns = (plan.row is not None and plan.row.rendezvous == "dns") or plan.settings.rendezvous == "dns"
    names = environments.names(name, plan.nodes, plan.label) if plan.row is not None else None
    with make_hosts(
        plan.nodes,
        base=_BASE / "hosts",
        names=names,
        hosts_file=_HOSTS_FILE[plan.faults.hosts_file],
        dns={} if by_dns else None,
        visible=list(plan.folders),
        shm_size=str(plan.memory // 2),
        egress=True,
    ) as hosts:
        known = [host.name for host in hosts], [host.ip for host in hosts]
        if by_dns:
            of_launcher = environments.dns(name, *known, plan.label) if plan.row is not None else {}
            hosts.set_names({**dict(zip(*known, strict=True)), **of_launcher})
        else:
            _list_all(hosts)
        for fault in plan.faults.of_nodes:
            if fault.kind == "slow":
                hosts[fault.rank].slow(fault.seconds)
            elif fault.kind == "refuse":
                hosts[fault.rank].refuse(fault.port)
        yield hosts


def _list_all(hosts: Sequence[NamespaceHost]) -> None:
    """Add the other nodes to each node's /etc/hosts, as an administrator does where no DNS knows them."""
    for host in hosts:
        with (host.root / "etc/hosts").open("a") as file:  # in place: it is a mount
            file.writelines(f"{other.ip} {other.name}\n" for other in hosts if other is not host)


def furnish(host: NamespaceHost, surroundings: Surroundings) -> Mapping[str, str]:
    """Write what the launcher writes on a node; return the variables by which its programs are found."""
    for path, text in surroundings.files.items():
        file = host.root / path.lstrip("/")
        if path != "/etc/hosts" and not path.startswith(("/tmp/", "/run/", "/shared/")):  # noqa: S108 (the host's)
            _own_folder(host, f"/{Path(path).parts[1]}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for name, text in surroundings.programs.items():
        program = host.root / _PROGRAMS.lstrip("/") / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
        program.chmod(0o755)
    return {"PATH": f"{_PROGRAMS}:{surroundings.env.get('PATH', '')}"} if surroundings.programs else {}


def _own_folder(host: NamespaceHost, folder: str) -> None:
    if (host.root / f"run/{folder.replace('/', '_')}").exists():
        return
    argv = ["nsenter", "-t", str(host.init), "--mount", "--", "sh", "-eu", "-c", _OWN_FOLDER, "own-folder", folder]
    subprocess.run(argv, check=True)
