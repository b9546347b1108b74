"""The options: each one's flag, variable, default and meaning, all in one place.

A field of :class:`Settings` *is* an option: ``num_cpus`` is ``--num-cpus`` and ``RAY_BOOTSTRAP_NUM_CPUS``. The
command line, ``--help`` and the variables are all derived from the fields: to add an option, add a field.

``--help`` shows one default for each option that has one: :mod:`bootstrap.cli` appends that of a choice (a metavar with
``|``); the text of any other option ends with it.
"""

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bootstrap import parsers
from bootstrap.errors import UsageError

PREFIX = "RAY_BOOTSTRAP_"
SECRET = PREFIX + "SECRET"
"""A variable without an option, since everybody can read the arguments of a process."""
_SERVICE_LINK = re.compile(
    r"(?P<service>.+?)_(?P<rest>SERVICE_HOST|SERVICE_PORT(_.+)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP).*)"
)


def _option(
    parse: Callable[[str], Any],
    default: Any,
    meaning: str,
    *,
    group: str,
    metavar: str = "",
    many: bool = False,
    split: Callable[[str], Sequence[str]] = str.split,
) -> Any:
    """Declare an option; of ``many`` values, ``split`` tells them apart in its variable."""
    metadata = {"parse": parse, "help": meaning, "group": group, "metavar": metavar, "many": many, "split": split}
    return (
        field(default_factory=dict, metadata=metadata) if default == {} else field(default=default, metadata=metadata)
    )


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


_WHO = "Who this node is"
_WHERE = "Where the head is"
_WHAT = "What this node offers"
_RAY = "Ray's ports and folders"
_WHEN = "How long to wait"
_HOW = "How it behaves"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The user's options, each one parsed and checked; see :func:`load`."""

    # fmt: off
    role: str = _option(parsers.choice("auto", "head", "worker"), "auto", "Whether this node is the head; auto: rank 0 is", group=_WHO, metavar="auto|head|worker")
    launcher: str = _option(parsers.text, "auto", "Take the identity from this launcher, such as slurm or kubernetes (docs/launchers.md) [default: auto]", group=_WHO, metavar="NAME")
    rank: int | None = _option(parsers.integer(0), None, "This node's rank, 0-based [default: the launcher's]", group=_WHO, metavar="N")
    nodes: int | None = _option(parsers.integer(1), None, "How many nodes the run has [default: the launcher's]", group=_WHO, metavar="N")
    min_nodes: int | None = _option(parsers.integer(1), None, "Start the workload with this many nodes after --last-call [default: all]", group=_WHO, metavar="N")
    hostfile: str | None = _option(parsers.text, None, "File that lists all nodes, one name or address a line, the head first; a node's rank is its line, from 0 [default: the launcher's list]", group=_WHO, metavar="FILE")
    run_id: str | None = _option(parsers.run_id, None, "Name of the run, the same on all its nodes and different for every run [default: the launcher's]", group=_WHO, metavar="TEXT")
    attempt: int | None = _option(parsers.integer(0), None, "Which restart of the run this is, 0-based [default: the launcher's, or 0]", group=_WHO, metavar="N")

    head_address: str | None = _option(parsers.text, None, "The head's name or address, with the GCS port if it is not --gcs-port [default: the launcher's]", group=_WHERE, metavar="HOST[:PORT]")
    attach: str = _option(parsers.gcs_address, "auto", "Run the workload against the Ray whose GCS is at this address, and start none; auto: RAY_ADDRESS, unless a launcher or an option numbers nodes", group=_WHERE, metavar="auto|HOST:PORT")
    rendezvous: str = _option(parsers.choice("auto", "static", "slurm", "dns", "file"), "auto", "How to find the head", group=_WHERE, metavar="auto|static|slurm|dns|file")
    shared_dir: str | None = _option(parsers.text, None, "Folder that all nodes see; implies --rendezvous=file", group=_WHERE, metavar="DIR")
    rollcall_port: int | None = _option(parsers.port, None, "TCP port for the agents' connections to the head [default: derived from the run id, 20000-29999]", group=_WHERE, metavar="PORT")
    probe_port: int | None = _option(parsers.port, None, "TCP port on which the agents probe each other while the cluster comes up [default: any free one]", group=_WHERE, metavar="PORT")
    ready_port: int | None = _option(parsers.port, None, "TCP port that is open while this node's Ray runs and the cluster stands, from the quorum to the end: for a readiness probe [default: none]", group=_WHERE, metavar="PORT")
    node_ip: str | None = _option(parsers.ip_address, None, "Address at which the other nodes reach this one [default: POD_IP, or that of the route to the head]", group=_WHERE, metavar="ADDRESS")
    interface: str | None = _option(parsers.interface, None, "Take the node's address from this interface: a name, or NCCL_SOCKET_IFNAME's syntax, or a network such as 10.4.0.0/16 that holds the address, or a comma list of them [default: NCCL_SOCKET_IFNAME, or GLOO_SOCKET_IFNAME]", group=_WHERE, metavar="NAME|CIDR")
    hosts: str = _option(parsers.choice("auto", "require", "off"), "auto", "Make this node's name resolve to its address in /etc/hosts", group=_WHERE, metavar="auto|require|off")

    num_cpus: int | None = _option(parsers.integer(0), None, "CPUs for Ray [default: the minimum of affinity, cgroup and grant]", group=_WHAT, metavar="N")
    num_gpus: str = _option(parsers.text, "auto", "GPUs for Ray; auto: those that NVML shows and CUDA_VISIBLE_DEVICES allows", group=_WHAT, metavar="auto|N")
    head_cpus: int | None = _option(parsers.integer(0), None, "CPUs for Ray on the head, 0 for one that only leads; workers ignore it [default: --num-cpus]", group=_WHAT, metavar="N")
    head_gpus: int | None = _option(parsers.integer(0), None, "GPUs for Ray on the head; workers ignore it [default: --num-gpus]", group=_WHAT, metavar="N")
    head_resources: Mapping[str, float] = _option(parsers.resources_json, {}, "Custom resources for Ray on the head, such as {\"NPU\": 0} for none of those that Ray finds; it wins over --resources, which workers use alone [default: --resources]", group=_WHAT, metavar="JSON")
    expect_gpus: int | None = _option(parsers.integer(0), None, "GPUs that every node must have, the head no more than --head-gpus", group=_WHAT, metavar="N")
    expect_resources: Mapping[str, float] = _option(parsers.amounts_json, {}, "What Ray must offer on every node before the workload starts, such as {\"NPU\": 8}; on the head no more than --head-resources, --head-cpus and --head-gpus give it", group=_WHAT, metavar="JSON")
    memory: int | None = _option(parsers.size, None, "Memory for Ray's tasks and actors [default: all but the object store's]", group=_WHAT, metavar="SIZE")
    object_store_memory: int | None = _option(parsers.size, None, "Memory for Ray's object store [default: 30% of the node's, if /dev/shm has room]", group=_WHAT, metavar="SIZE")
    resources: Mapping[str, float] = _option(parsers.resources_json, {}, "Custom resources for Ray, besides the GPUs' product names", group=_WHAT, metavar="JSON")
    labels: Mapping[str, str] = _option(parsers.labels, {}, "Labels of this node in Ray", group=_WHAT, metavar="K=V,...")

    gcs_port: int | None = _option(parsers.port, None, "TCP port of GCS on the head [default: 6379, or a free one]", group=_RAY, metavar="PORT")
    dashboard_host: str = _option(parsers.text, "127.0.0.1", "Address on which the dashboard listens [default: 127.0.0.1]", group=_RAY, metavar="HOST")
    dashboard_port: int | None = _option(parsers.port, None, "TCP port of the dashboard on the head [default: 8265, or a free one]", group=_RAY, metavar="PORT")
    ray_client_server_port: int | None = _option(parsers.port, None, "TCP port of the Ray Client server on the head [default: 10001, or a free one]", group=_RAY, metavar="PORT")
    object_manager_port: int | None = _option(parsers.port, None, "TCP port for objects that other nodes fetch [default: any free one]", group=_RAY, metavar="PORT")
    node_manager_port: int | None = _option(parsers.port, None, "TCP port of the raylet [default: any free one]", group=_RAY, metavar="PORT")
    metrics_export_port: int | None = _option(parsers.port, None, "TCP port for metrics in Prometheus' format [default: any free one]", group=_RAY, metavar="PORT")
    dashboard_agent_listen_port: int | None = _option(parsers.port, None, "TCP port of the dashboard agent (HTTP) [default: 52365, or a free one]", group=_RAY, metavar="PORT")
    dashboard_agent_grpc_port: int | None = _option(parsers.port, None, "TCP port of the dashboard agent (gRPC) [default: any free one]", group=_RAY, metavar="PORT")
    runtime_env_agent_port: int | None = _option(parsers.port, None, "TCP port of the runtime environment agent [default: any free one]", group=_RAY, metavar="PORT")
    min_worker_port: int | None = _option(parsers.port, None, "First port of Ray's worker processes [default: 10002, or that of another range if the kernel hands out ports of 10002-19999]", group=_RAY, metavar="PORT")
    max_worker_port: int | None = _option(parsers.port, None, "Last port of Ray's worker processes [default: 19999, or as for --min-worker-port]", group=_RAY, metavar="PORT")
    temp_dir: str | None = _option(parsers.text, None, "Ray's folder for sockets and logs, on a local disk; DIR/<random>/ray if other users can enter every folder above DIR [default: below /tmp/ray-bootstrap.<random>]", group=_RAY, metavar="DIR")
    log_dir: str | None = _option(parsers.text, None, "Copy Ray's logs to <hash of the run id>/rank-<N> in this folder at the end, with modes by the umask", group=_RAY, metavar="DIR")
    keep_logs: int = _option(parsers.integer(0), 5, "Number of earlier runs of this user, the newest ones, whose Ray logs stay on this node; 0 keeps all [default: 5]", group=_RAY, metavar="N")
    ray_start_arg: tuple[str, ...] = _option(parsers.text, (), "Pass this argument to `ray start`; may be repeated", group=_RAY, metavar="ARG", many=True)

    head_timeout: float = _option(parsers.duration_from(0.1), 600.0, "How long a worker searches for the head, or an attached run for its Ray [default: 10m]", group=_WHEN, metavar="TIME")
    quorum_timeout: float = _option(parsers.duration_from(0.1), 600.0, "How long the head, or an attached run, waits for enough nodes [default: 10m]", group=_WHEN, metavar="TIME")
    last_call: float = _option(parsers.duration, 30.0, "How long the head waits for more nodes once --min-nodes are ready [default: 30s]", group=_WHEN, metavar="TIME")
    dashboard_wait: float | None = _option(parsers.duration_or_auto, None, "How long the workload's start waits until the dashboard takes jobs, a few seconds after Ray is up; or the run ends (69). auto: up to 60s, then on without, if `ray job`, `ray list` or the like, `serve deploy` or JobSubmissionClient stands in the workload's command line or in a script that it names, or there is no workload [default: auto]", group=_WHEN, metavar="auto|TIME")
    heartbeat_timeout: float = _option(parsers.duration_from(1), 10.0, "Silence after which a node counts as lost [default: 10s]", group=_WHEN, metavar="TIME")
    isolation_timeout: float | None = _option(parsers.duration_or_off(1), None, "How long a head goes on without any worker after the last one fell silent, before the run ends (76); off: to the end [default: 60s where the launcher starts a lost run anew, else off]", group=_WHEN, metavar="TIME|off")
    late_wait: float = _option(parsers.duration, 60.0, "How long a head that ends early stays to tell nodes that come late why, its Ray gone; at most --grace after SIGTERM; not after --quorum-timeout or Ctrl-C, nor with a shared folder; 0: not at all [default: 60s]", group=_WHEN, metavar="TIME")
    grace: float = _option(parsers.duration, 20.0, "Time between SIGTERM and SIGKILL for the workload; keep it below the platform's [default: 20s]", group=_WHEN, metavar="TIME")

    setup: tuple[str, ...] = _option(parsers.text, (), "Run this command by /bin/sh on every node before its Ray, where NAME=value lines that it writes to the file $RAY_BOOTSTRAP_ENV reach Ray (docs/workload.md); may be repeated, in the variable one command a line", group=_HOW, metavar="CMD", many=True, split=_lines)
    setup_again: str = _option(parsers.choice("no", "yes"), "no", "Repeat the commands of --setup in a later attempt of the run on a node where they succeeded", group=_HOW, metavar="no|yes")
    on_node_loss: str = _option(parsers.choice("warn", "fail"), "warn", "What to do if a worker is lost while the workload runs", group=_HOW, metavar="warn|fail")
    replaced_nodes: str | None = _option(parsers.choice("all", "stopped", "none"), None, "Which nodes that are lost before the workload starts another one replaces: all, those that a signal has stopped, or none; the loss of any other ends the run at once, if it needs all nodes [default: none under srun and mpirun, else all]", group=_HOW, metavar="all|stopped|none")
    auth: str = _option(parsers.choice("auto", "off", "required"), "auto", "Authenticate agents, and Ray by token: auto, where the nodes share a secret; required, or refuse to run; off, never", group=_HOW, metavar="auto|off|required")
    secret_file: str | None = _option(parsers.text, None, "File with the secret that the nodes share; it wins over RAY_BOOTSTRAP_SECRET [default: a generated one, where there is a way to share it]", group=_HOW, metavar="FILE")
    tls: str = _option(parsers.choice("off", "auto", "required"), "off", "TLS for Ray's connections, with certificates made for the run; auto: if the nodes share a secret", group=_HOW, metavar="off|auto|required")
    ignore_check: tuple[str, ...] = _option(parsers.text, (), "Report the findings of this preflight check but go on (`ray-bootstrap check` lists the names); may be repeated", group=_HOW, metavar="NAME", many=True)
    framework_env: str = _option(parsers.choice("auto", "off"), "auto", "Set what frameworks look for in the environment, unless it is set: MASTER_ADDR, VLLM_HOST_IP, *_SOCKET_IFNAME, no_proxy (docs/workload.md)", group=_HOW, metavar="auto|off")
    log_format: str = _option(parsers.choice("text", "json"), "text", "Format of the agent's lines on standard error", group=_HOW, metavar="text|json")
    result_file: str | None = _option(parsers.text, None, "Write how the run ended to this file, as JSON [default: /dev/termination-log in Kubernetes]", group=_HOW, metavar="FILE")
    trace: str | None = _option(parsers.text, None, "On the head, write the phases of all nodes to this file, at the quorum and at the end, in Chrome's trace format (docs/trace.md); on a worker, report its own to the head [default: none]", group=_HOW, metavar="FILE")
    metrics_file: str | None = _option(parsers.text, None, "Write the state of this node to this file, in Prometheus' text format, at each change (docs/metrics.md) [default: none]", group=_HOW, metavar="FILE")

    # fmt: on
    workload: tuple[str, ...] = ()
    """The command after ``--``; empty: the cluster stays until it is stopped."""


def flag(name: str) -> str:
    """Return ``--num-cpus`` for ``num_cpus``."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """Return ``RAY_BOOTSTRAP_NUM_CPUS`` for ``num_cpus``."""
    return PREFIX + name.upper()


def options() -> Iterator[dataclasses.Field[Any]]:
    """Return the fields of :class:`Settings` that are options, in the order of ``--help``."""
    return (f for f in dataclasses.fields(Settings) if f.metadata)


def load(
    flags: Mapping[str, Sequence[str]], env: Mapping[str, str], workload: Sequence[str] = (), faults: Sequence[str] = ()
) -> Settings:
    """Return the settings from flags and environment; flags win.

    :param flags: the texts given for each option, by field name, in order of appearance.
    :param faults: what the command line found wrong; the error lists it too.
    :raises UsageError: if there is any fault; it lists the faults of all options.
    """
    found: list[str] = list(faults)
    chosen: dict[str, Any] = {}
    for option in options():
        texts, origin = flags.get(option.name, ()), flag(option.name)
        if not texts and env.get(variable(option.name)) and not _of_a_service(variable(option.name), env):
            raw, origin = env[variable(option.name)], variable(option.name)
            texts = option.metadata["split"](raw) if option.metadata["many"] else [raw]
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
    """Yield a fault for each combination that cannot work."""
    if s.num_gpus != "auto" and not (s.num_gpus.isascii() and s.num_gpus.isdecimal()):
        yield f"--num-gpus={s.num_gpus!r}: expected auto or a whole number of at least 0"
    if s.expect_gpus is not None and s.expect_resources.get("GPU", s.expect_gpus) != s.expect_gpus:
        named = s.expect_resources["GPU"]
        yield f"--expect-gpus={s.expect_gpus} and --expect-resources with {named:g} of 'GPU' differ; give only one"
    if s.rank is not None and s.nodes is not None and s.rank >= s.nodes:
        yield f"--rank={s.rank} with --nodes={s.nodes}: ranks go from 0 to {s.nodes - 1}"
    if s.min_nodes is not None and s.nodes is not None and s.min_nodes > s.nodes:
        yield f"--min-nodes={s.min_nodes} is more than --nodes={s.nodes}"
    if s.role == "head" and s.rank:
        yield f"--role=head with --rank={s.rank}: the head has rank 0; give --role=worker or --rank=0"
    if s.role == "worker" and s.rank == 0:
        yield "--role=worker with --rank=0: rank 0 is the head's; give --role=head or another rank"
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
                yield f"--head-address={s.head_address} and --gcs-port={s.gcs_port} name different ports; give only one"
    if s.tls == "required" and s.auth == "off":
        yield "--tls=required with --auth=off: only nodes that prove they know a secret get a certificate; leave one out"
    if (s.min_worker_port is None) != (s.max_worker_port is None):
        yield "--min-worker-port and --max-worker-port go together; give both or neither"
    elif s.min_worker_port and s.max_worker_port and s.min_worker_port > s.max_worker_port:
        yield f"--min-worker-port={s.min_worker_port} is above --max-worker-port={s.max_worker_port}"
    yield from _ports_taken_twice(s)
    yield from _owned_by_us(s.ray_start_arg)


def fixed_ports(s: Settings) -> dict[str, int]:
    """Return the ports that the user chose, by field name, without the range for Ray's workers."""
    names = [f.name for f in options() if f.name.endswith("_port") and not f.name.endswith("worker_port")]
    return {name: port for name in names if (port := getattr(s, name)) is not None}


def _ports_taken_twice(s: Settings) -> Iterator[str]:
    seen: dict[int, str] = {}
    for name, port in fixed_ports(s).items():
        if port in seen:
            yield f"{flag(name)}={port} is also {flag(seen[port])}; give each its own port"
        seen[port] = name
        if s.min_worker_port and s.max_worker_port and s.min_worker_port <= port <= s.max_worker_port:
            yield f"{flag(name)}={port} is inside the range of Ray's workers, {s.min_worker_port}-{s.max_worker_port}"


def _owned_by_us(extra: Sequence[str]) -> Iterator[str]:
    """Yield a fault for each argument of ``ray start`` that would bypass the agent's options."""
    ours = {"--head", "--block", "--address", "--port", "--node-ip-address", "--no-redirect-output"}
    ours |= {flag(f.name) for f in options() if f.metadata["group"] in (_WHAT, _RAY)}
    for arg in extra:
        name = arg.partition("=")[0]
        if name in ours:
            yield f"--ray-start-arg={arg}: the agent passes {name} itself; use the agent's option for it, if there is one"


def _of_a_service(name: str, env: Mapping[str, str]) -> bool:
    """Return whether Kubernetes set this variable, for a Service whose name resembles an option's.

    Services ray-bootstrap-dashboard, -gcs and -rollcall put RAY_BOOTSTRAP_DASHBOARD_PORT=tcp://10.96.3.4:8265 and the
    like into every pod (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
    """
    link = _SERVICE_LINK.fullmatch(name)
    if link is None or f"{link['service']}_SERVICE_HOST" not in env:
        return False
    return link["rest"] != "PORT" or env[name].startswith(("tcp://", "udp://", "sctp://"))


def unknown_variables(env: Mapping[str, str]) -> list[str]:
    """Return a line for each variable that looks like a misspelt option.

    This is not an error: a Kubernetes Service called ``ray-bootstrap`` puts RAY_BOOTSTRAP_PORT and others into every
    pod.
    """
    known = [*(f.name.upper() for f in options()), SECRET.removeprefix(PREFIX)]
    lines = []
    ours = (name for name in env if name.startswith(PREFIX) and not _of_a_service(name, env))
    for name in sorted(name.removeprefix(PREFIX) for name in ours):
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.75) if name not in known else []
        if close:
            lines.append(f"{PREFIX}{name} is not an option's variable; did you mean {PREFIX}{close[0]}?")
    return lines
