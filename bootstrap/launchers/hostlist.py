"""This node's place in a list of hosts, for launchers that list the nodes of a run but do not number them."""

import re
from collections.abc import Iterable, Sequence

from bootstrap import net
from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.launchers.row import Context, Facts

MOST_HOSTS = 1 << 16
"""Names that are read in a list with ranges; a corrupt one could stand for any number."""
_MOST_BYTES = 16 << 20
_SHOWN, _SHOWN_CHARACTERS = 4, 64
"""Names in an error message, and of each."""
_NO_NAME = re.compile(r"[\[\]@,;/\x00-\x20\x7f-\x9f]")
"""What no host's name and no address has: ranges, users, several names, control characters."""
_SLOTS = re.compile(r":[0-9]+$")
_ONE_A_LINE = "one name or address a line, without user, range or quotes"
_ALONE = "--launcher=local for this machine alone"


def unique(names: Iterable[str]) -> list[str]:
    """Return the names in order, each once: batch systems write one for each slot."""
    found: dict[str, str] = {}
    for name in filter(None, names):
        found.setdefault(name.rstrip(".").lower(), name.rstrip("."))
    return list(found.values())


def first_words(text: str) -> list[str]:
    """Return the hosts in a file that has one on each line.

    That is the format of ssh's loops, ``host slots=8`` that of Open MPI and DeepSpeed, ``host:8`` that of MPICH, and
    ``host 8 queue processors`` that of Grid Engine; ``#`` begins a comment.
    """
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return [words[0] if net.is_address(words[0]) else _SLOTS.sub("", words[0]) for words in lines if words]


def in_file(path: str | None, host: Host) -> list[str] | None:
    """Return the hosts that a file lists, one a line; None if there is no path, or no such file that can be read."""
    try:
        with host.path(path or "").open("rb") as file:  # a pipe, too, as of --hostfile <(...)
            return first_words(file.read(_MOST_BYTES).decode("utf-8-sig", errors="replace"))
    except OSError:
        return None


def by_rank(names: Iterable[str], source: str) -> Facts:
    """Return head and hosts from a list in the order of the ranks, or nothing if it is empty."""
    hosts = unique(names)
    return {"head": (hosts[0], source), "hosts": (" ".join(hosts), source)} if hosts else {}


def nodes(names: Iterable[str], source: str) -> Facts:
    """Return size, head and hosts from a list of all nodes, or nothing if it is empty.

    A list, and a variable that numbers its hosts, cannot tell a second process on a node from the first: the fact
    ``listed`` makes the agent take a lock (:mod:`bootstrap.files.claim`).
    """
    hosts = unique(names)
    facts = {"size": (str(len(hosts)), source), **by_rank(hosts, source)} if hosts else {}
    return {**facts, "listed": ("yes", source)} if len(hosts) > 1 else facts


def place(names: Sequence[str], source: str, context: Context, own: str | None = None) -> Facts:
    """Return rank, size, head and hosts from a list of all nodes, the head first.

    The rank is the index of the one entry that is this node.

    :param names: names, short or full, or addresses; each may appear several times.
    :param source: where the list comes from, for messages.
    :param own: this node's name in the list [default: its host name].
    :raises IdentityError: if the list is empty, names this machine's loopback beside other hosts, or if not exactly one
        of its entries is this node.
    """
    hosts, facts = unique(names), nodes(names, source)
    if not hosts:
        raise IdentityError(f"{source} lists no host", hint="--rank=N and --nodes=N on each node, or --hostfile=FILE")
    if strange := [host for host in hosts if _NO_NAME.search(host)]:
        raise IdentityError(f"{source} lists {_quoted(strange)}: expected a host's name or address", hint=_ONE_A_LINE)
    if context.settings.rank is not None:
        return facts
    if len(hosts) > 1 and any(map(net.is_loopback, hosts)):
        raise IdentityError(
            f"{source} lists {_quoted(hosts)}: on each node, loopback is that node itself",
            hint="a list with the names or addresses at which the other nodes reach each host",
        )
    found = _own(hosts, own or context.host.hostname, context)
    if len(found) != 1:
        what = f"both {found[0]} and {found[1]} are" if found else "none is"
        raise IdentityError(
            f"{source} lists {_quoted(hosts)}, and {what} this node ({own or context.host.hostname})",
            hint=f"a list with each host's name or address once; or --rank=N on each node; or {_ALONE}",
        )
    return {**facts, "rank": (str(hosts.index(found[0])), f"{found[0]} in {source}")}


def place_in_file(variable: str, hint: str, context: Context) -> Facts:
    """Return :func:`place` in the file that a variable names.

    :param hint: how to make it readable on all nodes.
    :raises IdentityError: if it cannot be read on this node, or for the same reasons.
    """
    path = context.host.get(variable)
    names = in_file(path, context.host)
    if names is None:
        unreadable = f"{variable}={path}: no such file on this node, or it cannot be read"
        raise IdentityError(unreadable if path else f"{variable} is not set", hint=hint)
    return place(names, f"{variable}={path}", context)


def no_task(sign: str, hosts: str, hint: str) -> IdentityError:
    """Return the error for a batch system's script, which runs on the first of several hosts.

    :param sign: what shows that this is not a task.
    :param hosts: how many hosts there are, and where that is said.
    :param hint: what starts a task on each host.
    """
    what = f"{sign}: this is the job's script, which runs on the first of {hosts} alone"
    return IdentityError(what, hint=f"{hint}   ({_ALONE})")


def same_place(found: Facts, place: Facts, source: str) -> Facts:
    """Return the place in the job's list, if the launcher, which may use a part of it, gave this node the same."""
    if any(found.get(word, place[word])[0] != place[word][0] for word in ("rank", "size")):
        said = ", ".join(f"{found[word][1]}={found[word][0]}" for word in ("rank", "size") if word in found)
        raise IdentityError(
            f"{said}, but in {source} this node is number {place['rank'][0]} of {place['size'][0]}: not on all hosts?",
            hint="--hostfile=FILE with the hosts that were started; or --nodes=N with --shared-dir=DIR",
        )
    return place


def _own(hosts: Sequence[str], name: str, context: Context) -> list[str]:
    """Return the entries that are this node: by its name, or as its address; if none is, by the names' addresses."""
    if len(hosts) == 1 and net.is_loopback(hosts[0]):
        return list(hosts)
    literal = [host for host in hosts if net.is_address(host)]
    named = [host for host in hosts if host not in literal]
    same = [host for host in named if host.lower() == name.lower()]
    same = same or [host for host in named if net.short_name(host) == net.short_name(name)]
    if same and not literal:
        return same
    own = net.without_zone(context.own_addresses())
    same += [host for host in literal if net.canonical(host) in own]
    return same or [host for host in named if any(a in own or net.is_loopback(a) for a in _addresses(host, context))]


def _addresses(host: str, context: Context) -> set[str]:
    """Return the addresses of a name; one of loopback is its own machine's (Debian's 127.0.1.1)."""
    try:
        return net.without_zone(context.resolve(host))
    except (OSError, UnicodeError):
        return set()


def _quoted(hosts: Sequence[str]) -> str:
    more = f", … ({len(hosts)} hosts)" if len(hosts) > _SHOWN else ""
    names = (host[:_SHOWN_CHARACTERS] for host in hosts[:_SHOWN])
    return f"{', '.join(name if name.isprintable() else repr(name) for name in names)}{more}"
