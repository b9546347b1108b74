"""How to look at the other nodes of a run: what to type, with this run's names where the launcher gives them."""

import re
from collections.abc import Sequence

from bootstrap.host import Host
from bootstrap.launchers.table import LAUNCHERS, Launcher

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
    row = next((row for row in LAUNCHERS if row.name == launcher), Launcher(launcher))
    names = _Names((name, value) for name, value in host.env.items() if value)
    names["ranks"] = ",".join(map(str, ranks[:_SHOWN]))
    names["hosts"] = ",".join(hosts[:_SHOWN]) or next(filter(None, map(host.get, row.nodes)), "NODE")
    names["name"] = _name(row, host) or "NAME"
    return row.look.format_map(names)


def _name(row: Launcher, host: Host) -> str:
    if row.name_in is None:
        return ""
    variable, pattern = row.name_in
    text = (host.get(variable) or "") if variable else host.hostname.partition(".")[0]
    found = re.fullmatch(pattern, text)
    return found[1] if found else ""
