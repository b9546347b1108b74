"""What a rehearsal starts: each node's command line and environment."""

import dataclasses
import difflib
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bootstrap import parsers
from bootstrap.errors import UsageError
from bootstrap.host import Host
from bootstrap.launchers import LAUNCHERS
from bootstrap.launchers.environments import foreign
from bootstrap.launchers.place import Place, Surroundings
from bootstrap.launchers.row import Launcher
from bootstrap.node.gpus import VISIBLE
from bootstrap.node.resources import measure
from bootstrap.rehearsal import faults
from bootstrap.rehearsal.faults import Faults
from bootstrap.settings import SECRET, Settings, flag, variable
from bootstrap.switches import Switches

_PATIENCE_S = 180.0
"""Default of ``--head-timeout`` and ``--quorum-timeout`` of a rehearsal, on top of what ``--late`` asks for."""
MOST = 200
"""Nodes."""
_OURS = ("role", "launcher", "rank", "hostfile", "head_address", "attach", "node_ip", "interface", "result_file")
"""Options that say who or where a node is: a rehearsal gives each node its own."""


@dataclass(frozen=True)
class Plan:
    """A rehearsal, before anything has been started."""

    settings: Settings
    host: Host
    options: Sequence[str]
    """The user's options, which every agent gets."""
    nodes: int
    run: str
    label: str
    """The run's name for launchers, some of which make host names of it: a DNS label."""
    secret: str
    """The nodes' shared secret, which a Secret of Kubernetes or a file gives them in production."""
    faults: Faults
    cpus: int
    memory: int
    """Each node's share of this machine's CPUs and memory, in bytes."""
    gpus: int | None = None
    """Pretended GPUs of each node; None leaves them to the options."""
    row: Launcher | None = None
    """The launcher whose environment the nodes have."""

    @property
    def named(self) -> dict[str, Path]:
        """Return the folders that the options and the workload name, each by what names it."""
        s, named = self.settings, {}
        for name in ("trace", "metrics_file", "secret_file"):
            if (file := getattr(s, name)) is not None:
                named[f"{flag(name)}={file}"] = Path(file).absolute().parent
        for name in ("log_dir", "shared_dir"):
            if (folder := getattr(s, name)) is not None:
                named[f"{flag(name)}={folder}"] = Path(folder).absolute()
        # Unlike Path.is_file(), this is False of a script in the command line, which may be too long for a path.
        scripts = filter(os.path.isfile, s.workload)
        return named | {f"{script} in the workload": Path(script).absolute().parent for script in scripts}

    @property
    def folders(self) -> Iterator[str]:
        """Yield the folders that nodes must see even if they are below /tmp or /run, of which each host has its own."""
        program = Path(sys.argv[0]).resolve().parent
        yield from map(str, (Path.cwd(), sys.prefix, sys.base_prefix, program, Path(__file__).parents[2]))
        # What the workload names may be a file that it is to write.
        words = (os.path.dirname(os.path.abspath(word)) for word in self.settings.workload)  # noqa: PTH100, PTH120
        yield from filter(os.path.isdir, [*words, *map(str, self.named.values()), self.host.get("HOME") or ""])

    def surroundings(self, rank: int, names: Sequence[str], addresses: Sequence[str]) -> Surroundings:
        """Return what the launcher sets on a node; without a launcher, the options with its rank and its head."""
        if self.row is not None and self.row.environment is not None:
            place = Place(rank, tuple(names), tuple(addresses), self.label, cpus=self.cpus, gpus=self.gpus or 0)
            return self.row.environment(place)
        s = self.settings
        head = [] if s.shared_dir else [f"--head-address={names[0] if s.rendezvous == 'dns' else addresses[0]}"]
        numbered = (f"--rank={rank}", f"--nodes={self.nodes}", f"--run-id={self.run}")
        return Surroundings({}, options=(*numbered, *head))

    def command(self, rank: int, place: Surroundings, options: Sequence[str] = ()) -> list[str]:
        """Return an agent's command line.

        :param options: what this kind of node needs in addition.
        """
        own = Path(sys.argv[0])
        program = [str(own.resolve())] if own.name == "ray-bootstrap" else ["-m", "bootstrap"]
        more = list(options)
        if self.gpus is not None:
            more.append(f"--num-gpus={self.gpus}")
        if self.settings.metrics_file:
            file = Path(self.settings.metrics_file)
            more.append(f"--metrics-file={file.with_name(f'{file.stem}-{rank}{file.suffix}')}")
        workload = ["--", *self.settings.workload] if self.settings.workload else []
        return [sys.executable, *program, *place.options, *self.options, *more, *workload]

    def environment(self, place: Surroundings) -> dict[str, str]:
        """Return an agent's environment: the user's, with this launcher's variables in place of any other's."""
        env = self.host.env
        gone = foreign(env) | ({VISIBLE} if self.gpus is not None else frozenset())  # it names real ones
        kept = {name: value for name, value in env.items() if name not in gone}
        store = self.memory * 3 // 10  # Ray's own share of a node's memory
        share: dict[str, object] = {
            "num_cpus": self.cpus,
            "num_gpus": 0,
            "object_store_memory": store,
            "memory": self.memory // 2,
        }
        if self.row is None:
            share["replaced_nodes"] = "none"  # as under srun: no other node comes
        # All nodes are here: who has not come after a while will not.
        limit = _PATIENCE_S + max((late.seconds for late in self.faults.of_nodes if late.kind == "late"), default=0.0)
        share |= {"head_timeout": limit, "quorum_timeout": limit}
        defaults = {variable(name): str(value) for name, value in share.items()}
        if self.settings.auth != "off" and not self.settings.secret_file:
            defaults[SECRET] = self.secret
        return {**defaults, **kept, **place.env}


def make(settings: Settings, host: Host, switches: Switches) -> Plan:
    """Return the plan that the options and switches ask for.

    :raises UsageError: with everything that is wrong.
    """
    wrong = list(_impossible(settings))
    row = _row(switches.as_launcher)
    nodes = settings.nodes or 2
    if wrong:
        raise UsageError(wrong, hint="docs/rehearsal.md has what a rehearsal gives each node itself")
    given = {kind: getattr(switches, kind) for kind in faults.FORMS}
    given["hosts-file"] = (switches.hosts_file,) if switches.hosts_file else ()
    timetable = faults.load(given, switches.faults, nodes)
    machine = measure(dataclasses.replace(settings, num_cpus=None, head_cpus=None, num_gpus="0"), host)
    share = (max(1, machine.cpus // nodes), machine.memory // nodes)
    unique = secrets.token_hex(3)
    run, label = settings.run_id or f"rehearsal-{unique}", f"job-{unique}"
    secret = secrets.token_hex(32)
    return Plan(settings, host, switches.options, nodes, run, label, secret, timetable, *share, switches.gpus, row)


def _impossible(settings: Settings) -> Iterator[str]:
    default = Settings()
    for name in _OURS:
        if (value := getattr(settings, name)) != getattr(default, name):
            yield f"{flag(name)}={value} with rehearse: it would be the same on all nodes; leave it out"
    if settings.nodes is not None and settings.nodes > MOST:
        yield f"--nodes={settings.nodes}: a rehearsal has at most {MOST} nodes; give --nodes={MOST} or fewer"


def _row(name: str | None) -> Launcher | None:
    rows = {row.name: row for row in LAUNCHERS if row.environment is not None}
    if name is not None and name not in rows:
        close = difflib.get_close_matches(name, rows, n=1)
        hint = f"--as={close[0]}" if close else "docs/launchers.md has them"
        raise UsageError([f"--as={parsers.quoted(name)}: expected one of {', '.join(rows)}"], hint=hint)
    return rows.get(name or "")
