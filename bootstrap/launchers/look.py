"""How to look at a run's nodes and dashboard: what to type, with this run's names where the launcher gives them."""

import re
from collections.abc import Callable, Sequence
from functools import partial

from bootstrap.host import Host
from bootstrap.launchers.events import Causes
from bootstrap.launchers.row import Launcher
from bootstrap.launchers.table import LAUNCHERS

_SHOWN = 8
"""Maximum number of ranks, or of hosts, in a command."""


class _Names(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return name.upper()  # to be replaced by hand


def how_to_look(launcher: str, host: Host, ranks: Sequence[int], hosts: Sequence[str] = ()) -> str:
    """Return the commands that show what has become of these nodes.

    :param launcher: the name of a row of the launchers' table.
    :param hosts: the names of the nodes, where they are known.
    """
    row, names = _row(launcher), _names(host)
    names["ranks"] = ",".join(map(str, ranks[:_SHOWN]))
    names["hosts"] = ",".join(hosts[:_SHOWN]) or next(filter(None, map(host.get, row.nodes)), "NODE")
    names["each_host"] = " ".join(hosts[:_SHOWN]) or "NODE"
    names["name"] = _name(row, host) or "NAME"
    return row.look.format_map(names)


def how_to_reach(launcher: str, host: Host, address: str) -> str:
    """Return the address of a server on this node, and for some launchers what to type elsewhere to reach it."""
    names = _Names(_names(host), port=address.rpartition(":")[2])
    command = _row(launcher).tunnel.format_map(names)
    return f"{address} (from elsewhere: {command})" if command else address


def finds_causes(launcher: str, host: Host) -> Callable[[], Causes] | None:
    """Return what finds out why nodes have not come, if this launcher's row has it: see ``Launcher.why``."""
    why = _row(launcher).why
    return partial(why, host) if why else None


def _row(launcher: str) -> Launcher:
    return next((row for row in LAUNCHERS if row.name == launcher), Launcher(launcher))


def _names(host: Host) -> _Names:
    return _Names((name, value) for name, value in host.env.items() if value)


def _name(row: Launcher, host: Host) -> str:
    if row.name_in is None:
        return ""
    variable, pattern = row.name_in
    text = (host.get(variable) or "") if variable else host.hostname.partition(".")[0]
    found = re.fullmatch(pattern, text)
    return found[1] if found else ""
