"""What this node says about itself in the roll call."""

import platform

from bootstrap import __version__
from bootstrap.errors import BootstrapError
from bootstrap.files.secret import Secret, uses_tls
from bootstrap.host import Host
from bootstrap.model import NodeIdentity
from bootstrap.node.address import node_address
from bootstrap.node.inspection import Node
from bootstrap.rollcall.hello import Hello
from bootstrap.settings import Settings


def make_hello(
    settings: Settings,
    host: Host,
    identity: NodeIdentity,
    secret: Secret,
    node: Node | None,
    probes: tuple[int, int] = (0, 0),
) -> Hello:
    """Return this node's hello; without ``node``, that of a node that could not be inspected.

    :param probes: the ports on which this node answers probes, the second one in the range of Ray's workers.
    """
    from importlib import metadata  # noqa: PLC0415 (its 10 ms must not delay the starter)

    try:
        ray_version = metadata.version("ray")
    except metadata.PackageNotFoundError:
        ray_version = "none"
    who = (identity.run_id, identity.attempt, identity.rank, identity.size, host.hostname)
    versions = (__version__, ray_version, platform.python_version())
    now = 0.0  # it is stamped when it is sent
    tls = uses_tls(secret, settings)
    if node is None:
        return Hello(*who, _best_guess(settings, host), *versions, cpus=0, gpus=0, gpu_model="", time=now, tls=tls)
    has, model = node.resources, node.resources.gpus[0].name if node.resources.gpus else ""
    return Hello(*who, node.address.ip, *versions, has.cpus, has.num_gpus, model, now, tls, *probes)


def _best_guess(settings: Settings, host: Host) -> str:
    """Return the likeliest address of a node that could not be inspected."""
    try:
        return node_address(settings, host, None).ip
    except BootstrapError:
        return settings.node_ip or host.hostname
