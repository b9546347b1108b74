"""``detect``, ``check`` and ``status``: prefixes of the line, printed."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
import time
from typing import Any

from bootstrap import preflight, rendezvous
from bootstrap.errors import BootstrapError
from bootstrap.files import runtime_dir
from bootstrap.host import Host
from bootstrap.launchers import identify
from bootstrap.model import Role
from bootstrap.node.inspection import Node, inspect
from bootstrap.raynode.ports import choose
from bootstrap.settings import Settings

NOT_RUNNING, NOT_READY = 1, 2
"""Exit statuses of ``status`` beside 0."""
_READY = {"running", "joined"}


def detect(settings: Settings, host: Host, as_json: bool) -> int:
    """Who and what this node is, each value with its source."""
    identity, notes = identify(settings, host)
    node = inspect(settings, host, identity)
    report = _describe(node, notes)
    if as_json:
        print(json.dumps(report, indent=2))
        return 0
    for name, entry in report.items():
        if isinstance(entry, dict) and set(entry) == {"value", "source"}:
            source = f"   ({entry['source']})" if entry["source"] else ""
            print(f"{name:15} {_text(entry['value'])}{source}")
        else:
            print(f"{name:15} {_text(entry)}")
    return 0


def _text(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "-"
    if isinstance(value, list):
        return ("\n" + " " * 16).join(str(item) for item in value)
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _describe(node: Node, notes: list[str]) -> dict[str, Any]:
    identity, address, measured = node.identity, node.address, node.resources

    def sourced(value: object, *sources: str | None) -> dict[str, object]:
        return {"value": value, "source": next((source for source in sources if source), "")}

    who, where, what = identity.sources, address.sources, measured.sources
    gcs = None if identity.role is Role.HEAD else "HEAD:PORT"
    ports = choose(node.settings, identity.role, node.host)
    return {
        "launcher": sourced(identity.launcher, who.get("launcher")),
        "role": sourced(identity.role.value, who.get("role")),
        "rank": sourced(identity.rank, who.get("rank")),
        "size": sourced(identity.size, who.get("size")),
        "run id": sourced(identity.run_id, who.get("run_id")),
        "attempt": sourced(identity.attempt, who.get("attempt")),
        "rendezvous": sourced(identity.rendezvous, who.get("rendezvous")),
        "head": sourced(_candidates(node), who.get("head") or who.get("head_hints")),
        "address": sourced(address.ip, where.get("ip")),
        "interface": sourced(address.interface, where.get("interface")),
        "hostname": sourced(address.hostname, where.get("hostname")),
        "cpus": sourced(measured.cpus, what.get("cpus")),
        "memory": sourced(measured.memory, what.get("memory")),
        "gpus": sourced([dataclasses.asdict(gpu) for gpu in measured.gpus], what.get("gpus")),
        "num gpus": sourced(measured.num_gpus, what.get("num_gpus")),
        "resources": sourced(dict(measured.custom), what.get("custom")),
        "secret": sourced("yes" if node.secret.value is not None else "no", node.secret.source),
        "ray start": shlex.join(["ray", "start", *node.start_argv(ports, gcs)]),
        "notes": notes,
    }


def _candidates(node: Node) -> list[str]:
    """Where the head would be looked for first; looking must not change anything, so a folder is only named."""
    if node.identity.rendezvous == "file":
        return [f"record in {node.settings.shared_dir}"]
    try:
        return [str(head) for head in rendezvous.make(node.settings, node.identity, node.host).lookup()]
    except BootstrapError as error:
        return [error.message]


def check(settings: Settings, host: Host, as_json: bool) -> int:
    """All preflight checks and all their findings; :raises PreflightFailed: if one of them is fatal."""
    identity, _ = identify(settings, host)
    node = inspect(settings, host, identity)
    findings = preflight.run(node)
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        for line in preflight.render(node, findings, settings.ignore_check):
            print(line)
    preflight.judge(findings, settings.ignore_check)
    return 0


def status(settings: Settings, _host: Host, as_json: bool) -> int:
    """What this user's agents on this machine are doing; 0 if one (of ``--run-id``, if given) is ready."""
    told = (
        {name: fact for name, fact in run.items() if name not in runtime_dir.OWN_AFFAIRS}
        for run in runtime_dir.running()
    )
    found = [run for run in told if settings.run_id in (None, run.get("run_id"))]
    if as_json:
        print(json.dumps(found, indent=2))
    for run in [] if as_json else found:
        ago = time.time() - run["since"]
        head = run.get("gcs") or run.get("head") or "-"
        here = f" {run['seen']} of {run.get('size') or '?'} nodes here," if "seen" in run else ""
        print(
            f"{run.get('phase', '?')} for {ago:.0f} s: {run.get('role', '?')}, rank {run.get('rank', '?')}"
            f" of {run.get('size') or '?'}, run {run.get('run_id')!r}, head {head},{here} pid {run['pid']}"
        )
    if not found:
        print("no agent of this user runs on this machine", file=sys.stderr)
        return NOT_RUNNING
    return 0 if any(str(run.get("phase")) in _READY for run in found) else NOT_READY
