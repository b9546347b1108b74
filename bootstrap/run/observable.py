"""What lets ``wait``, ``status --run`` and ``down`` on this node find the run's roll call and prove that they may."""

from collections.abc import Sequence

from bootstrap.files.runtime_dir import OBSERVER
from bootstrap.files.secret import Secret
from bootstrap.model import HeadAddress, join_host_port
from bootstrap.node.address import other_addresses
from bootstrap.rollcall.auth import observer_key
from bootstrap.rollcall.hello import Hello
from bootstrap.rollcall.server import RollCall
from bootstrap.run.context import Context

_LOOPBACK = "127.0.0.1"


def show_roll_call(run: Context, hello: Hello, secret: Secret, address: str) -> None:
    """Leave the roll call's address in the state file and, if the nodes share a secret, the observers' key beside it.

    Not the secret: an observer needs less.
    """
    if secret.value is not None:
        run.runtime.write_private(OBSERVER, observer_key(secret.value, hello.run, hello.attempt))
    run.runtime.set_state(rollcall=address)


def listen(run: Context, roll_call: RollCall, ports: Sequence[int]) -> HeadAddress:
    """Open the roll call of a head at one of these ports; return its address."""
    me, port = roll_call.me, roll_call.listen(ports)
    show_roll_call(run, me, roll_call.secret, join_host_port(_LOOPBACK, port))  # the shortest way
    return HeadAddress(me.ip, port, others=other_addresses(me.ip))


def listen_here(run: Context, roll_call: RollCall) -> HeadAddress:
    """Open the roll call of the only node, for observers on this machine alone; return an address without a port."""
    try:
        port = roll_call.listen([0], loopback=True)
        show_roll_call(run, roll_call.me, roll_call.secret, join_host_port(_LOOPBACK, port))
    except OSError as error:
        what = f"`ray-bootstrap down` cannot reach this run: no port on {_LOOPBACK}: {error.strerror}"
        run.log.warn(f"{what}; fix: `ip link set lo up`")
    return HeadAddress(roll_call.me.ip, 0)
