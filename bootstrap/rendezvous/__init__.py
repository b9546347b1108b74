"""Where is the head? One protocol and one table of back ends; the roll call decides which candidate is right.

An address found here is only a candidate: a stale DNS answer, or a record that a dead head left behind, looks just like
a valid one. A worker accepts it once the agent there proves that it knows the run and the attempt.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from bootstrap.errors import UsageError
from bootstrap.files.secret import FIX_OPEN, Channel, Secret
from bootstrap.host import Host
from bootstrap.model import HeadAddress, NodeIdentity
from bootstrap.rendezvous import dns, shared_dir, slurm, static
from bootstrap.rendezvous.protocol import Lookup, Rendezvous
from bootstrap.settings import Settings

__all__ = ["BACK_ENDS", "Lookup", "Rendezvous", "by_launcher", "make", "rollcall_ports", "with_secret_record"]

FIRST_PORT, PORT_SPAN, PORT_TRIES = 20000, 10000, 4

Factory = Callable[[Settings, NodeIdentity, Host, Sequence[int]], Rendezvous]

BACK_ENDS: Mapping[str, Factory] = MappingProxyType(
    {"static": static.make, "slurm": slurm.make, "dns": dns.make, "file": shared_dir.make}
)


def make(settings: Settings, identity: NodeIdentity, host: Host) -> Rendezvous:
    """Return the rendezvous that ``identity.rendezvous`` names.

    :raises UsageError: if the back end cannot work with these options.
    :raises IdentityError: if neither the options nor the launcher say where the head is.
    """
    name, ports = identity.rendezvous, rollcall_ports(settings, identity)
    if identity.size == 1:
        # No worker looks for this head, so a missing Service or folder must not stop it.
        return static.at((), ())
    if name not in BACK_ENDS:
        raise UsageError([f"--rendezvous={name!r}: expected one of {', '.join(BACK_ENDS)}"])
    return BACK_ENDS[name](settings, identity, host, ports)


def with_secret_record(rendezvous: Rendezvous, secret: Secret, identity: NodeIdentity, host: Host) -> Rendezvous:
    """Return the rendezvous, with a record in the home directory if that is this secret's channel."""
    if secret.channel is not Channel.HOME:
        return rendezvous
    fix = f"free space there; or {FIX_OPEN}"
    record = shared_dir.record(host.get("HOME") or "/", identity, host, given_by="HOME", fix=fix)

    def lookup() -> Lookup:
        found, held = rendezvous.lookup(), record.lookup()
        return Lookup(found.candidates, [*found.faults, *held.faults], held.secret, held.ended)

    return dataclasses.replace(rendezvous, lookup=lookup, secret_record=record)


def by_launcher(settings: Settings, identity: NodeIdentity) -> Sequence[HeadAddress]:
    """Return where the head may listen according to the launcher, whatever the rendezvous; empty if it says nothing."""
    hosts = [static.host_of(hint) for hint in identity.head_hints]
    return static.at(hosts, rollcall_ports(settings, identity)).lookup().candidates


def rollcall_ports(settings: Settings, identity: NodeIdentity) -> tuple[int, ...]:
    """Return the TCP ports of the roll call, the same on all nodes of a run.

    The head listens on the first free one; workers try them all. 20000-29999 lies between Ray's worker ports
    (10002-19999) and Linux's ephemeral ports (32768-60999).
    """
    if settings.rollcall_port is not None:
        return (settings.rollcall_port,)
    start, step = int(identity.run_hash[:8], 16), int(identity.run_hash[8:], 16)
    # A stride of at most a quarter of the span visits four different ports in four tries.
    stride = 1 + step % (PORT_SPAN // PORT_TRIES)
    return tuple(FIRST_PORT + (start + i * stride) % PORT_SPAN for i in range(PORT_TRIES))
