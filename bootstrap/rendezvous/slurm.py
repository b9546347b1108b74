"""Find the head as the first host of the srun step's node list.

We expand the list from the environment: running ``scontrol`` on every node can take the controller down. The syntax is
that of Slurm's hostlist_create(3) (https://slurm.schedmd.com/scontrol.html, "hostnames") without the BlueGene boxes
(``bgl[000x133]``), which current Slurm versions no longer write.
"""

import itertools
import re
from collections.abc import Iterator, Sequence

from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.model import NodeIdentity
from bootstrap.rendezvous.protocol import Rendezvous
from bootstrap.rendezvous.static import at
from bootstrap.settings import Settings

ONE_TASK = "srun --ntasks=$SLURM_JOB_NUM_NODES --ntasks-per-node=1 ray-bootstrap ..."
"""What starts one task on each node of an allocation. Where that was made with more tasks a node, srun takes their
number from SLURM_NTASKS and ignores ``--ntasks-per-node=1`` by itself, with a warning."""
NODELISTS = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST")
_NAME = re.compile(r"(?:[^\[\],\s]|\[[^\[\]]*\])+")
_SEPARATOR = re.compile(r"[,\s]+")
_PART = re.compile(r"\[([^\[\]]*)\]|([^\[\]]+)")
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_RANGE_MAX = 65536
"""Slurm's MAX_RANGE; it keeps a corrupt variable from exhausting the memory."""


def first(nodelist: str) -> str:
    """Return the first host without expanding the rest.

    :raises ValueError: if the list is empty or its start is malformed.
    """
    for host in hosts(nodelist):
        return host
    raise ValueError(f"{nodelist!r} is an empty node list")


def hosts(nodelist: str) -> Iterator[str]:
    """Yield every host of a node list such as ``gpu[001-003,007],r[1-2]n[01-02]-ib,login1``, in order.

    :raises ValueError: on reaching a malformed part.
    """
    at, text = 0, nodelist.strip()
    while at < len(text):
        name = _NAME.match(text, at)
        if name is None:
            raise ValueError(f"{nodelist!r} is not a node list: expected a name at {text[at:]!r}")
        yield from _names(name[0])
        separator = _SEPARATOR.match(text, name.end())
        if separator is None and name.end() < len(text):
            raise ValueError(f"{nodelist!r} is not a node list: unbalanced brackets at {text[name.end() :]!r}")
        at = separator.end() if separator else len(text)
        if separator and (at == len(text) or separator[0].count(",") > 1):
            raise ValueError(f"{nodelist!r} is not a node list: expected a name after {text[: name.end()]!r}")


def _names(name: str) -> Iterator[str]:
    """Yield the names in one entry: ``r[1-2]n[01-02]`` → r1n01, r1n02, r2n01, r2n02."""
    parts = (_numbers(m[1]) if m[2] is None else (m[2],) for m in _PART.finditer(name))
    return map("".join, itertools.product(*parts))


def _numbers(ranges: str) -> Iterator[str]:
    """Yield the numbers in brackets: ``001-003,007`` → 001, 002, 003, 007, as wide as the low end of each range."""
    for text in ranges.split(","):
        match = _RANGE.fullmatch(text.strip())
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if match is None or not low <= high < low + _RANGE_MAX:
            raise ValueError(f"[{ranges}] is not a range in a node list: {text!r} is neither N nor LOW-HIGH")
        yield from (f"{n:0{len(match[1])}d}" for n in range(low, high + 1))


def nodelist(host: Host) -> tuple[str, str]:
    """Return the step's node list and the variable that holds it; ("", "") outside Slurm."""
    return next(((value, name) for name in NODELISTS if (value := host.get(name))), ("", ""))


def make(_settings: Settings, _identity: NodeIdentity, host: Host, ports: Sequence[int]) -> Rendezvous:
    """Return the rendezvous at the first host of the srun step.

    :raises IdentityError: if the node list is missing or malformed.
    """
    text, source = nodelist(host)
    if not text:
        raise IdentityError(
            f"--rendezvous=slurm: neither {' nor '.join(NODELISTS)} is set",
            hint=f"{ONE_TASK}, or give --head-address=HOST",
        )
    try:
        return at((first(text),), ports, source)
    except ValueError as error:
        raise IdentityError(f"{source}: {error}", hint="--head-address=HOST names the head") from None
