"""Attach to a Ray that already runs: find it → check it → wait for its nodes → workload. Nothing of it is touched.

What becomes of that Ray while the workload runs is the workload's business, whose status is the run's.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bootstrap import timeouts
from bootstrap.errors import HeadNotFound, QuorumTimeout, RayStartFailed, Refused, UsageError
from bootstrap.files import output
from bootstrap.launchers.look import how_to_look
from bootstrap.model import HeadAddress, NodeIdentity, Phase, Role, Verdict
from bootstrap.node import by_role
from bootstrap.parsers import host_port
from bootstrap.preflight.folders import FIX_TRACE
from bootstrap.process.bounded import TimedOut, run_in_thread, wait_for
from bootstrap.process.executable import find_fault
from bootstrap.raynode import environment
from bootstrap.raynode.starter import Starter
from bootstrap.rollcall.dial import dial
from bootstrap.run import workload
from bootstrap.run.context import Context
from bootstrap.run.shutdown import CHECK
from bootstrap.settings import Settings

Node = Mapping[str, Any]
"""A row of GCS's node table (:mod:`bootstrap.raynode.child_main`)."""
_OF_HEAD = "node:__internal_head__"
"""A resource that Ray gives its head alone (HEAD_NODE_RESOURCE_NAME in its constants)."""
_SHOWN = 32
"""Maximum number of nodes in the final error."""
_FIX_ACCESS = (
    "RAY_AUTH_MODE=token with that Ray's token in RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN; on a node of a run of"
    " ray-bootstrap: ray-bootstrap exec -- ray-bootstrap -- COMMAND"
)


async def run_attached(run: Context, identity: NodeIdentity, starter: Starter) -> Verdict:
    """Run the workload against the Ray that ``identity`` names, and return its verdict.

    In a check of all nodes, return once its nodes are there.
    """
    settings, env = run.settings, environment.for_starter(run.host)
    if not run.check_only:
        if not settings.workload:
            hint = "ray-bootstrap -- COMMAND; `-- true` only waits for the nodes; --launcher=local starts a Ray here"
            raise UsageError(["no workload, and the Ray to attach to stays without one"], hint=hint)
        if fault := find_fault(settings.workload, env):
            return workload.not_started(*fault)
    await check_trace(settings)
    here = await _import_ray(starter, settings.head_timeout)
    run.enter(Phase.SEARCHING)
    found = await find_ray(run, identity, starter)
    check_versions(run, found, here)
    gcs = str(found["address"])
    run.enter(Phase.WAITING, gcs=gcs, use=environment.for_shell(env, gcs))
    run.log.say(f"found Ray {found['ray']} at {gcs} after {run.seconds:.1f} s")
    alive, ready = await wait_for_nodes(run, identity, starter, gcs)
    await starter.end()
    run.note_quorum()
    run.log.say(f"quorum reached: {_count(ready)} after {run.seconds:.1f} s")
    run.log.say(f"to use it from another shell here: {environment.how_to_use(env)}")
    if not {node["id"] for node in alive}.intersection(found["here"]):
        run.log.warn(
            f"no node of that Ray is on {run.host.hostname}: ray.init() fails here after 60 s; fix: `ray job submit --"
            " COMMAND` as the workload; or run this on one of its nodes, such as in the entrypoint of a RayJob"
        )
    if run.check_only:
        return Verdict(0, f"the Ray at {gcs} can be used: {_count(ready)}", CHECK)
    run.enter(Phase.RUNNING, nodes=len(ready))
    gpus = sum(node["resources"].get("GPU", 0) for node in ready)
    nodes = [node["ip"] for node in ready]
    return await workload.run(run, environment.for_driver(settings, env, identity.run_id, gcs, nodes, gpus))


async def check_trace(settings: Settings) -> None:
    """:raises UsageError: if the file of ``--trace`` cannot be written, which no preflight looks for here."""
    if (asked := settings.trace) is None:
        return
    try:
        why = await run_in_thread(timeouts.SHARED_FOLDER_S, lambda: output.fault(Path(asked)))
    except TimedOut:
        why = f"its folder timed out after {timeouts.SHARED_FOLDER_S:g} s"
    if why:
        raise UsageError([f"--trace={asked}: {why}"], hint=FIX_TRACE)


async def _import_ray(starter: Starter, limit: float) -> Mapping[str, str]:
    """Return the versions of Ray and Python here. :raises RayStartFailed: if Ray cannot be imported, or not in time."""
    try:
        return await wait_for(limit, starter.ready())
    except TimedOut:
        what = f"the import of Ray has not ended after {limit:g} s"
        raise RayStartFailed(what, hint="check for a slow file system or a busy machine; --head-timeout") from None


async def find_ray(run: Context, identity: NodeIdentity, starter: Starter) -> Mapping[str, Any]:
    """Return what the Ray says of itself (``find`` in :mod:`bootstrap.raynode.child_main`), as soon as it answers.

    :raises HeadNotFound: if it does not within ``--head-timeout``.
    :raises Refused: if it wants another token.
    """
    address, source = identity.head_hints[0], identity.sources["head"]
    loop, limit, said = asyncio.get_running_loop(), run.settings.head_timeout, ""
    end = loop.time() + limit
    while True:
        try:
            answer = await wait_for(max(1.0, end - loop.time()), _ask(starter, address))
            if "error" not in answer:
                return answer
            why = str(answer["error"]).splitlines()[0]
        except TimedOut:
            why = "no answer to a question to GCS"
        except (OSError, UnicodeError) as error:
            why = str(error)
        if why.startswith("AuthenticationError:"):
            raise Refused(f"{source}={address}: {why.partition('. ')[0]}", hint=_FIX_ACCESS)
        if loop.time() >= end:
            what = f"no Ray answers at {source}={address} within {limit:g} s: {why}"
            fit = "the port must be GCS's, not the dashboard's or Ray Client's, and RAY_USE_TLS what it is there"
            hint = f"{_look(run, identity)}; {fit}; --launcher=local starts a Ray here"
            raise HeadNotFound("\n".join([what, *starter.said()[-3:]]), hint=hint)
        if why != said:
            run.log.progress(f"no Ray answers at {address} yet: {why}")
            said = why
        await asyncio.sleep(min(timeouts.ASK_RAY_AGAIN_S, max(0.0, end - loop.time())))


def _look(run: Context, identity: NodeIdentity) -> str:
    if run.host.get("KUBERNETES_SERVICE_HOST") is None:
        return "`ray list nodes` on its head shows that Ray's nodes"
    return how_to_look(identity.launcher, run.host, [])


class _Knock(asyncio.Protocol):
    """A connection that is closed at once: Ray takes 15 to 40 s to report that a port is closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


async def _ask(starter: Starter, address: str) -> Mapping[str, Any]:
    if address != "auto":
        host, port = host_port(address)
        try:
            await dial(HeadAddress(host, port or 0), timeouts.CANDIDATE_S, _Knock)
        except TimedOut:
            raise OSError(f"looking up {host} timed out after {timeouts.CANDIDATE_S:g} s") from None
    return await starter.ask("find", address=address)


def check_versions(run: Context, found: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Raise if ``ray.init()`` would refuse these versions (``check_version_info`` in Ray's _private/utils.py).

    :raises Refused: with both.
    """
    level = 2 if run.host.get("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL") == "minor" else 3
    for name, label, parts in (("ray", "Ray", None), ("python", "Python", level)):
        if found[name].split(".")[:parts] != here[name].split(".")[:parts]:
            what = f"{label} {found[name]} at {found['address']}, {label} {here[name]} on {run.host.hostname}"
            raise Refused(what, hint=f"Ray {found['ray']} with Python {found['python']} here, as in that Ray's image")


async def wait_for_nodes(
    run: Context, identity: NodeIdentity, starter: Starter, gcs: str
) -> tuple[list[Node], list[Node]]:
    """Wait until ``--nodes`` are there, or until ``--last-call`` after ``--min-nodes``; one is enough without these.

    :returns: the nodes that are alive, and those of them that count: with what is expected of them.
    :raises QuorumTimeout: with the nodes that are there, and what they have.
    """
    settings, loop = run.settings, asyncio.get_running_loop()
    wanted = settings.nodes or settings.min_nodes or 1
    begin, enough_since, said = loop.time(), None, ""
    while True:
        answer = await _nodes(starter, gcs, begin + settings.quorum_timeout - loop.time())
        alive = [node for node in answer.get("nodes", ()) if node["alive"]]
        ready = [node for node in alive if not _lacking(node, settings)]
        there, clock = len(ready), loop.time()
        if there >= (settings.min_nodes or wanted):
            enough_since = clock if enough_since is None else enough_since
            if there >= wanted or clock - enough_since >= settings.last_call:
                return alive, ready
        if clock - begin >= settings.quorum_timeout:
            fault = f"GCS does not list its nodes: {answer['error']}\n" if "error" in answer else ""
            what = f"{fault}{there} of {wanted} nodes at {gcs} after {settings.quorum_timeout:g} s"
            hint = f"{_look(run, identity)}; --quorum-timeout waits longer; --min-nodes starts with fewer"
            raise QuorumTimeout("\n".join([what, *_table(alive, settings)]), hint=hint)
        line = f"{there} of {wanted} nodes" + (f"; {len(alive) - there} with too little" if len(alive) > there else "")
        if line != said:
            run.log.progress(line)
            said = line
        await asyncio.sleep(timeouts.ASK_GCS_AGAIN_S)


async def _nodes(starter: Starter, gcs: str, left: float) -> Mapping[str, Any]:
    """Return GCS's answer. :raises QuorumTimeout: if it does not arrive in time."""
    try:
        return await wait_for(max(1.0, left), starter.ask("nodes", address=gcs))
    except TimedOut:
        raise QuorumTimeout(f"GCS at {gcs} no longer answers", hint="`ray status` on its head") from None


def _lacking(node: Node, settings: Settings) -> str:
    """Return of which resource the node has less than expected, in words; empty if of none."""
    role = Role.HEAD if _OF_HEAD in node["resources"] else Role.WORKER
    expected = by_role.expected(by_role.settings_of(settings, role))
    short = {name: wanted for name, wanted in expected.items() if node["resources"].get(name, 0) < wanted}
    return ", ".join(f"{by_role.in_words(name, wanted)} expected" for name, wanted in short.items())


def _table(alive: Sequence[Node], settings: Settings) -> list[str]:
    """Return a line for each node: its address and its resources."""

    def line(node: Node) -> str:
        has = {name: amount for name, amount in node["resources"].items() if not name.startswith("node:")}
        has = {name: f"{amount / 2**30:.3g} GiB" if "memory" in name else f"{amount:g}" for name, amount in has.items()}
        text = ", ".join(f"{name} {amount}" for name, amount in sorted(has.items()))
        return "; ".join(filter(None, [f"{node['ip']}: {text}", _lacking(node, settings)]))

    rest = [f"and {len(alive) - _SHOWN} more"] if len(alive) > _SHOWN else []
    return [*map(line, alive[:_SHOWN]), *rest]


def _count(nodes: Sequence[Node]) -> str:
    return "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
