"""Every option once: its flag, its variable, its default and what it means.

A field of :class:`Settings` *is* an option: ``num_cpus`` is ``--num-cpus`` and ``RAY_BOOTSTRAP_NUM_CPUS``. The
command line, ``--help`` and the variables are all read off the fields, so that adding an option is adding a field.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bootstrap import parsers
from bootstrap.errors import UsageError

PREFIX = "RAY_BOOTSTRAP_"
_SERVICE_LINK = re.compile(
    r"(?P<service>.+?)_(?P<rest>SERVICE_HOST|SERVICE_PORT(_.+)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP).*)"
)


def _option(
    parse: Callable[[str], Any], default: Any, meaning: str, *, group: str, metavar: str = "", many: bool = False
) -> Any:
    metadata = {"parse": parse, "help": meaning, "group": group, "metavar": metavar, "many": many}
    return (
        field(default_factory=dict, metadata=metadata) if default == {} else field(default=default, metadata=metadata)
    )


_WHO = "Who this node is"
_WHERE = "Where the head is"
_WHAT = "What this node gives"
_RAY = "Ray's ports and folders"
_WHEN = "How long to wait"
_HOW = "How it behaves"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the user asked for, parsed and checked one by one; see :func:`load`."""

    # fmt: off
    role: str = _option(parsers.choice("auto", "head", "worker"), "auto", "auto: rank 0 is the head", group=_WHO, metavar="auto|head|worker")
    launcher: str = _option(parsers.text, "auto", "Take the identity from this launcher, such as slurm or kubernetes (docs/launchers.md)", group=_WHO, metavar="NAME")
    rank: int | None = _option(parsers.integer(0), None, "This node's rank, 0-based", group=_WHO, metavar="N")
    nodes: int | None = _option(parsers.integer(1), None, "How many nodes the run has", group=_WHO, metavar="N")
    min_nodes: int | None = _option(parsers.integer(1), None, "Start the workload with this many nodes after --last-call [default: all]", group=_WHO, metavar="N")
    run_id: str | None = _option(parsers.run_id, None, "Name of the run, the same on all its nodes and on no other's", group=_WHO, metavar="TEXT")
    attempt: int | None = _option(parsers.integer(0), None, "Which restart of the run this is", group=_WHO, metavar="N")

    head_address: str | None = _option(parsers.text, None, "The head's name or address, with the GCS port if it is not --gcs-port", group=_WHERE, metavar="HOST[:PORT]")
    rendezvous: str = _option(parsers.choice("auto", "static", "slurm", "dns", "file"), "auto", "How the head is found", group=_WHERE, metavar="auto|static|slurm|dns|file")
    shared_dir: str | None = _option(parsers.text, None, "Folder that all nodes see; means --rendezvous=file", group=_WHERE, metavar="DIR")
    rollcall_port: int | None = _option(parsers.port, None, "TCP port of the agents' own connection [default: from the run id, 20000-29999]", group=_WHERE, metavar="PORT")
    node_ip: str | None = _option(parsers.ip_address, None, "The address under which others reach this node", group=_WHERE, metavar="ADDRESS")
    interface: str | None = _option(parsers.text, None, "Take the address of this interface (NCCL_SOCKET_IFNAME's syntax)", group=_WHERE, metavar="NAME")
    hosts: str = _option(parsers.choice("auto", "require", "off"), "auto", "Make this node's name resolve to its address in /etc/hosts", group=_WHERE, metavar="auto|require|off")

    num_cpus: int | None = _option(parsers.integer(0), None, "CPUs for Ray [default: affinity, cgroup and grant]", group=_WHAT, metavar="N")
    num_gpus: str = _option(parsers.text, "auto", "GPUs for Ray [default: those that NVML shows and CUDA_VISIBLE_DEVICES allows]", group=_WHAT, metavar="auto|N")
    expect_gpus: int | None = _option(parsers.integer(0), None, "GPUs that every node must have", group=_WHAT, metavar="N")
    memory: int | None = _option(parsers.size, None, "Memory for Ray's tasks and actors", group=_WHAT, metavar="SIZE")
    object_store_memory: int | None = _option(parsers.size, None, "Memory for Ray's object store", group=_WHAT, metavar="SIZE")
    resources: Mapping[str, float] = _option(parsers.resources_json, {}, "Custom resources", group=_WHAT, metavar="JSON")
    labels: Mapping[str, str] = _option(parsers.labels, {}, "Node labels", group=_WHAT, metavar="K=V,...")

    gcs_port: int | None = _option(parsers.port, None, "[default: 6379, or a free one]", group=_RAY, metavar="PORT")
    dashboard_host: str = _option(parsers.text, "127.0.0.1", "Address on which the dashboard listens", group=_RAY, metavar="HOST")
    dashboard_port: int | None = _option(parsers.port, None, "[default: 8265, or a free one]", group=_RAY, metavar="PORT")
    ray_client_server_port: int | None = _option(parsers.port, None, "[default: 10001, or a free one]", group=_RAY, metavar="PORT")
    object_manager_port: int | None = _option(parsers.port, None, "[default: any free one]", group=_RAY, metavar="PORT")
    node_manager_port: int | None = _option(parsers.port, None, "[default: any free one]", group=_RAY, metavar="PORT")
    metrics_export_port: int | None = _option(parsers.port, None, "[default: any free one]", group=_RAY, metavar="PORT")
    dashboard_agent_listen_port: int | None = _option(parsers.port, None, "[default: 52365, or a free one]", group=_RAY, metavar="PORT")
    dashboard_agent_grpc_port: int | None = _option(parsers.port, None, "[default: any free one]", group=_RAY, metavar="PORT")
    runtime_env_agent_port: int | None = _option(parsers.port, None, "[default: any free one]", group=_RAY, metavar="PORT")
    min_worker_port: int | None = _option(parsers.port, None, "First port of Ray's worker processes [default: Ray's, 10002]", group=_RAY, metavar="PORT")
    max_worker_port: int | None = _option(parsers.port, None, "Last port of Ray's worker processes [default: Ray's, 19999]", group=_RAY, metavar="PORT")
    temp_dir: str | None = _option(parsers.text, None, "Ray's folder for sockets and logs, on a local disk [default: below /tmp/ray-bootstrap.<random>]", group=_RAY, metavar="DIR")
    log_dir: str | None = _option(parsers.text, None, "Copy Ray's logs here at the end, to <hash of the run id>/rank-<N>", group=_RAY, metavar="DIR")
    keep_logs: int = _option(parsers.integer(0), 5, "Keep Ray's logs of so many ended runs of this user on this node, the newest; 0 keeps all [default: 5]", group=_RAY, metavar="N")
    ray_start_arg: tuple[str, ...] = _option(parsers.text, (), "Passed to `ray start` as it is; may be repeated", group=_RAY, metavar="ARG", many=True)

    head_timeout: float = _option(parsers.duration_from(0.1), 600.0, "For a worker to find the head [default: 10m]", group=_WHEN, metavar="TIME")
    quorum_timeout: float = _option(parsers.duration_from(0.1), 600.0, "For the head to see enough nodes [default: 10m]", group=_WHEN, metavar="TIME")
    last_call: float = _option(parsers.duration, 30.0, "With --min-nodes: how long to wait for the rest once the least are there [default: 30s]", group=_WHEN, metavar="TIME")
    dashboard_wait: float = _option(parsers.duration, 0.0, "Start the workload only when the dashboard answers, which is a few seconds after Ray; how long to wait [default: 0s]", group=_WHEN, metavar="TIME")
    heartbeat_timeout: float = _option(parsers.duration_from(1), 10.0, "Silence after which a node counts as lost [default: 10s]", group=_WHEN, metavar="TIME")
    grace: float = _option(parsers.duration, 20.0, "Between SIGTERM and SIGKILL for the workload; less than the platform's own [default: 20s]", group=_WHEN, metavar="TIME")

    on_node_loss: str = _option(parsers.choice("warn", "fail"), "warn", "What a worker lost during the workload does to the run", group=_HOW, metavar="warn|fail")
    auth: str = _option(parsers.choice("auto", "off", "required"), "auto", "Token authentication between the nodes and of Ray itself", group=_HOW, metavar="auto|off|required")
    secret_file: str | None = _option(parsers.text, None, "File with the secret that the nodes share [default: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH]", group=_HOW, metavar="FILE")
    ignore_check: tuple[str, ...] = _option(parsers.text, (), "Report this preflight check's findings but go on; `check` lists their names; may be repeated", group=_HOW, metavar="NAME", many=True)
    log_format: str = _option(parsers.choice("text", "json"), "text", "Of our own lines on standard error", group=_HOW, metavar="text|json")
    result_file: str | None = _option(parsers.text, None, "Write how it ended here, as JSON [default in Kubernetes: /dev/termination-log]", group=_HOW, metavar="FILE")

    # fmt: on
    workload: tuple[str, ...] = ()
    """The command after ``--``; empty: the head stays until it is stopped."""


def flag(name: str) -> str:
    """``num_cpus`` → ``--num-cpus``."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """``num_cpus`` → ``RAY_BOOTSTRAP_NUM_CPUS``."""
    return PREFIX + name.upper()


def options() -> Iterator[dataclasses.Field[Any]]:
    """The fields of :class:`Settings` that are options, in the order of ``--help``."""
    return (f for f in dataclasses.fields(Settings) if f.metadata)


def load(
    flags: Mapping[str, Sequence[str]], env: Mapping[str, str], workload: Sequence[str] = (), faults: Sequence[str] = ()
) -> Settings:
    """Settings from the flags' texts (by field name, in order of appearance) and the environment; flags win.

    :param faults: what the command line already found wrong, to be told in the same answer.
    :raises UsageError: with every fault, of every option, at once.
    """
    found: list[str] = list(faults)
    chosen: dict[str, Any] = {}
    for option in options():
        texts, origin = flags.get(option.name, ()), flag(option.name)
        if not texts and env.get(variable(option.name)) and not _of_a_service(variable(option.name), env):
            raw, origin = env[variable(option.name)], variable(option.name)
            texts = raw.split() if option.metadata["many"] else [raw]
        if not texts:
            continue
        try:
            parsed = [option.metadata["parse"](item) for item in texts]
        except ValueError as error:
            found.append(f"{origin}={parsers.quoted(' '.join(texts))}: {error}")
            continue
        chosen[option.name] = tuple(parsed) if option.metadata["many"] else parsed[-1]
    settings = Settings(**chosen, workload=tuple(workload))
    found.extend(_impossible(settings))
    if found:
        raise UsageError(found)
    named = parsers.host_port(settings.head_address)[1] if settings.head_address else None
    return dataclasses.replace(settings, gcs_port=settings.gcs_port or named)


def _impossible(s: Settings) -> Iterator[str]:
    """Combinations that cannot work, each as one fault."""
    if s.num_gpus != "auto" and not (s.num_gpus.isascii() and s.num_gpus.isdecimal()):
        yield f"--num-gpus={s.num_gpus!r}: expected auto or a whole number of at least 0"
    if s.rank is not None and s.nodes is not None and s.rank >= s.nodes:
        yield f"--rank={s.rank} with --nodes={s.nodes}: ranks go from 0 to {s.nodes - 1}"
    if s.min_nodes is not None and s.nodes is not None and s.min_nodes > s.nodes:
        yield f"--min-nodes={s.min_nodes} is more than --nodes={s.nodes}"
    if s.role == "head" and s.rank:
        yield f"--role=head with --rank={s.rank}: the head is rank 0; give --role=worker or --rank=0"
    if s.role == "worker" and s.rank == 0:
        yield "--role=worker with --rank=0: rank 0 is the head; give --role=head or another rank"
    if s.rendezvous == "file" and s.shared_dir is None:
        yield "--rendezvous=file needs --shared-dir=DIR, a folder that all nodes see"
    if s.rendezvous == "static" and s.head_address is None:
        yield "--rendezvous=static needs --head-address=HOST[:PORT]"
    if s.head_address is not None:
        try:
            _, port = parsers.host_port(s.head_address)
        except ValueError as error:
            yield f"--head-address={s.head_address!r}: {error}"
        else:
            if port and s.gcs_port and port != s.gcs_port:
                yield f"--head-address={s.head_address} names another GCS port than --gcs-port={s.gcs_port}; give one of them"
    if (s.min_worker_port is None) != (s.max_worker_port is None):
        yield "--min-worker-port and --max-worker-port go together"
    elif s.min_worker_port and s.max_worker_port and s.min_worker_port > s.max_worker_port:
        yield f"--min-worker-port={s.min_worker_port} is above --max-worker-port={s.max_worker_port}"
    yield from _ports_taken_twice(s)
    yield from _owned_by_us(s.ray_start_arg)


def fixed_ports(s: Settings) -> dict[str, int]:
    """The ports that the user chose, by option name (the worker range is not among them)."""
    names = [f.name for f in options() if f.name.endswith("_port") and not f.name.endswith("worker_port")]
    return {name: port for name in names if (port := getattr(s, name)) is not None}


def _ports_taken_twice(s: Settings) -> Iterator[str]:
    seen: dict[int, str] = {}
    for name, port in fixed_ports(s).items():
        if port in seen:
            yield f"{flag(name)}={port} is also {flag(seen[port])}"
        seen[port] = name
        if s.min_worker_port and s.max_worker_port and s.min_worker_port <= port <= s.max_worker_port:
            yield f"{flag(name)}={port} lies in the workers' range {s.min_worker_port}-{s.max_worker_port}"


def _owned_by_us(extra: Sequence[str]) -> Iterator[str]:
    """Arguments of ``ray start`` that must not come from the side door."""
    ours = {"--head", "--block", "--address", "--port", "--node-ip-address", "--no-redirect-output"}
    ours |= {flag(f.name) for f in options() if f.metadata["group"] in (_WHAT, _RAY)}
    for arg in extra:
        name = arg.partition("=")[0]
        if name in ours:
            yield f"--ray-start-arg={arg}: {name} is decided by the agent or has an option of its own"


def _of_a_service(name: str, env: Mapping[str, str]) -> bool:
    """Whether Kubernetes set this variable, for a Service that is called like one of our options.

    Services ray-bootstrap-dashboard, -gcs and -rollcall put RAY_BOOTSTRAP_DASHBOARD_PORT=tcp://10.96.3.4:8265 and the
    like into every pod (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
    """
    link = _SERVICE_LINK.fullmatch(name)
    if link is None or f"{link['service']}_SERVICE_HOST" not in env:
        return False
    return link["rest"] != "PORT" or env[name].startswith(("tcp://", "udp://", "sctp://"))


def unknown_variables(env: Mapping[str, str]) -> list[str]:
    """A line for each variable that looks like a misspelt option.

    Not an error: a Kubernetes Service called ``ray-bootstrap`` puts RAY_BOOTSTRAP_PORT and others into every pod.
    """
    known = [f.name.upper() for f in options()]
    lines = []
    ours = (name for name in env if name.startswith(PREFIX) and not _of_a_service(name, env))
    for name in sorted(name.removeprefix(PREFIX) for name in ours):
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.75) if name not in known else []
        if close:
            lines.append(f"{PREFIX}{name} is not an option's variable; did you mean {PREFIX}{close[0]}?")
    return lines
