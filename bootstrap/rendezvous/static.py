"""The head's name or address is known: from an option, or from a variable of the launcher."""

from collections.abc import Sequence

from bootstrap import parsers
from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.model import HeadAddress, NodeIdentity, Role
from bootstrap.rendezvous.protocol import Lookup, Rendezvous
from bootstrap.settings import Settings


def at(hosts: Sequence[str], ports: Sequence[int], source: str = "static") -> Rendezvous:
    """Return the rendezvous at these hosts, whose names are kept: whoever connects resolves them, anew each time."""
    # All hosts on the likeliest port first: the head takes the first one that is free.
    lookup = Lookup([HeadAddress(host, port, source) for port in ports for host in hosts])
    return Rendezvous("the head's address", lambda: lookup)


def make(_settings: Settings, identity: NodeIdentity, _host: Host, ports: Sequence[int]) -> Rendezvous:
    """From the launcher's hints.

    :raises IdentityError: on a worker that was given none.
    """
    if not identity.head_hints and identity.role is Role.WORKER:
        raise IdentityError(
            f"this node is a worker ({identity.sources.get('role', identity.launcher)}) "
            "and nothing says where the head is",
            hint="--head-address=HOST, or --shared-dir=DIR with a folder that all nodes see",
        )
    source = identity.sources.get("head", identity.launcher)
    return at([host_of(hint) for hint in identity.head_hints], ports, source)


def host_of(hint: str, source: str = "--head-address") -> str:
    """The host of ``HOST[:PORT]``; the port is GCS's, not the roll call's.

    :raises IdentityError: if it is neither.
    """
    try:
        return parsers.host_port(hint)[0]
    except ValueError as error:
        raise IdentityError(f"{source}={hint!r}: {error}", hint="--head-address=HOST[:PORT]") from None
