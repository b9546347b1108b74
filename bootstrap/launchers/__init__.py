"""This node's identity: from the first matching row of the launchers' table; options override single values.

Nothing decisive is guessed: an incomplete identity is an error that quotes the variables, never rank 0.
"""

import math
import re
import secrets
import string
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from bootstrap import net, parsers, timeouts
from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.launchers import attached
from bootstrap.launchers.row import Context, Fact, Facts, Launcher, number
from bootstrap.launchers.table import LAUNCHERS
from bootstrap.model import NodeIdentity, Role
from bootstrap.rendezvous import static
from bootstrap.settings import Settings, flag

__all__ = ["LAUNCHERS", "Launcher", "identify"]

_OPTIONS = {
    "rank": "rank",
    "size": "nodes",
    "run_id": "run_id",
    "attempt": "attempt",
    "head": "head_address",
    "role": "role",
}
"""Our word → the option that overrides it."""
_WORDS = ("rank", "size", "head", "attempt", "run_id", "run_name")
"""Those for which a row has variables or templates."""


def identify(
    settings: Settings,
    host: Host,
    *,
    own_addresses: Callable[[], Collection[str]] = net.own_addresses,
    resolve: net.Resolve = net.look_up,
) -> tuple[NodeIdentity, list[str]]:
    """Return this node's identity, with the source of each value, and notes for the log.

    :param own_addresses: called only where ``--head-address`` alone, or a list without this host's name, decides; as is
        ``resolve``.
    :raises IdentityError: if rank, size, role or run id is missing, out of range or contradicts another.
    """
    row, source, notes = choose(settings, host)
    if row is attached.ROW:
        return attached.identify(settings, host, dict.fromkeys(name for other in LAUNCHERS for name in other.rank))
    found = facts(row, Context(settings, host, own_addresses, resolve))
    _refuse_second_process(row, host)
    _refuse_half(row, found, settings)
    _refuse_several(row, found, settings, host)
    identity, repeated = _identity(row, found, settings)
    _refuse_misfit(row, found, settings, identity.rank, identity.size)
    if "head" in found:
        notes += _note_loopback(*found["head"], identity.role)
    notes += [*repeated, *([found["note"][0]] if "note" in found else [])]
    return replace(identity, sources={**identity.sources, "launcher": source}), notes


def _identity(row: Launcher, found: Facts, settings: Settings) -> tuple[NodeIdentity, list[str]]:
    """Return the identity that these facts make, and a note if the next run may have the same id."""
    rank, size = _number(found, "rank", 0), _number(found, "size", 1)
    rendezvous = rendezvous_of(row, settings)
    run_id, repeated = _run_id(row, found, rendezvous[0], alone=size == 1)
    isolation = _isolation_timeout(row, settings)
    sources = {word: fact[1] for word, fact in found.items() if word in _OPTIONS}
    sources = {"role": f"rank {rank}", "attempt": "not given", **sources}
    return NodeIdentity(
        launcher=row.name,
        role=_role(found, rank),
        rank=rank,
        size=size,
        run_id=run_id[0],
        attempt=_number(found, "attempt", 0) or 0,
        rendezvous=rendezvous[0],
        head_hints=(found["head"][0],) if "head" in found else (),
        sources={**sources, "run_id": run_id[1], "rendezvous": rendezvous[1], "isolation_timeout": isolation[1]},
        isolation_timeout=isolation[0],
        replaced_nodes=settings.replaced_nodes or row.replaced_nodes,
        hosts=_hosts(found, settings, size),
        one_process=row.local_hint if "listed" in found else "",
    ), repeated


def _note_loopback(head: str, source: str, role: Role) -> list[str]:
    """Return a note if a worker is to look for the head on its own machine.

    :raises IdentityError: if ``head`` cannot be a host.
    """
    if not net.is_loopback(static.host_of(head, source)) or role is Role.HEAD:
        return []
    return [f"{source}={head} on a worker: it looks for the head on its own machine"]


def choose(settings: Settings, host: Host) -> tuple[Launcher, str, list[str]]:
    """Return the row, what it was recognised by, and a note on the other rows that match."""
    rows = {row.name: row for row in LAUNCHERS}
    if settings.attach != "auto":
        return attached.ROW, "--attach", []
    if settings.launcher != "auto":
        if settings.launcher not in rows:
            names = ", ".join(rows)
            raise IdentityError(f"--launcher={settings.launcher!r}: no such launcher", hint=f"auto, or one of {names}")
        row = rows[settings.launcher]
        if row.when is None and not row.matches(settings, host):
            raise IdentityError(f"--launcher={row.name} {_wanted(row)}", hint="--launcher=auto to detect the launcher")
        return row, "--launcher", []
    row, *others = [row for row in LAUNCHERS if row.matches(settings, host)]
    if row.name == "local" and _asks_for_more(settings):
        # The options are incomplete and no launcher completes them: the errors of "explicit" fit.
        row = rows["explicit"]
    also = [other.name for other in others if other.when is None and other.name not in row.built_on]
    notes = [f"launcher {row.name}; also matches {', '.join(also)}; --launcher=NAME overrides"] if also else []
    found = [row.file(host)] if row.file(host) else [name for name in (*row.signs, *row.all_of) if host.get(name)]
    return row, found[0] if found else "nothing else" if row.name == "local" else "options", notes


def _wanted(row: Launcher) -> str:
    wanted = [f"{'one of ' * (len(row.signs) > 1)}{', '.join(row.signs)} set"] if row.signs else []
    wanted += [f"all of {', '.join(row.all_of)} set"] if row.all_of else []
    wanted += [f"none of {', '.join(row.none_of)} set"] if row.none_of else []
    instead = [f"the file {path}" for path in row.files]
    return f"does not match this environment; it needs {' or '.join([*instead, '; '.join(wanted)])}"


def _asks_for_more(s: Settings) -> bool:
    """Return whether the options ask for more than this machine."""
    more = s.rank is not None or s.role == "worker" or (s.nodes or 1) > 1 or (s.min_nodes or 1) > 1
    return more or (s.role == "head" and (s.shared_dir or s.min_nodes) is not None)


def facts(row: Launcher, context: Context) -> Facts:
    """Collect the facts from variables, from what is derived of them, and from options; later ones win."""
    found = Facts()
    for word in _WORDS:
        for entry in getattr(row, word):
            if word not in found and (fact := _entry(entry, context.host)):
                # A port in a launcher's variable is PyTorch's, not GCS's.
                found[word] = (static.host_of(*fact), fact[1]) if word == "head" else fact
    if row.derive:
        found |= row.derive(found, context)
    for word, option in _OPTIONS.items():
        value = getattr(context.settings, option)
        if value not in (None, "auto"):
            found[word] = (str(value), flag(option))
    for word, value in (("role", "head"), ("size", "1")):
        if found.get(word, ("", ""))[0] == value:
            found.setdefault("rank", ("0", found[word][1]))
    return found


def _entry(entry: str, host: Host) -> Fact | None:
    """Return the value of a variable, or of a template, and the variables' names; None if one of them is not set."""
    names = [name for _, name, _, _ in string.Formatter().parse(entry) if name]
    if not all(map(host.get, names or [entry])):
        return None
    return (entry.format_map(host.env), "+".join(dict.fromkeys(names))) if names else (host.env[entry], entry)


def _refuse_second_process(row: Launcher, host: Host) -> None:
    for name in row.local_size:
        value = host.get(name)
        if value is not None and value.strip() != "1":
            raise IdentityError(
                f"{name}={value!r}: several processes were started on this node, expected one", hint=row.local_hint
            )
    for name in row.local_rank:
        value = host.get(name)
        if value is not None and value.strip() != "0":
            raise IdentityError(f"{name}={value}: this is not the first process on its node", hint=row.local_hint)


def _refuse_half(row: Launcher, found: Facts, settings: Settings) -> None:
    """Raise an error if rank or size is missing, as far as this launcher provides them."""
    if "role" not in found and "rank" not in found:
        known = ", ".join(_quoted(found[word]) for word in ("size", "head") if word in found) or "no size either"
        raise IdentityError(
            f"launcher {row.name}: no rank: {_unset(row.rank or ('--rank',))} ({known})",
            hint="--rank=N on each node; or --role=head on one and --role=worker on the others",
        )
    settled = "size" in found or ("rank" not in found and not row.size)
    if not settled and (row.size or settings.min_nodes is None):
        rank = f"rank {_quoted(found['rank'])}" if "rank" in found else "no rank either"
        hint = row.size_hint if row.size else f"--min-nodes=N; or {row.size_hint}"
        absent = _unset(row.size or ("--nodes",))
        raise IdentityError(f"launcher {row.name}: no size: {absent} ({rank})", hint=hint)


def _refuse_several(row: Launcher, found: Facts, settings: Settings, host: Host) -> None:
    """Raise an error if a launcher says that this is the only node, while another one's variable numbers it above 0.

    So does ``srun -N2 mpirun -n 1 ray-bootstrap``, and an image with ``ENV RANK=0 WORLD_SIZE=1``.
    """
    value, source = found.get("size", ("", ""))
    if value != "1" or source not in row.size or settings.launcher != "auto":
        return
    for name in dict.fromkeys(name for other in LAUNCHERS if other.name != row.name for name in other.rank):
        if name not in row.rank and number(host.get(name)) > 0:
            raise IdentityError(
                f"{source}=1, but {name}={host.get(name)}: this is one of several nodes, each of which would be alone",
                hint="start it by one launcher only; or --launcher=NAME; or --launcher=local for this machine alone",
            )


def _refuse_misfit(row: Launcher, found: Facts, settings: Settings, rank: int | None, size: int | None) -> None:
    if rank is None or size is None:
        return
    if rank >= size:
        hint = row.local_hint if row.local_rank else row.size_hint
        raise IdentityError(
            f"{_quoted(found['rank'])} with {_quoted(found['size'])}: ranks go from 0 to {size - 1}", hint=hint
        )
    if settings.min_nodes is not None and settings.min_nodes > size:
        raise IdentityError(
            f"--min-nodes={settings.min_nodes} is more than {_quoted(found['size'])}", hint=f"--min-nodes={size}"
        )


def _unset(names: Sequence[str]) -> str:
    return f"{names[0]} not set" if len(names) == 1 else f"none of {', '.join(names)} set"


def _quoted(fact: Fact) -> str:
    value, source = fact
    return f"{source}={value!r}" if source.replace("_", "").replace("-", "").isalnum() else f"{value} ({source})"


def _number(found: Facts, word: str, minimum: int) -> int | None:
    if word not in found:
        return None
    value, source = found[word]
    if not re.fullmatch(r"[0-9]{1,9}", value.strip()) or int(value) < minimum:
        raise IdentityError(
            f"{source}={value!r}: the {word} must be a whole number of at least {minimum}",
            hint=f"{flag(_OPTIONS[word])}=N overrides it",
        )
    return int(value)


def _role(found: Facts, rank: int | None) -> Role:
    """Return the role: rank 0 is the head, and ``--role`` must agree."""
    by_rank = Role.HEAD if rank == 0 else Role.WORKER
    if "role" not in found or rank is None:
        return Role(found["role"][0]) if "role" in found else by_rank
    if found["role"][0] != by_rank:
        raise IdentityError(
            f"{_quoted(found['role'])} with {_quoted(found['rank'])}: the head has rank 0, and workers have others",
            hint="--rank=N, or --launcher=explicit to ignore the launcher's variables",
        )
    return by_rank


def rendezvous_of(row: Launcher, settings: Settings) -> Fact:
    if settings.rendezvous != "auto":
        return settings.rendezvous, "--rendezvous"
    if settings.shared_dir is not None:
        return "file", "--shared-dir"
    if settings.head_address is not None:
        return "static", "--head-address"
    return row.rendezvous, f"launcher {row.name}"


def _isolation_timeout(row: Launcher, settings: Settings) -> tuple[float, str]:
    if settings.isolation_timeout is not None:
        return settings.isolation_timeout, "--isolation-timeout"
    return (timeouts.ISOLATION_S if row.requeues else math.inf), f"launcher {row.name}"


def _hosts(found: Facts, settings: Settings, size: int | None) -> tuple[str, ...]:
    """Return the names of all nodes by rank; none if the launcher names no nodes, or an option numbers them."""
    names = tuple(found["hosts"][0].split()) if "hosts" in found else ()
    return names if len(names) == size and settings.rank is None else ()


def _run_id(row: Launcher, found: Facts, rendezvous: str, *, alone: bool) -> tuple[Fact, list[str]]:
    """Return the run id, and a note if the next run may have it too: of one node, which joins no other, it may."""
    unique = "run_id" in found
    if not unique and "run_name" not in found:
        if alone:
            return (f"{row.name}-{secrets.token_hex(4)}", "generated here"), []
        raise IdentityError(f"launcher {row.name}: nothing names this run", hint=row.run_id_hint)
    name, source = found["run_id" if unique else "run_name"]
    try:
        parsers.run_id(name)
    except ValueError as error:
        raise IdentityError(f"run id {parsers.quoted(name)} ({source}): {error}", hint=row.run_id_hint) from None
    if unique or (alone and source):
        return (name, source), []
    if not source and rendezvous == "file":
        raise IdentityError(
            "a shared folder without a run id: this run would accept another run's record", hint=row.run_id_hint
        )
    note = f"run id {name!r} is not unique: the next run may have it too; fix: {row.run_id_hint}"
    return (name, source or "nothing names this run"), [note]
