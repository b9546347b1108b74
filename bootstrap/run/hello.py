"""What this node says about itself in the roll call."""

import platform
import time

from bootstrap import __version__
from bootstrap.errors import BootstrapError
from bootstrap.host import Host
from bootstrap.model import NodeIdentity
from bootstrap.node.address import node_address
from bootstrap.node.inspection import Node
from bootstrap.rollcall.wire import Hello
from bootstrap.settings import Settings


def make_hello(settings: Settings, host: Host, identity: NodeIdentity, node: Node | None) -> Hello:
    """Return this node's hello; without ``node``, that of a node that could not be inspected."""
    from importlib import metadata  # noqa: PLC0415 (its 10 ms must not delay the starter)

    try:
        ray_version = metadata.version("ray")
    except metadata.PackageNotFoundError:
        ray_version = "none"
    gpus = node.resources.gpus if node else ()
    return Hello(
        run=identity.run_id,
        attempt=identity.attempt,
        rank=identity.rank,
        size=identity.size,
        host=host.hostname,
        ip=node.address.ip if node else _best_guess(settings, host),
        agent=__version__,
        ray=ray_version,
        python=platform.python_version(),
        cpus=node.resources.cpus if node else 0,
        gpus=node.resources.num_gpus if node else 0,
        gpu_model=gpus[0].name if gpus else "",
        time=time.time(),
    )


def _best_guess(settings: Settings, host: Host) -> str:
    """Return the likeliest address of a node that could not be inspected."""
    try:
        return node_address(settings, host, None).ip
    except BootstrapError:
        return settings.node_ip or host.hostname
