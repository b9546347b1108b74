"""Writes two addresses in advance that ``ray start`` would wait for: those of the dashboard and of its agent.

Both are known beforehand. The two processes start as always, one to three seconds later, and write the same values.
docs/performance.md has the gains.
"""

import contextlib
import importlib
from collections.abc import Iterator

from bootstrap.raynode.patches import Arguments


@contextlib.contextmanager
def dashboard(given: Arguments) -> Iterator[None]:
    """Write the dashboard's address, which ``start_api_server`` (services.py) awaits in GCS before the raylet's start.

    dashboard/head.py writes the same. RAY_DASHBOARD_STARTUP_TIMEOUT_S=0 also removes the wait, but then
    ``ray.init().dashboard_url`` stays empty for good.
    """
    constants = importlib.import_module("ray._private.ray_constants")
    network = importlib.import_module("ray._common.network_utils")
    raylet = importlib.import_module("ray._raylet")
    host = given["host"] if network.is_localhost(given["host"]) else given["node_ip_address"]
    gcs = raylet.GcsClient(address=given["gcs_address"], cluster_id=given["cluster_id_hex"])
    address = network.build_address(host, given["port"]).encode()
    gcs.internal_kv_put(constants.DASHBOARD_ADDRESS.encode(), address, True, constants.KV_NAMESPACE_DASHBOARD)
    yield


@contextlib.contextmanager
def agent(given: Arguments) -> Iterator[None]:
    """Write the HTTP port of this node's dashboard agent, which the raylet awaits in its session's folder.

    The raylet registers only when it knows all ports of its agents, and aborts after 15 or 30 s, as on a cold disk
    (WaitForDashboardAgentPorts, node_manager.cc). Its command line has the fixed ones
    (:func:`bootstrap.raynode.ports.choose`) but this one, which services.py omits. Ray 2.52 does not read the file.
    """
    raylet = importlib.import_module("ray._raylet")
    port = given["dashboard_agent_listen_port"]
    if port:  # 0 stands for any port, which only the agent will know
        raylet.persist_port(given["session_dir"], given["node_id"], raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME, port)
    yield
