"""The head has a name that the platform publishes: in Kubernetes through a headless Service.

It takes some 30 s until such a name answers, since resolvers cache the negative answer too
(https://github.com/kubernetes/kubernetes/issues/92559), so that "no such name" means not yet.
"""

from collections.abc import Sequence

from bootstrap import net
from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.model import HeadAddress, NodeIdentity
from bootstrap.rendezvous.protocol import Lookup, Rendezvous
from bootstrap.rendezvous.static import host_of
from bootstrap.settings import Settings

HEADLESS_SERVICE = """\
add a headless Service, or give --head-address=HOST or --shared-dir=DIR:
  apiVersion: v1
  kind: Service
  metadata: {name: ray}
  spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {batch.kubernetes.io/job-name: <the Job's name>}}
and in the Job: spec.template.spec.subdomain: ray"""


def by_name(names: Sequence[str], ports: Sequence[int], resolve: net.Resolve = net.look_up) -> Rendezvous:
    """Return the rendezvous at these names, which are asked anew at each look."""

    def lookup() -> Lookup:
        """Return every address of every name on every port. :raises IdentityError: if a name is malformed."""
        found: list[tuple[str, str]] = []
        ignored: list[str] = []
        for name in names:
            try:
                found += [(address, name) for address in resolve(name)]
            except UnicodeError as error:
                raise IdentityError(f"{name!r} cannot be a host name: {error}", hint="--head-address=HOST") from None
            except OSError as error:
                ignored.append(f"{name}: {error.strerror or error}")
        return Lookup([HeadAddress(address, port, f"DNS {name}") for port in ports for address, name in found], ignored)

    return Rendezvous(f"the name {', '.join(names)}", lookup)


def make(_settings: Settings, identity: NodeIdentity, _host: Host, ports: Sequence[int]) -> Rendezvous:
    """From the launcher's hints.

    :raises IdentityError: without a name, on the head too, so that all nodes say it at once.
    """
    if not identity.head_hints:
        raise IdentityError(
            f"launcher {identity.launcher}: this node has no name in a headless Service, so the head's is not known",
            hint=HEADLESS_SERVICE,
        )
    return by_name([host_of(hint) for hint in identity.head_hints], ports)
