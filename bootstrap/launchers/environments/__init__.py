"""What each launcher puts around a node, for rehearsals: a text in this folder for each row of the launchers' table.

``slurm.ini`` is that of the row ``slurm``; those without a row, such as ``pod.ini``, lie beneath others. A text has
its sources in comments (``;``), and these sections:

``[node]``
    ``beneath``: texts that this one adds to, and whose values it replaces. ``name``: the nodes' host name, ``first``:
    that of rank 0 where it has another pattern. ``options``: what users have to give to the agent. ``domain``: that of
    a Kubernetes namespace, in which each node's name is a Service, or with ``subdomain`` the pods of that one.
``[environment]``, ``[workers]``, ``[restarted]``, ``[each]``
    Variables: of all nodes; of all but rank 0; of attempts after the first; on every node, one for each node.
``[file PATH]``, ``[program NAME]``
    ``text``: of a file, or what a command prints. A file lies where a host of namespaces has a folder of its own
    (``/run``, ``/tmp``, ``{shared}``), but for ``/etc/hosts`` and what a program looks for at one path alone: all other
    folders are the machine's.

Everything is a template of :meth:`str.format`, with these fields and what the row's ``fields`` computes:

``rank``, ``name``, ``address``
    This node's; in ``[each]`` each node's in turn. ``number`` and ``before`` are the rank plus and minus 1, ``link`` is
    the name of a Service in the variables of Kubernetes.
``names``, ``addresses``
    Of all nodes by rank. ``{names[0]}`` is the head's, ``{names:,}`` has commas between them, ``{names: slots=8\\n}``
    that text. ``nodelist``: the names as Slurm writes them, ``node-[0-3]``. ``size``: their number. ``last``: the last
    rank.
``run``, ``attempt``, ``shared``, ``cpus``, ``gpus``
    Of the :class:`~bootstrap.launchers.place.Place`; ``tries`` is the attempt plus 1. ``job``, ``uuid`` and ``hex``
    stand for the run, too, where a launcher has a number, a UUID or hexadecimal digits: ``{hex:.16}`` for 16 of them.
``all_gpus``, ``slots``, ``gpus_by_rank``, ``processes``, ``all_processes``
    The GPUs of all nodes, the indices of this one's, the number of each node, and processes with one GPU each.
``in_hosts``
    The pod's names in its ``/etc/hosts``.
"""

import configparser
import functools
import hashlib
import re
import string
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bootstrap.host import Host
from bootstrap.launchers import unknown
from bootstrap.launchers.place import Place, Surroundings
from bootstrap.launchers.row import Launcher
from bootstrap.launchers.table import LAUNCHERS

_FOLDER = Path(__file__).parent
_ENVIRONMENT, _WORKERS, _RESTARTED, _EACH = "environment", "workers", "restarted", "each"
_OF_THIS_MACHINE = re.compile("POD_IP|.*_SOCKET_IFNAME")
"""Variables with an address or interface of the machine, which a rehearsal's nodes lack."""
_USERS = re.compile(
    "HOSTNAME|TMP|TMPDIR|LD_LIBRARY_PATH|OMP_NUM_THREADS|PYTHONUNBUFFERED|AWS_(DEFAULT_)?REGION|AWS_CONTAINER_.*"
)
"""Variables that launchers set, but users do, too, for reasons of their own."""


class _Joined(tuple):  # type: ignore[type-arg]
    """Texts that a format joins: ``{names:,}``; ``\\n`` in it is a new line."""

    __slots__ = ()

    def __format__(self, between: str) -> str:
        return between.replace("\\n", "\n").join(self)


def has(row: str) -> bool:
    """Return whether a row's launcher can be rehearsed: those that stand for options, or for a Ray, cannot."""
    return (_FOLDER / f"{row}.ini").is_file()


def names(row: str, size: int, run: str) -> tuple[str, ...]:
    """Return the host names by rank that this launcher gives the nodes of a run.

    :raises ValueError: if the row has no environment.
    """
    node = _text(row)["node"]
    patterns = [node.get("first", node["name"]), *[node["name"]] * (size - 1)]
    return tuple(
        pattern.format(rank=rank, number=rank + 1, before=rank - 1, run=run) for rank, pattern in enumerate(patterns)
    )


def dns(row: str, names: Sequence[str], addresses: Sequence[str], run: str) -> Mapping[str, tuple[str, ...]]:
    """Return what the name server of the launcher's platform knows: name → addresses; nothing without one.

    In Kubernetes each name is there in all forms that a pod's search path allows
    (https://kubernetes.io/docs/concepts/services-networking/dns-pod-service).
    """
    node = _text(row)["node"]
    domain, subdomain = node.get("domain", ""), node.get("subdomain", "").format(run=run)
    if not domain:
        return {}
    namespace = domain.partition(".")[0]
    known: dict[str, tuple[str, ...]] = {}
    known |= {f"{name}.{subdomain}".rstrip("."): (address,) for name, address in zip(names, addresses, strict=True)}
    if subdomain:
        known[subdomain] = tuple(addresses)
    ends = ("", f".{namespace}", f".{namespace}.svc", f".{domain}")
    return {f"{name}{end}": held for name, held in known.items() for end in ends}


def surroundings(row: Launcher, place: Place) -> Surroundings:
    """Return what the launcher of a row puts around this node.

    :raises ValueError: if the row has no environment.
    """
    text = _text(row.name)
    fields = _fields(place, text["node"]) | (dict(row.fields(place)) if row.fields else {})
    sections = [(_ENVIRONMENT, True), (_WORKERS, place.rank > 0), (_RESTARTED, place.attempt > 0)]
    applied = [text[name] for name, applies in sections if applies and text.has_section(name)]
    env = {name: value.format_map(fields) for section in applied for name, value in section.items()}
    for rank in range(len(place.names)) if text.has_section(_EACH) else ():
        its = fields | _of_node(rank, place)
        env |= {name.format_map(its): value.format_map(its) for name, value in text[_EACH].items()}
    return Surroundings(
        env,
        files={name: f"{content}\n" for name, content in _texts("file", text, fields).items()},
        programs=_texts("program", text, fields),
        options=tuple(option.format_map(fields) for option in text["node"].get("options", "").split()),
    )


def foreign(env: Mapping[str, str]) -> frozenset[str]:
    """Return the variables that a launcher has set in this environment, or that belong to this machine.

    They are those that rows read, that these texts set, or that number or count the nodes of some unknown platform.
    """
    seen = {each.partition("=")[0] for each in unknown.seen(Host(env, ""))}
    set_by_launchers = {name for name in _of_launchers() & env.keys() if not _USERS.fullmatch(name)}
    return frozenset({*seen, *set_by_launchers, *filter(_OF_THIS_MACHINE.fullmatch, env)})


def _of_launchers() -> frozenset[str]:
    """Return the names of the variables that rows read or texts set, without those that have a node's number."""
    words = ("any_of", "all_of", "none_of", "rank", "size", "head", "attempt", "run_id", "run_name", "nodes")
    read = [entry for row in LAUNCHERS for word in (*words, "local_rank", "local_size") for entry in getattr(row, word)]
    parsed = (part for entry in read for part in string.Formatter().parse(entry))
    names = {name or literal for literal, name, _, _ in parsed}
    files = [_text(path.stem) for path in _FOLDER.glob("*.ini")]
    sections = (_ENVIRONMENT, _WORKERS, _RESTARTED)
    return frozenset(names.union(*(text[name] for text in files for name in sections if text.has_section(name))))


@functools.cache
def _text(name: str) -> configparser.ConfigParser:
    """Return a text, with what lies beneath it. :raises ValueError: if there is none of this name."""
    if not has(name):
        raise ValueError(f"launcher {name} has no environment")
    beneath = _read(name).get("node", "beneath", fallback="").split()
    return _read(*beneath, name)


def _read(*names: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(
        delimiters=("=",), comment_prefixes=(";",), interpolation=None, empty_lines_in_values=False
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    for name in names:
        parser.read_string((_FOLDER / f"{name}.ini").read_text(encoding="utf-8"), name)
    return parser


def _texts(kind: str, text: configparser.ConfigParser, fields: Mapping[str, Any]) -> dict[str, str]:
    """Return the name of each section of a kind, and the text in it."""
    found = {name.removeprefix(f"{kind} "): text[name] for name in text.sections() if name.startswith(f"{kind} ")}
    return {name.format_map(fields): section["text"].format_map(fields) for name, section in found.items()}


def ids(run: str) -> dict[str, str]:
    """Return the fields that stand for a run in values that cannot be its name."""
    digest = hashlib.sha256(run.encode()).hexdigest()
    number = int(digest[:8], 16) % 900000 + 100000
    return {"job": str(number), "uuid": str(uuid.UUID(digest[:32], version=4)), "hex": digest[32:]}


def _fields(place: Place, node: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of the texts on this node."""
    size, processes = len(place.names), max(place.gpus, 1)
    subdomain, name = node.get("subdomain", "").format(run=place.run), place.names[place.rank]
    return {
        **_of_node(place.rank, place),
        **ids(place.run),
        "size": size,
        "last": size - 1,
        "names": _Joined(place.names),
        "addresses": _Joined(place.addresses),
        "nodelist": nodelist(place.names),
        "run": place.run,
        "attempt": place.attempt,
        "tries": place.attempt + 1,
        "shared": place.shared,
        "cpus": place.cpus,
        "gpus": place.gpus,
        "all_gpus": place.gpus * size,
        "slots": _Joined(map(str, range(place.gpus))),
        "gpus_by_rank": _Joined([str(place.gpus)] * size),
        "processes": processes,
        "all_processes": processes * size,
        # with a subdomain its domain first (kubelet_pods.go, hostsEntry)
        "in_hosts": f"{name}.{subdomain}.{node['domain']}\t{name}" if subdomain else name,
    }


def _of_node(rank: int, place: Place) -> dict[str, Any]:
    return {
        "rank": rank,
        "number": rank + 1,
        "before": rank - 1,
        "name": place.names[rank],
        "address": place.addresses[rank],
        "link": place.names[rank].upper().replace("-", "_"),  # a Service's name in variables
    }


def nodelist(names: Sequence[str]) -> str:
    """Return a list of hosts as Slurm writes it: ``node-[0-3]``, or with commas where they are not in sequence."""
    found = [re.fullmatch(r"(.*?)([0-9]+)", name) for name in names]
    pairs = [(match[1], match[2]) for match in found if match]
    first = pairs[0] if pairs else ("", "")
    expected = [f"{first[0]}{int(first[1] or 0) + place:0{len(first[1])}d}" for place in range(len(names))]
    if len(names) == 1 or expected != list(names):
        return ",".join(names)
    return f"{first[0]}[{first[1]}-{pairs[-1][1]}]"
