"""The head's name or address is known: from an option, or from a variable of the launcher."""

from collections.abc import Sequence
from dataclasses import dataclass

from bootstrap import parsers
from bootstrap.errors import IdentityError
from bootstrap.files.manifest import FileDigests
from bootstrap.host import Host
from bootstrap.model import HeadAddress, NodeIdentity, Role
from bootstrap.rendezvous.protocol import Lookup
from bootstrap.settings import Settings


@dataclass(frozen=True)
class Static:
    """Names are kept as names: whoever connects resolves them, anew each time."""

    hosts: tuple[str, ...]
    ports: tuple[int, ...]
    source: str = "static"
    place: str = "the head's address"
    has_record: bool = False
    owned_dirs: tuple[str, ...] = ()

    def owned_files(self, _head: HeadAddress, _secret: bytes | None) -> FileDigests:
        """Return nothing."""
        return {}

    def announce(self, head: HeadAddress, secret: bytes | None) -> None:
        """Do nothing: every node was given the address."""

    def lookup(self) -> Lookup:
        """Return all hosts on the likeliest port first: the head takes the first one that is free."""
        return Lookup([HeadAddress(host, port, self.source) for port in self.ports for host in self.hosts])


def make(_settings: Settings, identity: NodeIdentity, _host: Host, ports: Sequence[int]) -> Static:
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
    return Static(tuple(map(host_of, identity.head_hints)), tuple(ports), source)


def host_of(hint: str, source: str = "--head-address") -> str:
    """The host of ``HOST[:PORT]``; the port is GCS's, not the roll call's.

    :raises IdentityError: if it is neither.
    """
    try:
        return parsers.host_port(hint)[0]
    except ValueError as error:
        raise IdentityError(f"{source}={hint!r}: {error}", hint="--head-address=HOST[:PORT]") from None
