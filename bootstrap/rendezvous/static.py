"""Find the head by a name or an address that an option or a launcher's variable gives."""

from collections.abc import Sequence

from bootstrap import parsers
from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.model import HeadAddress, NodeIdentity, Role
from bootstrap.rendezvous.protocol import Lookup, Rendezvous
from bootstrap.settings import Settings


def at(hosts: Sequence[str], ports: Sequence[int], source: str = "static") -> Rendezvous:
    """Return the rendezvous at these hosts; names stay unresolved, so that each connection resolves them again."""
    # Order by port, not by host: the head listens on the first free port.
    lookup = Lookup([HeadAddress(host, port, source) for port in ports for host in hosts])
    return Rendezvous("the head's address", lambda: lookup)


def make(_settings: Settings, identity: NodeIdentity, _host: Host, ports: Sequence[int]) -> Rendezvous:
    """Return the rendezvous at the hosts that the option or the launcher gives.

    :raises IdentityError: on a worker if they give none.
    """
    if not identity.head_hints and identity.role is Role.WORKER:
        raise IdentityError(
            f"this node is a worker ({identity.sources.get('role', identity.launcher)}) "
            "and neither an option nor the launcher says where the head is",
            hint="--head-address=HOST, or --shared-dir=DIR with a folder that all nodes see",
        )
    source = identity.sources.get("head", identity.launcher)
    return at([host_of(hint) for hint in identity.head_hints], ports, source)


def host_of(hint: str, source: str = "--head-address") -> str:
    """Return the host in ``HOST[:PORT]``; the port is GCS's, not the roll call's, and is ignored.

    :raises IdentityError: if ``hint`` has another form.
    """
    try:
        return parsers.host_port(hint)[0]
    except ValueError as error:
        raise IdentityError(f"{source}={hint!r}: {error}", hint="--head-address=HOST[:PORT]") from None
