"""Find the head by a name that the platform publishes: in Kubernetes through a headless Service.

Such a name takes some 30 s to resolve, since resolvers also cache negative answers
(https://github.com/kubernetes/kubernetes/issues/92559); "no such name" therefore means "not yet".
"""

from collections.abc import Sequence

from bootstrap import net
from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.model import HeadAddress, NodeIdentity
from bootstrap.rendezvous.around import survey_names
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
    """Return the rendezvous at these names; each look resolves them again."""

    def lookup() -> Lookup:
        """Return every address of every name with every port. :raises IdentityError: if a name is malformed."""
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

    return Rendezvous(f"the name {', '.join(names)}", lookup, survey=lambda: survey_names(names))


def make(_settings: Settings, identity: NodeIdentity, _host: Host, ports: Sequence[int]) -> Rendezvous:
    """Return the rendezvous at the names that the launcher gives.

    :raises IdentityError: if it gives none; also on the head, so that all nodes fail at once.
    """
    if not identity.head_hints:
        raise IdentityError(
            f"launcher {identity.launcher}: this node has no name in a headless Service, so the head's name is unknown",
            hint=HEADLESS_SERVICE,
        )
    return by_name([host_of(hint) for hint in identity.head_hints], ports)
