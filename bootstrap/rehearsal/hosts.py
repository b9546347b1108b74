"""The nodes of a rehearsal as hosts made of namespaces: their names, files, networks and faults."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bootstrap.launchers import environments
from bootstrap.namespaces.host import NamespaceHost
from bootstrap.namespaces.hosts import Hosts, make_hosts
from bootstrap.rehearsal.plan import Plan
from bootstrap.rehearsal.play import Part

_BASE = Path("/dev/shm")  # noqa: S108 (a tmpfs that only this process and its children see)
"""Where the hosts' files are: they vanish with the namespaces, however these end."""
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
"""Replaces one of the machine's folders by one of the host's own, with the same entries."""


@contextmanager
def made(plan: Plan) -> Iterator[Hosts]:
    """Make the hosts of a plan, with the faults of their networks; the end of the block ends them."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "rehearsal", str(_BASE)], check=True, timeout=30)
    row = plan.row
    names = environments.names(row.name, plan.nodes, plan.label) if row is not None else None
    with make_hosts(
        plan.nodes,
        base=_BASE / "hosts",
        names=names,
        hosts_file=_HOSTS_FILE[plan.faults.hosts_file],
        dns={} if _by_dns(plan) else None,
        visible=list(plan.folders),
        shm_size=str(plan.memory // 2),
        egress=True,
    ) as hosts:
        known = [host.name for host in hosts], [host.ip for host in hosts]
        if _by_dns(plan):
            of_launcher = environments.dns(row.name, *known, plan.label) if row is not None else {}
            hosts.set_names({**dict(zip(*known, strict=True)), **of_launcher})
        for fault in plan.faults.of_nodes:
            if fault.kind == "slow":
                hosts[fault.rank].slow(fault.seconds)
            elif fault.kind == "refuse":
                hosts[fault.rank].refuse(fault.port)
        yield hosts


def furnish(plan: Plan, hosts: Hosts) -> list[Part]:
    """Write the launcher's files and programs on each host, and return what to start there."""
    names, addresses = [host.name for host in hosts], [host.ip for host in hosts]
    parts = []
    for rank, host in enumerate(hosts):
        place = plan.surroundings(rank, names, addresses)
        env = plan.environment(place)
        for path, text in place.files.items():
            _write(host, path, text)
        for name, text in place.programs.items():
            _write(host, f"{_PROGRAMS}/{name}", f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n", mode=0o755)
            env["PATH"] = f"{_PROGRAMS}:{plan.host.get('PATH') or ''}"
        if not _by_dns(plan):  # as an administrator lists them
            others = [other for other in hosts if other is not host]
            with (host.root / "etc/hosts").open("a") as file:  # in place: it is a mount
                file.writelines(f"{other.ip} {other.name}\n" for other in others)
        parts.append(Part(host, plan.command(rank, place), env))
    return parts


def _by_dns(plan: Plan) -> bool:
    return "dns" in (plan.settings.rendezvous, plan.row.rendezvous if plan.row is not None else "")


def _write(host: NamespaceHost, path: str, text: str, mode: int = 0o644) -> None:
    file = host.root / path.lstrip("/")
    if path != "/etc/hosts":
        if not path.startswith(("/tmp/", "/run/", "/shared/")):  # noqa: S108 (the host's)
            for folder in reversed(Path(path).parents[:-1]):
                _own_folder(host, folder)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        file.chmod(mode)
    file.write_text(text)


def _own_folder(host: NamespaceHost, folder: Path) -> None:
    """Replace one of the machine's folders by one of the host's own, if it exists and has not been replaced yet."""
    here = host.root / folder.relative_to("/")
    if here.is_dir() and here.stat().st_dev == Path(folder).stat().st_dev:
        argv = ["nsenter", "-t", str(host.init), "--mount", "--", "sh", "-eu", "-c", _OWN_FOLDER, "sh", str(folder)]
        subprocess.run(argv, check=True, timeout=30)
