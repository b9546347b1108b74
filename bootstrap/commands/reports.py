"""``detect``, ``check`` and ``status``: print what this node is, whether it is fit, and what its agent is doing."""

import dataclasses
import json
import math
import shlex
import sys
import time
from collections.abc import Mapping
from typing import Any

from bootstrap import preflight, rendezvous, timeouts
from bootstrap.errors import BootstrapError
from bootstrap.files import runtime_dir
from bootstrap.files.secret import Channel, check_required, uses_tls
from bootstrap.host import Host
from bootstrap.model import NodeIdentity, Role
from bootstrap.node.by_role import expected
from bootstrap.node.inspection import Node
from bootstrap.preflight.prepare import identify, inspect_only, prepare
from bootstrap.process.bounded import TimedOut, run_bounded
from bootstrap.raynode import frameworks
from bootstrap.raynode.command import start_argv
from bootstrap.raynode.ports import choose
from bootstrap.settings import Settings
from bootstrap.switches import Switches

_IDENTITY = ("launcher", "role", "rank", "size", "run_id", "attempt", "rendezvous")
_USED_BY_RUNS = ("memory", "shm", "nproc", "pids", "temp-dir-disk")
"""Checks that look at how much of something is still free here."""
NOT_RUNNING, NOT_READY = 1, 2
"""Exit statuses of ``status`` other than 0."""
RAY_DIR = runtime_dir.PARENT / f"{runtime_dir.PREFIX}XXXXXXXX" / runtime_dir.RAY
"""Stands for the folder with a random name that a run creates."""


def detect(settings: Settings, host: Host, switches: Switches) -> int:
    """Print this node's role, address and resources, each value with its source; change nothing."""
    identity, notes = identify(settings, host)
    if identity.role is Role.DRIVER:
        report = _describe_driver(identity, notes)
    else:
        report = _describe(inspect_only(settings, host, identity, RAY_DIR), notes)
    if switches.as_json:
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
    if value is None or value in ((), [], {}):
        return "-"
    if isinstance(value, list | tuple):
        return ("\n" + " " * 16).join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _describe(node: Node, notes: list[str]) -> dict[str, Any]:
    identity = {**dataclasses.asdict(node.identity), "role": node.identity.role.value}
    address, measured = dataclasses.asdict(node.address), dataclasses.asdict(node.resources)

    def sourced(facts: Mapping[str, Any], name: str) -> dict[str, object]:
        return {"value": facts[name], "source": facts["sources"].get(name, "")}

    gcs = None if node.identity.role is Role.HEAD else "HEAD:PORT"
    ports = choose(node.settings, node.identity.role, node.host)
    head, secret = node.identity.sources.get("head") or node.identity.sources.get("head_hints"), node.secret
    tls = uses_tls(secret, node.settings)
    no_secret = ", no secret" if node.settings.tls != "off" and not tls else ""
    return {
        **{name.replace("_", " "): sourced(identity, name) for name in _IDENTITY},
        "head": {"value": _candidates(node), "source": head or ""},
        "isolation": {**sourced(identity, "isolation_timeout"), "value": _seconds_or_off(node.identity)},
        "address": sourced(address, "ip"),
        "interface": sourced(address, "interface"),
        "hostname": sourced(address, "hostname"),
        **{name.replace("_", " "): sourced(measured, name) for name in ("cpus", "memory", "gpus", "num_gpus")},
        "resources": sourced(measured, "custom"),
        "expected": {"value": dict(expected(node.settings)), "source": "--expect-gpus, --expect-resources"},
        "setup": {"value": list(node.settings.setup), "source": "--setup, before Ray"},
        "secret": {"value": "no" if secret.channel is Channel.NONE else "yes", "source": secret.source},
        "tls": {"value": "yes" if tls else "no", "source": f"--tls={node.settings.tls}{no_secret}"},
        "environment": {"value": _planned(node), "source": f"--framework-env={node.settings.framework_env}"},
        "ray start": shlex.join(["ray", "start", *start_argv(node, ports, gcs)]),
        "notes": notes,
    }


def _planned(node: Node) -> list[str]:
    """Return what is set for frameworks, and what is not and why; a worker learns the head's address when it joins."""
    ip = node.address.ip
    head = ip if node.identity.role is Role.HEAD else None
    return [str(each) for each in frameworks.plan(node, node.host.env, head, ray_ip=ip)]


def _describe_driver(identity: NodeIdentity, notes: list[str]) -> dict[str, Any]:
    shown = {name: getattr(identity, name) for name in ("launcher", "size", "run_id", "attempt")}
    shown |= {"role": identity.role.value, "attaches to": identity.head_hints[0]}
    sources = {**identity.sources, "attaches to": identity.sources["head"]}
    facts = {name.replace("_", " "): {"value": shown[name], "source": sources.get(name, "")} for name in shown}
    return {**facts, "notes": notes}


def _seconds_or_off(identity: NodeIdentity) -> str:
    return f"{identity.isolation_timeout:g} s" if identity.isolation_timeout < math.inf else "off"


def _candidates(node: Node) -> list[str]:
    """Return the candidates for the head; only name a shared folder, since a look would create a folder in it."""
    if node.identity.rendezvous == "file" and node.settings.shared_dir:
        return [f"record in {node.settings.shared_dir}"]
    try:
        meeting = rendezvous.make(node.settings, node.identity, node.host)
        return [str(head) for head in run_bounded(timeouts.CANDIDATE_S, meeting.lookup).candidates]
    except BootstrapError as error:
        return [error.message]
    except TimedOut:
        return [f"{meeting.place} timed out after {timeouts.CANDIDATE_S:g} s"]


def check(settings: Settings, host: Host, switches: Switches) -> int:
    """Print all preflight checks and their findings. :raises PreflightFailed: if one is fatal and not ignored."""
    identity, _ = identify(settings, host)
    if identity.role is Role.DRIVER:
        ray = f"the Ray at {identity.head_hints[0]} ({identity.sources['head']})"
        line = f"a run attaches to {ray}; `ray-bootstrap check --run` asks that Ray, --launcher=local checks this node"
        print("[]" if switches.as_json else line)
        return 0
    prepared = prepare(settings, host, identity, RAY_DIR, repair=False)
    findings = [_excused(finding) for finding in prepared.findings] if runtime_dir.running() else prepared.findings
    check_required(prepared.node.secret, settings)
    if switches.as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        for line in preflight.render(prepared.node, findings, settings.ignore_check):
            print(line)
    preflight.judge(findings, settings.ignore_check)
    return 0


def _excused(finding: preflight.Finding) -> preflight.Finding:
    """Return a finding as a warning if a run of this user that is up here is why: this node was fit for that one."""
    if finding.check in _USED_BY_RUNS:
        message = f"{finding.message}; a run of this user, which is up here, has its share in that"
        return dataclasses.replace(finding, message=message, fatal=False)
    return dataclasses.replace(finding, fatal=finding.fatal and not finding.own_run)


def _place(state: Mapping[str, Any]) -> str:
    role, size = state.get("role", "?"), state.get("size") or "?"
    return str(role) if role == Role.DRIVER else f"{role}, rank {state.get('rank', '?')} of {size}"


def status(settings: Settings, _host: Host, switches: Switches) -> int:
    """Print what this user's agents on this machine are doing.

    :returns: 0 if one (of ``--run-id``, if given) is ready, which means that its Ray runs and the cluster stands;
        :data:`NOT_READY` if none is; :data:`NOT_RUNNING` if there is none at all.
    """
    states = runtime_dir.running()
    found = [state for state in states if settings.run_id in (None, state.get("run_id"))]
    if switches.as_json:
        print(json.dumps(found, indent=2))
    for state in [] if switches.as_json else found:
        seconds = time.time() - state["since"]
        head = state.get("gcs") or state.get("head") or "-"
        connected = f" {state['seen']} of {state.get('size') or '?'} nodes connected," if "seen" in state else ""
        ready = "the cluster stands" if state.get("ready") is True else "not ready"
        print(
            f"{state.get('phase', '?')} for {seconds:.0f} s: {_place(state)}, run {state.get('run_id')!r}, head {head},"
            f"{connected} {ready}, pid {state['pid']}"
        )
        if "use" in state:
            print(f"  export {state['use']}")
    if not found:
        print(runtime_dir.no_run(settings.run_id, states), file=sys.stderr)
        return NOT_RUNNING
    return 0 if any(state.get("ready") is True for state in found) else NOT_READY
