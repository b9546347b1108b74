"""The rows that options decide (a rank, a list of hosts, the head's address), and the last one: this machine alone."""

import secrets
from pathlib import Path

from bootstrap import net
from bootstrap.errors import IdentityError
from bootstrap.launchers import batch, hostlist, unknown
from bootstrap.launchers.row import Context, Facts, Launcher
from bootstrap.rendezvous import static

_UNNAMED: Facts = {"run_name": ("default", "")}


def explicit(_found: Facts, _context: Context) -> Facts:
    """Derive nothing but a name for the run, which is the same wherever the options are the same."""
    return _UNNAMED


def hostfile(found: Facts, context: Context) -> Facts:
    """Derive this node's place in ``--hostfile``. :raises IdentityError: if the file cannot be read."""
    path = context.settings.hostfile
    if path is None:
        raise IdentityError("--launcher=hostfile needs the list", hint="--hostfile=FILE, on all nodes")
    hosts = hostlist.in_file(str(Path(path).absolute()), context.host)
    if hosts is None:
        raise IdentityError(
            f"--hostfile={path}: no such file, or it cannot be read",
            hint="--hostfile=FILE with one host a line, the head first, in a folder that all nodes see",
        )
    listed = len(hostlist.unique(hosts))
    if context.settings.nodes not in (None, listed):
        raise IdentityError(
            f"--hostfile={path} lists {listed} hosts, and --nodes={context.settings.nodes}", hint="leave out --nodes"
        )
    return {**_UNNAMED, **found, **hostlist.place(hosts, f"--hostfile={path}", context)}


def listed_head(found: Facts, context: Context) -> Facts:
    """Derive the head alone, which is the first host of ``--hostfile``, for an observer that is on none of them."""
    hosts = hostlist.in_file(str(Path(context.settings.hostfile or "").absolute()), context.host)
    head: Facts = {"head": (hosts[0], f"--hostfile={context.settings.hostfile}")} if hosts else {}
    return {**_UNNAMED, **found, **head}


def address(_found: Facts, context: Context) -> Facts:
    """Make the node that has the head's address the head, as ``ray symmetric-run --address`` does.

    On the head, its name may resolve to 127.0.1.1 (Debian's default), so a loopback address counts as this node's.

    :raises IdentityError: if the head's address is missing, or is loopback with more than one node.
    """
    wanted, count = context.settings.head_address, max(context.settings.nodes or 1, context.settings.min_nodes or 1)
    if wanted is None:
        raise IdentityError("--launcher=address needs the head's address", hint="--head-address=HOST, on all nodes")
    if context.settings.role != "auto" or context.settings.rank is not None:
        return _UNNAMED  # not from the address, which the head's command line may lack
    # All nodes get it in the same spelling, and two clusters on one machine differ in it.
    return {"run_name": (f"address-{wanted}", "--head-address"), **_role_by_address(wanted, count, context)}


def _role_by_address(wanted: str, count: int, context: Context) -> Facts:
    name, source = static.host_of(wanted), f"--head-address={wanted}"
    if net.is_loopback(name) and count > 1:
        raise IdentityError(
            f"{source} with {count} nodes: each of them would take itself for the head",
            hint="--head-address=HOST, the address at which the other nodes reach the head",
        )
    if net.short_name(name) == net.short_name(context.host.hostname) and not net.is_address(name):
        return {"rank": ("0", f"{source} is this host's name")}
    try:
        found = net.without_zone(context.resolve(name))
    except (OSError, UnicodeError) as error:
        # The head knows its name, from above or from /etc/hosts; a worker's resolver may lag.
        return {"role": ("worker", source), "note": (f"{name} does not resolve yet ({error}): not this node", source)}
    own = net.without_zone(context.own_addresses())
    if held := sorted(a for a in found if a in own or net.is_loopback(a)):
        return {"rank": ("0", f"{source} is this node's address {held[0]}")}
    return {"role": ("worker", f"{source} is not an address of this node")}


def local(_found: Facts, context: Context) -> Facts:
    """Take this machine as the only node.

    :raises IdentityError: if an option, a variable or a file says that there are more.
    """
    settings = context.settings
    if (settings.nodes or 1) > 1 or (settings.min_nodes or 1) > 1 or settings.rank or settings.role == "worker":
        raise IdentityError(
            "--launcher=local means one node, but --nodes, --min-nodes, --rank or --role asks for more",
            hint="--launcher=explicit with --rank=N and --nodes=N",
        )
    alone = "no launcher's variables are set"
    facts = {"rank": ("0", alone), "size": ("1", alone), "run_id": (f"local-{secrets.token_hex(4)}", "generated here")}
    if settings.launcher != "local":
        unknown.refuse_several(context.host)
        if note := unknown.note(context.host):
            facts["note"] = (note, alone)
    return facts


FIRST: tuple[Launcher, ...] = (
    Launcher(
        "hostfile",
        when=lambda s: s.hostfile is not None,
        built_on=batch.NAMES,
        run_name=batch.RUN_NAMES,
        derive=hostfile,
        observe=listed_head,
        local_hint="start one process on each host of --hostfile",
        look="look at the terminal or the log of the command on {hosts} (rank {ranks})",
    ),
    Launcher(
        "explicit",
        when=lambda s: s.rank is not None and (s.nodes or s.min_nodes) is not None,
        derive=explicit,
    ),
)
BY_ADDRESS: tuple[Launcher, ...] = (
    Launcher("address", when=lambda s: s.head_address is not None and s.rank is None, derive=address),
)
LAST: tuple[Launcher, ...] = (Launcher("local", when=lambda _: True, derive=local),)
