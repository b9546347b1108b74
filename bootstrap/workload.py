"""The user's command on the head: its environment, its start and its status."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from bootstrap.children import Child, Children

NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""A shell's statuses for a command that cannot be started (POSIX 2.8.2)."""


def environment(run_id: str, gcs_address: str, nodes: int, gpus: float) -> dict[str, str]:
    """What the workload finds in its environment beside ours; documented in docs/workload.md."""
    return {
        "RAY_ADDRESS": gcs_address,
        "RAY_BOOTSTRAP_RUN_ID": run_id,
        "RAY_BOOTSTRAP_CLUSTER_NODES": str(nodes),
        "RAY_BOOTSTRAP_CLUSTER_GPUS": f"{gpus:g}",
    }


def start(children: Children, argv: Sequence[str], env: Mapping[str, str]) -> Child | tuple[int, str]:
    """Start it with our standard input, output and error; or say with which status it could not be, and why."""
    try:
        return children.spawn(argv, env, stdin=None)
    except FileNotFoundError:
        return NOT_FOUND, f"{argv[0]!r} is not found on PATH"
    except OSError as error:
        return NOT_EXECUTABLE, f"{argv[0]!r} cannot be executed: {error.strerror}"


async def finish(children: Children, child: Child, signum: int, grace: float, hurry: asyncio.Event) -> int:
    """Pass a signal on to its group and give it ``grace`` seconds, less if ``hurry`` is set; returns its status."""
    child.signal(signum)
    hurrying = asyncio.ensure_future(hurry.wait())
    either: set[asyncio.Future[Any]] = {child.exited, hurrying}
    await asyncio.wait(either, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
    hurrying.cancel()
    return await children.end(child, 0)
