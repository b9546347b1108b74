"""Which run an observer means: in a shell or a script beside the nodes, which has their job's variables but no rank."""

from dataclasses import replace

from bootstrap import launchers, net
from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.launchers.row import Context, Facts, Launcher
from bootstrap.model import NodeIdentity, Role
from bootstrap.settings import Settings, flag


def identify_observer(settings: Settings, host: Host) -> NodeIdentity:
    """Return the identity with which to look for a run's head over the network: a worker's, without a rank and a size.

    Nothing that numbers a node matters here, so that a batch script will do, which :func:`launchers.identify` refuses.

    :raises IdentityError: if nothing names the run, or says where its head may be.
    """
    row, source, _ = launchers.choose(settings, host)
    found = _facts(row, settings, host)
    run_id, named_by = _run_id(row, found)
    rendezvous, _ = launchers.rendezvous_of(row, settings)
    if rendezvous == "static" and "head" not in found:
        what = f"nothing says where the head of run {run_id!r} is (launcher {row.name})"
        raise IdentityError(what, hint="--head-address=HOST, or --shared-dir=DIR, as its nodes have it")
    return NodeIdentity(
        launcher=row.name,
        role=Role.WORKER,
        rank=None,
        size=None,
        run_id=run_id,
        attempt=attempt_of(settings, host) or 0,
        rendezvous=rendezvous,
        head_hints=(found["head"][0],) if "head" in found else (),
        sources={"launcher": source, "run_id": named_by, "role": "an observer", "head": found.get("head", ("", ""))[1]},
    )


def attempt_of(settings: Settings, host: Host) -> int | None:
    """Return which attempt of its run this shell belongs to; None if nothing says so."""
    if settings.attempt is not None:
        return settings.attempt
    row, _, _ = launchers.choose(settings, host)
    value = next(filter(None, map(host.get, row.attempt)), None)
    return int(value) if value is not None and value.strip().isdecimal() else None


def _facts(row: Launcher, settings: Settings, host: Host) -> Facts:
    """Return what the launcher says here; without what only a node's own variables would say."""
    context = Context(settings, host, net.own_addresses, net.look_up)
    try:
        return launchers.facts(replace(row, derive=row.observe or row.derive), context)
    except IdentityError:  # of this process, which is not a node
        return launchers.facts(replace(row, derive=None), context)


def _run_id(row: Launcher, found: Facts) -> tuple[str, str]:
    if "run_id" in found and row.name != "local":
        return found["run_id"]
    if "run_id" in found and found["run_id"][1] == flag("run_id"):
        return found["run_id"]
    if "run_name" in found and found["run_name"][1] and not row.run_id:
        return found["run_name"]
    raise IdentityError(f"nothing names the run here (launcher {row.name})", hint="--run-id=ID, as its nodes have it")
