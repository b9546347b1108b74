"""Connect to a head, or to a Ray that already runs."""

import asyncio
import socket
from collections.abc import Callable
from typing import TypeVar

from bootstrap import net
from bootstrap.model import HeadAddress
from bootstrap.process.bounded import TimedOut, run_in_thread, wait_for

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def dial(head: HeadAddress, timeout: float, make: Callable[[], P]) -> P:
    """Return a connection to the first address of ``head`` that answers.

    :param make: makes the protocol of each attempt.
    :raises OSError, UnicodeError: the error of the last address if none answers, or that of the look-up.
    """
    named = not net.is_address(head.host)
    try:
        addresses = await run_in_thread(timeout, lambda: net.look_up(head.host)) if named else [head.host]
    except socket.gaierror as error:
        raise OSError(f"{head.host} does not resolve yet: {error.strerror}") from None
    loop, failure = asyncio.get_running_loop(), OSError(f"{head.host} has no address")
    for address in addresses:  # each gets an equal share of the time, since one may drop packets
        try:
            connecting = loop.create_connection(make, address, head.port)
            return (await wait_for(timeout / len(addresses), connecting))[1]
        except TimedOut:
            failure = OSError(f"no answer from {address} within {timeout / len(addresses):g} s")
        except OSError as error:
            failure = OSError(net.reason(error) + (f" at {address}" if named else ""))
    raise failure
