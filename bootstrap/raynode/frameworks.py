"""What frameworks on Ray look for in the environment of every process: a row of :data:`_ROWS` is a variable.

What the user, the launcher or the image has set stays. ``--framework-env=off`` sets none of them.

==========================  ===================================  =======================================================
variable                    value                                when
==========================  ===================================  =======================================================
MASTER_ADDR                 the head's node address              always; on a worker, once it has joined the roll call
VLLM_HOST_IP                this node's address                  always: vLLM places its workers by Ray's addresses
GLOO_SOCKET_IFNAME          the interface that holds it          the node has several, or its name does not lead to it
TP_SOCKET_IFNAME            the same                             the node has several
HCCL_SOCKET_IFNAME          the same, after ``=``                the node has several
NCCL_SOCKET_IFNAME          the same, after ``=``                so, without RDMA devices, and no nccl.conf names one
no_proxy, NO_PROXY          extended by the nodes' addresses     a proxy is set
==========================  ===================================  =======================================================
"""

import ipaddress
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from bootstrap.node.inspection import Node

GLOO = "GLOO_SOCKET_IFNAME"
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
_HERE = ("localhost", "127.0.0.1", "::1")
"""requests, and so ``ray job submit``, asks a proxy for them, too."""
_REPLACED = ("127.0.0.1", "::1")
"""Node addresses that Ray does not take as they are (resolve_ip_for_localhost in its services.py)."""
_MOST_EXCEPTIONS = 64 * 1024
"""Characters of no_proxy; execve(2) takes 128 KiB in one variable (MAX_ARG_STRLEN)."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What becomes of one variable."""

    name: str
    value: str | None
    """The value to set; None: nothing is set."""
    why: str

    def __str__(self) -> str:
        """Return it as ``detect`` prints it."""
        return f"{self.name}={self.value} ({self.why})" if self.value is not None else f"{self.name}: {self.why}"


@dataclass(frozen=True, slots=True)
class _Facts:
    node: Node
    env: Mapping[str, str]
    ray_ip: str | None
    """This node's address as Ray knows it; None if Ray chooses it."""
    head: str | None
    """The head's; None as long as it is unknown."""


_Answer = tuple[str | None, str]
"""The value, or None, and why."""


def variables(node: Node, env: Mapping[str, str], head: str | None, *, ray_ip: str | None) -> dict[str, str]:
    """Return the variables to add to ``env``; see :func:`plan`."""
    return {each.name: each.value for each in plan(node, env, head, ray_ip=ray_ip) if each.value is not None}


def plan(node: Node, env: Mapping[str, str], head: str | None, *, ray_ip: str | None) -> list[Planned]:
    """Return what becomes of each variable.

    :param env: what is set so far; it stays, and no_proxy is extended.
    :param head: the head's node address; None if it is unknown.
    :param ray_ip: this node's address as Ray knows it; None if Ray chooses it by itself (KubeRay).
    """
    if node.settings.framework_env == "off":
        return []
    facts = _Facts(node, env, ray_ip, head)
    found = []
    for name, row in _ROWS:
        value, why = (None, f"stays {env[name]!r}") if env.get(name) else row(facts)
        found.append(Planned(name, value, why))
    nodes = [each for each in (ray_ip, head) if each]
    why = f"a proxy is set; {', '.join(nodes) or 'this node'} and loopback are reached without"
    return [*found, *(Planned(name, value, why) for name, value in exceptions(env, nodes).items())]


def _head(facts: _Facts) -> _Answer:
    return facts.head, "the head's node address" if facts.head else "the head's node address, once it is known"


def _own(facts: _Facts) -> _Answer:
    if facts.ray_ip in _REPLACED:
        return None, f"Ray replaces {facts.ray_ip} by the address of the default route, if there is one"
    return facts.ray_ip, "this node's address in Ray" if facts.ray_ip else "Ray chooses its address by itself"


def _several(facts: _Facts) -> _Answer:
    """Return the interface to use if there are several, in a syntax of whole names."""
    address = facts.node.address
    if ipaddress.ip_address(address.ip).is_loopback:
        return None, f"the node address is {address.ip}, which no other node reaches"
    if address.interface is None:
        return None, f"no interface of this machine holds {address.ip}"
    if not address.besides:
        return None, f"{address.interface} is the only interface that other nodes reach"
    return address.interface, f"holds {address.ip}; there are also {', '.join(address.besides)}"


def _gloo(facts: _Facts) -> _Answer:
    interface = facts.node.address.interface
    if not facts.node.named and interface is not None:
        return interface, "this node's name does not lead to its address"
    return _several(facts)


def _exactly(facts: _Facts) -> _Answer:
    """Return the same where a name is a prefix, unless ``=`` goes before it.

    NCCL: https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html#nccl-socket-ifname; HCCL:
    https://www.hiascend.com/document/detail/en/canncommercial/850/commlib/hcclug/hcclug_000093.html
    """
    interface, why = _several(facts)
    return (None if interface is None else f"={interface}"), why


def _nccl(facts: _Facts) -> _Answer:
    value, why = _exactly(facts)
    if value is None:
        return value, why
    for path in filter(None, _configurations(facts.env)):
        lines = (facts.node.host.read(path) or "").splitlines()
        if any(line.partition("=")[0].strip() == "NCCL_SOCKET_IFNAME" for line in lines):
            return None, f"{path} names one, which a variable would override"
    try:
        devices = sorted(path.name for path in facts.node.host.path("/sys/class/infiniband").iterdir())
    except OSError:
        devices = []
    if devices:
        return (
            None,
            f"NCCL chooses by itself beside RDMA devices (InfiniBand, RoCE, EFA): {', '.join(devices)}",
        )
    return value, why


def _configurations(env: Mapping[str, str]) -> Iterator[str]:
    """Yield the files that NCCL reads variables from, an administrator's and the user's."""
    home = env.get("HOME", "")
    yield "/etc/nccl.conf"
    own = env.get("NCCL_CONF_FILE") or (f"{home}/.nccl.conf" if home else "")
    yield f"{home}{own[1:]}" if own.startswith("~/") else own


_ROWS: tuple[tuple[str, Callable[[_Facts], _Answer]], ...] = (
    ("MASTER_ADDR", _head),
    ("VLLM_HOST_IP", _own),
    (GLOO, _gloo),
    ("TP_SOCKET_IFNAME", _several),
    ("HCCL_SOCKET_IFNAME", _exactly),
    ("NCCL_SOCKET_IFNAME", _nccl),
)


def exceptions(env: Mapping[str, str], nodes: Collection[str]) -> dict[str, str]:
    """Return no_proxy and NO_PROXY, so extended that no proxy is asked for these nodes; nothing if no proxy is set.

    Both spellings, since programs differ in the one that they prefer: the other's exceptions would be lost.

    :param nodes: addresses.
    """
    if not any(env.get(name) or env.get(name.upper()) for name in _PROXIES):
        return {}
    found = {}
    for name, other in (("no_proxy", "NO_PROXY"), ("NO_PROXY", "no_proxy")):
        given = env.get(name) or env.get(other) or ""
        items = [item.strip() for item in given.split(",") if item.strip()]
        if "*" in items:  # curl knows it only alone
            continue
        text = ",".join(dict.fromkeys([*items, *_HERE, *nodes]))
        found[name] = text if len(text) <= _MOST_EXCEPTIONS else text[: text.rindex(",", 0, _MOST_EXCEPTIONS)]
    return found
