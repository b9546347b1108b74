"""Variables whose value is another on each node, and how Ray's workers keep their node's.

NeMo-RL and open-instruct pass all of the program's environment to its tasks and actors,
``ray.init(runtime_env={"env_vars": dict(os.environ)})``. The head's values would then count on every node: another
node's address, and the path of a token that is not there, without which a worker aborts.
"""

import json
import os

VARIABLE = "RAY_BOOTSTRAP_OWN_VALUES"
"""In the environment of Ray's daemons alone, as JSON; ``default_worker.py`` takes it out again."""
# fmt: off
NAMES = (
    "RAY_AUTH_TOKEN_PATH", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT", "VLLM_HOST_IP",
    "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "HCCL_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME",
)
# fmt: on
"""A worker takes its own node's interface only if it is brought the name of one that is not here."""


def note() -> None:
    """Note this node's values in the environment of this process, which becomes ``ray start``."""
    os.environ[VARIABLE] = json.dumps({name: os.environ[name] for name in NAMES if name in os.environ})
