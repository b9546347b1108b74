"""Wait for Ray's dashboard, which answers a few seconds after Ray."""

import asyncio
import contextlib

from bootstrap import timeouts
from bootstrap.errors import RayStartFailed
from bootstrap.model import Phase
from bootstrap.parsers import host_port
from bootstrap.process.bounded import TimedOut, wait_for
from bootstrap.run.context import Context


async def wait(run: Context, address: str) -> None:
    """Wait up to ``--dashboard-wait`` for the dashboard, which ``ray job submit`` and ``serve deploy`` need.

    :raises RayStartFailed: if it does not answer.
    """

    async def answers() -> None:
        host, port = host_port(address)
        while True:
            with contextlib.suppress(OSError):
                return (await asyncio.open_connection(host, port))[1].close()
            await asyncio.sleep(timeouts.DASHBOARD_LOOK_AGAIN_S)

    run.enter(Phase.WAITING_FOR_DASHBOARD)
    try:
        await wait_for(run.settings.dashboard_wait, answers())
    except TimedOut:
        what = f"Ray's dashboard at {address} did not answer within --dashboard-wait={run.settings.dashboard_wait:g}s"
        raise RayStartFailed(what, hint="see dashboard.log in the folder that the last line names") from None
