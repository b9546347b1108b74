"""What Ray starts as a Python worker: it gives back the signals that Ray's daemons ignore, then is Ray's own program.

Tasks and actors, and what they start, find these signals as they do without ray-bootstrap. Without SIGINT, which Ray
raises in a worker, ``ray.cancel`` interrupts no task; SIGUSR1 and SIGUSR2 are the program's. Where a runtime
environment brings along another node's token, address or interface, the worker takes its own node's
(:mod:`bootstrap.raynode.own_values`).

The raylet starts this file, with whatever Python a runtime environment names, so it imports nothing of ours. It has the
name of Ray's own program, by which people and tools find workers among the processes.
:mod:`bootstrap.raynode.dispositions` passes its path to the raylet, and ignores the signals that it gives back.
"""

import importlib.util
import json
import os
import signal
import socket
import sys
from pathlib import Path


def _rays_own() -> Path:
    ray = importlib.util.find_spec("ray")
    if ray is None or not ray.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'ray'", name="ray")
    return Path(ray.submodule_search_locations[0], "_private", "workers", Path(__file__).name)


def _keep_own_values(own: "dict[str, str]") -> None:
    """Take this node's values; of an interface only if the one that was brought along is not here: it may be meant."""
    for name in [name for name in os.environ if name.endswith("_SOCKET_IFNAME")]:
        if _is_elsewhere(os.environ[name], is_pattern=name.startswith(("NCCL", "HCCL"))):
            del os.environ[name]
        else:
            own.pop(name, None)
    os.environ.update(own)


def _is_elsewhere(value: str, *, is_pattern: bool) -> bool:
    """Return whether a value names one interface, and this node lacks that; of a pattern only ``=`` makes it a name."""
    name = value[1:] if is_pattern and value.startswith("=") else value
    if (is_pattern and name == value) or "," in name:
        return False
    try:
        socket.if_nametoindex(name)
    except OSError:
        return True
    return False


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    _keep_own_values(json.loads(os.environ.pop("RAY_BOOTSTRAP_OWN_VALUES", "{}")))
    if sys.path and sys.path[0] == str(Path(__file__).parent):  # where user code would find our modules
        del sys.path[0]
    # As if Python had been started with it; the `spawn` of multiprocessing starts what __file__ and argv name.
    __file__ = sys.argv[0] = str(_rays_own())
    sys.path.insert(0, str(Path(__file__).parent))
    exec(compile(Path(__file__).read_bytes(), __file__, "exec"))  # noqa: S102 (Ray's own program)
