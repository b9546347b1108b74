"""The head has a name that the platform publishes: in Kubernetes through a headless Service.

It takes some 30 s until such a name answers, since resolvers cache the negative answer too
(https://github.com/kubernetes/kubernetes/issues/92559), so that "no such name" means not yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bootstrap import net
from bootstrap.errors import IdentityError
from bootstrap.files.manifest import FileDigests
from bootstrap.host import Host
from bootstrap.model import HeadAddress, NodeIdentity
from bootstrap.rendezvous.static import host_of
from bootstrap.settings import Settings

HEADLESS_SERVICE = """\
add a headless Service, or give --head-address=HOST or --shared-dir=DIR:
  apiVersion: v1
  kind: Service
  metadata: {name: ray}
  spec:
    clusterIP: None
    publishNotReadyAddresses: true
    selector: {batch.kubernetes.io/job-name: <the Job's name>}
and in the Job: spec.template.spec.subdomain: ray"""


@dataclass
class Dns:
    """Asks anew at each call."""

    names: tuple[str, ...]
    ports: tuple[int, ...]
    resolve: net.Resolve = net.look_up
    ignored: list[str] = field(default_factory=list)
    secret_path: None = None

    @property
    def place(self) -> str:
        """The names."""
        return f"the name {', '.join(self.names)}"

    def owned_files(self, _head: HeadAddress) -> FileDigests:
        """None."""
        return {}

    def announce(self, _head: HeadAddress) -> None:
        """Nothing to do: the platform publishes the name."""

    def lookup(self) -> Sequence[HeadAddress]:
        """Every address of every name on every port; empty while none resolves.

        :raises IdentityError: if a name is malformed.
        """
        self.ignored.clear()
        found = [(address, name) for name in self.names for address in self._addresses(name)]
        return [HeadAddress(address, port, f"DNS {name}") for port in self.ports for address, name in found]

    def withdraw(self) -> None:
        """Nothing was left."""

    def _addresses(self, name: str) -> Sequence[str]:
        try:
            return self.resolve(name)
        except UnicodeError as error:
            raise IdentityError(f"{name!r} cannot be a host name: {error}", hint="--head-address=HOST") from None
        except OSError as error:
            self.ignored.append(f"{name}: {error.strerror or error}")
            return ()


def make(_settings: Settings, identity: NodeIdentity, _host: Host, ports: Sequence[int]) -> Dns:
    """From the launcher's hints.

    :raises IdentityError: without a name, on the head too, so that all nodes say it at once.
    """
    if not identity.head_hints:
        raise IdentityError(
            f"launcher {identity.launcher}: this node has no name in a headless Service, so the head's is not known",
            hint=HEADLESS_SERVICE,
        )
    return Dns(tuple(map(host_of, identity.head_hints)), tuple(ports))
