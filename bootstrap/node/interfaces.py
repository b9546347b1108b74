"""Which interfaces, and which of their addresses, a pattern selects: names, NCCL's patterns, networks."""

import dataclasses
import ipaddress
from dataclasses import dataclass

from bootstrap.net import Interface

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Pattern:
    """A comma list of interface names and networks, such as ``eth0,10.4.0.0/16``.

    Names are prefixes; a leading ``=`` makes them whole names, a leading ``^`` excludes all that the list has
    (https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html#nccl-socket-ifname). Of an interface that only a
    network selects, only the addresses in that network count.
    """

    excludes: bool
    exact: bool
    names: tuple[str, ...]
    networks: tuple[Network, ...]

    @classmethod
    def parse(cls, text: str, *, networks: bool = True) -> "Pattern":
        """Return the pattern that ``text`` is.

        :param networks: False for NCCL_SOCKET_IFNAME and the like, which take names alone.
        :raises ValueError: if an item with a ``/`` is not a network (:func:`bootstrap.parsers.interface` checks it).
        """
        rest = text.strip()
        excludes = rest.startswith("^")
        rest = rest[1:] if excludes else rest
        exact = rest.startswith("=")
        items = [item for item in (part.strip() for part in rest.lstrip("=").split(",")) if item]
        ranges = [item for item in items if networks and "/" in item]
        names = tuple(item for item in items if item not in ranges)
        found = tuple(ipaddress.ip_network(item.lstrip("="), strict=False) for item in ranges)
        return cls(excludes, exact, names, found)

    def lists(self, name: str) -> bool:
        """Return whether one of the names is, or begins, the interface ``name``."""
        return any(
            name == item.lstrip("=") if self.exact or item.startswith("=") else name.startswith(item)
            for item in self.names
        )

    def names_interface(self, name: str) -> bool:
        """Return whether the pattern selects this interface by its name: then it is meant, also if it is a bridge."""
        return not self.excludes and self.lists(name)

    def narrow(self, interface: Interface) -> Interface:
        """Return the interface with those of its addresses that the pattern selects; maybe none."""
        if not (self.names or self.networks):
            return interface
        named = self.lists(interface.name)
        chosen = (a for a in interface.addresses if (named or self._holds(a)) != self.excludes)
        return dataclasses.replace(interface, addresses=tuple(chosen))

    def _holds(self, address: str) -> bool:
        return any(ipaddress.ip_address(address) in network for network in self.networks)
