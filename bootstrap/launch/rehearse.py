"""``rehearse``: the whole run on this machine, each node on a host of its own."""

import asyncio
import resource
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bootstrap import cleanup
from bootstrap.errors import UsageError
from bootstrap.host import Host, raise_soft_limits
from bootstrap.log import Log
from bootstrap.namespaces import enter
from bootstrap.process import signals, table
from bootstrap.rehearsal import hosts as namespace_hosts
from bootstrap.rehearsal import plan as plans
from bootstrap.rehearsal.faults import ON_A_NETWORK
from bootstrap.rehearsal.nodes import LoopbackNode
from bootstrap.rehearsal.output import Output
from bootstrap.rehearsal.plan import Plan
from bootstrap.rehearsal.play import Ending, Part, Play
from bootstrap.rehearsal.table import lines
from bootstrap.settings import Settings
from bootstrap.switches import Switches

_SHARED = "/shared"
_SHOWN_BELOW = ("/tmp", "/run")  # noqa: S108 (compared with)
_OWN_FOLDERS = (*_SHOWN_BELOW, "/dev/shm", _SHARED)  # noqa: S108 (the same)
"""Those that each host, or each rehearsal, has of its own; the machine's folders below the first two can be shown."""


def rehearse(settings: Settings, host: Host, switches: Switches) -> int:
    """Start all nodes of a run on this machine; return the head's exit status once all have ended.

    :raises UsageError: before anything is started, with everything that is wrong.
    """
    signals.restore(host)
    raise_soft_limits(resource.RLIMIT_NOFILE)  # the usual 1024 is too few for 200 nodes, each with 7 pipes
    plan, log = plans.make(settings, host, switches), Log(as_json=settings.log_format == "json")
    if why := enter.fault():
        return _report(_on_loopback(plan, log, why), log)
    if lost := list(_lost(plan)):
        raise UsageError(lost, hint="use a folder that is there already, such as one below /tmp or in your home")
    status = enter.enter()
    return _report(_on_hosts(plan, log), log) if status is None else status


def _lost(plan: Plan) -> Iterator[str]:
    """Yield what the user, or the workload, would not find: files in folders that end with the rehearsal."""
    try:
        folders = {"the working directory": Path.cwd(), **plan.named}
    except FileNotFoundError:
        raise UsageError(["the working directory was deleted"], hint="cd to a folder that is there") from None
    for what, folder in folders.items():
        own = next((own for own in _OWN_FOLDERS if folder.is_relative_to(own)), "")
        shown = own in _SHOWN_BELOW and str(folder) != own and folder.is_dir()
        if own and not shown and what != f"--shared-dir={_SHARED}":
            yield f"{what}: {own} is the nodes' own, and ends with the rehearsal"


def _on_hosts(plan: Plan, log: Log) -> list[Ending]:
    with namespace_hosts.made(plan) as hosts:
        parts = namespace_hosts.furnish(plan, hosts)
        egress = f"no egress: {hosts.no_egress}" if hosts.no_egress else "egress as this machine has it"
        log.say(f"{_introduction(plan)}: hosts of their own, from {hosts[0].ip} on; {egress}")

        def connect(rank: int, up: bool) -> None:
            (hosts[rank].reconnect if up else hosts[rank].disconnect)()

        return _play(plan, parts, log, connect)


def _on_loopback(plan: Plan, log: Log, why: str) -> list[Ending]:
    """Run the plan without hosts: each node has a loopback address of its own and shares all else with this machine.

    :raises UsageError: if something is asked for that needs hosts.
    """
    asked = [fault.text for fault in plan.faults.of_nodes if fault.kind in ON_A_NETWORK]
    asked += [f"--as={plan.row.name}"] if plan.row else []
    asked += [f"--hosts-file={plan.faults.hosts_file}"] if plan.faults.hosts_file != "right" else []
    asked += ["--rendezvous=dns"] if plan.settings.rendezvous == "dns" else []
    reason, _, fix = why.partition("; fix: ")
    if asked:
        faults = [f"{each}: it needs a host for each node, and {reason}" for each in asked]
        raise UsageError(faults, hint=fix or "leave them out")
    table.become_subreaper()
    # A network of its own for this rehearsal, since all of 127.0.0.0/8 is this machine (RFC 6890).
    network = f"127.{secrets.randbelow(254) + 1}"
    nodes = [LoopbackNode(f"node-{i}", f"{network}.{i // 250}.{i % 250 + 1}") for i in range(plan.nodes)]
    log.warn(
        f"{_introduction(plan)}: no hosts of their own, since {reason}: they share this machine's name, files and"
        f" network, with addresses from {nodes[0].ip} on" + (f"; fix: {fix}" if fix else "")
    )
    known = [node.name for node in nodes], [node.ip for node in nodes]
    parts = []
    for rank, node in enumerate(nodes):
        place = plan.surroundings(rank, *known)
        options = (f"--node-ip={node.ip}", "--hosts=off", "--ignore-check=node-address")
        parts.append(Part(node, plan.command(rank, place, options), plan.environment(place), plan.run))
    try:
        return _play(plan, parts, log, lambda _rank, _up: None)
    finally:
        for node in nodes:
            node.kill()
        # As the next run on this machine would: what killed nodes have left in /tmp.
        held = cleanup.end_survivors(log.say)
        cleanup.remove_ended_runs(plan.settings.keep_logs, log.say, held)


def _introduction(plan: Plan) -> str:
    gpus = f", {plan.gpus} pretended GPUs (Ray counts them; there are no devices)" if plan.gpus else ""
    launcher = f" as {plan.row.name} starts them" if plan.row is not None else ""
    counts = [f"{count} {what}{'s' * (count > 1)}" for count, what in ((plan.nodes, "node"), (plan.cpus, "CPU"))]
    return f"{counts[0]}{launcher}, each {counts[1]}, {plan.memory / 2**30:.1f} GiB{gpus}"


def _play(plan: Plan, parts: Sequence[Part], log: Log, connect: Callable[[int, bool], None]) -> list[Ending]:
    output = Output(plan.host, [part.node.name for part in parts])
    return asyncio.run(Play(parts, plan.faults, log, output, connect).run())


def _report(endings: Sequence[Ending], log: Log) -> int:
    """Print how each node ended; return the head's status."""
    log.say("\n".join(["the rehearsal has ended:", *lines(endings)]))
    status = endings[0].status
    return 1 if status is None else status
