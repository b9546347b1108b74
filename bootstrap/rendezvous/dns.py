"""Find the head by a name that the platform publishes: in Kubernetes through a headless Service.

Such a name does not exist until the head's pod is published, and a resolver that was asked before repeats "no such
name" for as long as it caches that, up to 30 s (https://github.com/kubernetes/kubernetes/issues/92559). So a worker
asks for it once the Service's own name, ``ray.default.svc`` of ``ray-0.ray.default.svc``, shows all the other pods of
the run, and after :data:`timeouts.PUBLISHED_S` in any case.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from bootstrap import net, timeouts
from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.model import HeadAddress, NodeIdentity, Role
from bootstrap.rendezvous.around import RANK_0, Surroundings, survey_names
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
_SHOWN = 6
"""Maximum number of a Service's addresses in a message."""


def by_name(
    names: Sequence[str],
    ports: Sequence[int],
    resolve: net.Resolve = net.look_up,
    size: int | None = None,
    own_addresses: Callable[[], Collection[str]] = net.own_addresses,
) -> Rendezvous:
    """Return the rendezvous at these names; each look resolves them again.

    :param size: the number of nodes whose names the same Service publishes; None to ask for ``names`` at once.
    """
    services = sorted({service for name in names if (service := _service(name))})
    publication = _Publication(services, size or 0, resolve, own_addresses)

    def lookup() -> Lookup:
        """Return every address of every name with every port. :raises IdentityError: if a name is malformed."""
        if size is not None and (fault := publication.awaits()):
            return Lookup(faults=[fault])
        found: list[tuple[str, str]] = []
        faults: list[str] = []
        for name in names:
            addresses, fault = _resolved(name, resolve)
            found += [(address, name) for address in addresses]
            faults += [fault] if fault else []
        return Lookup([HeadAddress(address, port, f"DNS {name}") for port in ports for address, name in found], faults)

    survey = survey_names if size is None else survey_services
    return Rendezvous(f"the name {', '.join(names)}", lookup, survey=lambda: survey(names))


@dataclass
class _Publication:
    """Whether the headless Services of these names show all pods of the run, so that the head's name exists."""

    services: Sequence[str]
    size: int
    resolve: net.Resolve
    own_addresses: Callable[[], Collection[str]]
    _until: float | None = None
    """Since the first look no name is waited for longer than until then, on the monotonic clock."""
    _complete: bool = False

    def awaits(self) -> str:
        """Return what there is to wait for before the head's name may be asked for; empty if nothing."""
        now = time.monotonic()
        self._until = self._until or now + timeouts.PUBLISHED_S
        if self._complete or now >= self._until:
            return ""
        for service in self.services:
            addresses, fault = _resolved(service, self.resolve)
            others = set(addresses).difference(self.own_addresses())
            sixes = sum(":" in address for address in others)
            there = max(sixes, len(others) - sixes)  # with dual stack a pod has an address of each family
            if there < self.size - 1:
                return fault or f"{service} shows {there} of {self.size - 1} other pods so far"
        self._complete = True
        return ""


def _resolved(name: str, resolve: net.Resolve) -> tuple[Sequence[str], str]:
    """Return the addresses of a name, or why it has none. :raises IdentityError: if it is malformed."""
    try:
        return resolve(name), ""
    except UnicodeError as error:
        raise IdentityError(f"{name!r} cannot be a host name: {error}", hint="--head-address=HOST") from None
    except OSError as error:
        return (), f"{name} does not resolve yet: {error.strerror or error}"


def _service(name: str) -> str:
    """Return the name of the headless Service that publishes the pod ``name``; empty if the name has no domain."""
    return "" if net.is_address(name) else name.partition(".")[2]


def survey_services(names: Sequence[str]) -> Surroundings:
    """Return which of the names do not resolve, and whether their Service is missing or only its pod. It may block."""
    missing = next((name for name in names if _service(name) and not net.resolve(name)), "")
    if not missing:
        return survey_names(names)
    service = _service(missing)
    short = service.partition(".")[0]
    if others := net.resolve(service):
        what = f"its Service {service} resolves to {', '.join(others[:_SHOWN])}: the head's pod is not among them yet"
        return Surroundings(what, f"{RANK_0}; its pod has no address, or another `subdomain` than {short}")
    what = f"its Service {service} does not either: it is missing, or publishes no pod before that is ready"
    fix = f"`kubectl get services,endpointslices`: a headless Service {short} with publishNotReadyAddresses: true and"
    return Surroundings(what, f"{fix} a selector of these pods, and `subdomain: {short}` in the pods")


def make(_settings: Settings, identity: NodeIdentity, host: Host, ports: Sequence[int]) -> Rendezvous:
    """Return the rendezvous at the names that the launcher gives.

    :raises IdentityError: if it gives none; also on the head, so that all nodes fail at once.
    """
    if not identity.head_hints:
        raise IdentityError(
            f"launcher {identity.launcher}: this node has no name in a headless Service, so the head's name is unknown",
            hint=HEADLESS_SERVICE,
        )
    in_pod = host.get("KUBERNETES_SERVICE_HOST") is not None
    size = identity.size if in_pod and identity.role is Role.WORKER else None
    return by_name([host_of(hint) for hint in identity.head_hints], ports, size=size)
