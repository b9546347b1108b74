"""This node's place in a list of hosts, for launchers that list the nodes of a run but do not number them."""

import re
from collections.abc import Iterable, Sequence
from itertools import islice

from bootstrap import net
from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.launchers.row import Context, Facts

MOST_HOSTS = 1 << 16
"""Names in a list that are read; a corrupt variable could stand for any number."""
_SHOWN = 4
"""Names in an error message."""
_SLOTS = re.compile(r":[0-9]+$")


def unique(names: Iterable[str]) -> list[str]:
    """Return the names in order, each once: batch systems write one for each slot."""
    return list(islice(dict.fromkeys(name.rstrip(".") for name in names if name), MOST_HOSTS))


def by_number(names: Iterable[str]) -> list[str]:
    """Return the names ordered by the numbers in them: ``algo-2`` before ``algo-10``."""
    return sorted(
        names, key=lambda name: [int(part) if part.isdecimal() else part for part in re.split("([0-9]+)", name)]
    )


def first_words(text: str) -> list[str]:
    """Return the hosts in a file that has one on each line.

    That is the format of ssh's loops, ``host slots=8`` that of Open MPI and DeepSpeed, ``host:8`` that of MPICH, and
    ``host 8 queue processors`` that of Grid Engine; ``#`` begins a comment.
    """
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return [words[0] if net.is_address(words[0]) else _SLOTS.sub("", words[0]) for words in lines if words]


def in_file(path: str | None, host: Host) -> list[str] | None:
    """Return the hosts that a file lists, one a line; None if there is no path, or no such file that can be read."""
    text = host.read(path) if path else None
    return None if text is None else first_words(text)


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
    facts = {"size": (str(len(hosts)), source), "listed": (source, source), **by_rank(hosts, source)}
    return facts if hosts else {}


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
            hint="a list with each host's name or address once; or --rank=N on each node",
        )
    return {**facts, "rank": (str(hosts.index(found[0])), f"{found[0]} in {source}")}


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
    """Return the entries that are this node: by its name if one has it, else by its addresses."""
    if len(hosts) == 1 and net.is_loopback(hosts[0]):
        return list(hosts)
    if same := [host for host in hosts if host.lower() == name.lower()]:
        return same
    if same := [host for host in hosts if not net.is_address(host) and _short(host) == _short(name)]:
        return same
    own = {net.canonical(address.partition("%")[0]) for address in context.own_addresses()}
    return [host for host in hosts if any(a in own or net.is_loopback(a) for a in _addresses(host, context))]


def _addresses(host: str, context: Context) -> Sequence[str]:
    """Return the addresses of an entry; one of loopback is its own machine's (Debian's 127.0.1.1)."""
    try:
        return [net.canonical(a.partition("%")[0]) for a in ([host] if net.is_address(host) else context.resolve(host))]
    except (OSError, UnicodeError):
        return []


def _short(name: str) -> str:
    return name.partition(".")[0].lower()


def _quoted(hosts: Sequence[str]) -> str:
    more = f", … ({len(hosts)} hosts)" if len(hosts) > _SHOWN else ""
    return f"{', '.join(hosts[:_SHOWN])}{more}"
