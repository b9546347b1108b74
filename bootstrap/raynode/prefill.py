"""What ``ray start`` would wait for, told beforehand, since it is known: two addresses of processes that it starts.

Both processes come up as always, a second or three later, and then write the same themselves. For
:mod:`bootstrap.raynode.child_main` only; Ray is imported there. What each is worth is in docs/performance.md.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any


def announce() -> None:
    """From now on ``ray start`` in this process waits neither for the dashboard nor for its agent.

    A Ray that names these things otherwise waits, as it always did.
    """
    try:
        services = importlib.import_module("ray._private.services")
    except ImportError:
        return
    for name, tell in (("start_api_server", _dashboard), ("start_raylet", _agent)):
        if hasattr(services, name):
            setattr(services, name, _after(tell, getattr(services, name)))


def _after(tell: Callable[[Mapping[str, Any]], None], stock: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(stock)
    def start(*args: Any, **kwargs: Any) -> Any:
        with contextlib.suppress(Exception):  # see above
            tell(inspect.signature(stock).bind(*args, **kwargs).arguments)
        return stock(*args, **kwargs)

    return start


def _dashboard(given: Mapping[str, Any]) -> None:
    """The dashboard's address, for which ``start_api_server`` (services.py) looks in GCS before the raylet is started.

    It is written as dashboard/head.py does. RAY_DASHBOARD_STARTUP_TIMEOUT_S=0 also takes the wait out, but then
    ``ray.init().dashboard_url`` stays empty for good.
    """
    constants = importlib.import_module("ray._private.ray_constants")
    network = importlib.import_module("ray._common.network_utils")
    raylet = importlib.import_module("ray._raylet")
    host = given["host"] if network.is_localhost(given["host"]) else given["node_ip_address"]
    gcs = raylet.GcsClient(address=given["gcs_address"], cluster_id=given["cluster_id_hex"])
    address = network.build_address(host, given["port"]).encode()
    gcs.internal_kv_put(constants.DASHBOARD_ADDRESS.encode(), address, True, constants.KV_NAMESPACE_DASHBOARD)


def _agent(given: Mapping[str, Any]) -> None:
    """The HTTP port of this node's dashboard agent, for which the raylet looks in its session's folder.

    Until it finds all ports of its agents the raylet is not registered, and it aborts after 15 or 30 s on a cold disk
    (WaitForDashboardAgentPorts, node_manager.cc). The others are told on its command line if they are fixed
    (:func:`bootstrap.raynode.ports.choose`); this one services.py forgets. Ray 2.52 knows no such file.
    """
    raylet = importlib.import_module("ray._raylet")
    port = given["dashboard_agent_listen_port"]
    if port:  # 0: any, which only the agent will know
        raylet.persist_port(given["session_dir"], given["node_id"], raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME, port)
