"""Wait for Ray's dashboard, which takes jobs a few seconds after Ray is up, if the workload needs it."""

import asyncio
import contextlib
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bootstrap import net, timeouts
from bootstrap.errors import RayStartFailed
from bootstrap.model import Phase, join_host_port
from bootstrap.parsers import host_port
from bootstrap.process.bounded import TimedOut, run_in_thread, wait_for
from bootstrap.run.context import Context

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (not to bind)
_NEEDS = re.compile(
    r"""(?<![\w.-])ray\s+(?:-\S+\s+)*(?:job|list|get|summary|logs)(?![\w.-])
    | (?<![\w.-])serve\s+(?:deploy|config|status|shutdown)(?![\w.-])
    | \bJobSubmissionClient\b""",
    re.VERBOSE,
)
"""The commands, and the class, that ask the dashboard."""
_MOST_FILES, _MOST_READ = 16, 64 * 1024
"""Files among the workload's words that are looked at, and the bytes of each."""
_OF_JOBS = (200, 401, 403)
"""Statuses of a jobs API that works; the last two ask for Ray's token."""


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Where the dashboard and the agent on its node listen (HTTP)."""

    address: str
    agent: str
    """It runs the jobs: the dashboard asks the agent of the head's node for that (get_target_agent in job_head.py)."""

    @classmethod
    def of(cls, ports: Mapping[str, int], host: str, ip: str) -> "Dashboard":
        """Return the dashboard of a head with these ports, which listens on ``host``, at the node address ``ip``."""
        address = join_host_port(_WILDCARDS.get(host, host), ports["dashboard_port"])
        return cls(address, join_host_port(ip, ports["dashboard_agent_listen_port"]))

    async def fault(self) -> str:
        """Return why no job could be submitted now; empty if it could.

        The dashboard answers once all of its modules run (head.py in Ray), and waits only 10 s for the agent ("No
        available agent to submit job"). Neither is sent a token, as another user may hold the port: 401 is an answer.

        :raises RayStartFailed: if another user does, whom the workload would send its jobs and the token.
        """
        for address, path, answers in ((self.address, "/api/jobs/", _OF_JOBS), (self.agent, "/api/healthz", None)):
            try:
                status = await wait_for(timeouts.DASHBOARD_ANSWER_S, _get(address, path))
            except TimedOut:
                return f"http://{address}{path}: no answer within {timeouts.DASHBOARD_ANSWER_S:g} s"
            except OSError as error:
                return f"http://{address}{path}: {net.reason(error)}"
            _check_owner(address)
            if answers and status not in answers:
                return f"http://{address}{path}: status {status}"
        return ""


def _check_owner(address: str) -> None:
    """Every user sees the port in Ray's command line, before Ray has bound it."""
    host, port = host_port(address)
    user = net.listening_user(host, port or 0) if net.is_address(host) else None
    if user not in (None, 0, os.geteuid()):
        what = f"uid {user} listens at {address}, where this run's dashboard was to listen"
        raise RayStartFailed(what, hint="try again: another port is taken then; or --dashboard-port=PORT")


async def _get(address: str, path: str) -> int:
    """Return the status of a GET, sent straight to this address, whatever proxy is set; 0 if the answer is not HTTP.

    :raises OSError: if there is no answer.
    """
    host, port = host_port(address)
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        with contextlib.suppress(ValueError):  # a line that is too long
            words = (await reader.readline()).split(maxsplit=2)
            if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit():
                return int(words[1])
        return 0
    finally:
        writer.close()


async def wait(run: Context, dashboard: Dashboard) -> None:
    """Wait until the dashboard takes jobs, for as long as ``--dashboard-wait`` says.

    :raises RayStartFailed: if it does not within a time that the user gave; otherwise that is a warning.
    """
    asked, limit = run.settings.dashboard_wait, timeouts.DASHBOARD_S
    if asked is not None:
        limit = asked
    elif run.settings.workload:
        with contextlib.suppress(TimedOut):
            why = await run_in_thread(timeouts.READ_WORKLOAD_S, lambda: need(run.settings.workload))
            if not why:
                return
            run.log.say(f"the workload starts when the dashboard takes jobs, as it needs that: {why}")
    if limit == 0:
        return
    run.enter(Phase.WAITING_FOR_DASHBOARD)
    fault = await _until_it_answers(dashboard, limit)
    if fault:
        what = f"Ray's dashboard at {dashboard.address} took no jobs within --dashboard-wait={limit:g}s: {fault}"
        hint = "pip install 'ray[default]', or see dashboard.log in the folder that the last line names"
        if asked is not None:
            raise RayStartFailed(what, hint=hint)
        run.log.warn(f"{what}; going on without it; fix: {hint}")


async def _until_it_answers(dashboard: Dashboard, limit: float) -> str:
    """Return why the dashboard takes no jobs after ``limit`` seconds; empty as soon as it does."""
    last = ""

    async def look() -> None:
        nonlocal last
        while last := await dashboard.fault():
            await asyncio.sleep(timeouts.DASHBOARD_LOOK_AGAIN_S)

    try:
        await wait_for(limit, look())
    except TimedOut:
        return last or "no answer"
    return ""


def need(workload: Sequence[str]) -> str:
    """Return what in the workload's command line, or in a text file that it names, needs the dashboard; else nothing.

    It reads files, which may hang: bound it.
    """
    if found := _NEEDS.search(" ".join(workload)):
        return f"`{found[0]}` in its command line"
    for path in itertools.islice(_files(workload), _MOST_FILES):
        with contextlib.suppress(OSError), path.open("rb") as file:
            content = file.read(_MOST_READ)
            if b"\0" not in content and (found := _NEEDS.search(content.decode("utf-8", "replace"))):
                return f"`{found[0]}` in {path}"
    return ""


def _files(workload: Sequence[str]) -> Iterator[Path]:
    """Yield the files that the command line names, also in a script after ``bash -c``."""
    for word in dict.fromkeys([*workload, *" ".join(workload).split()]):
        with contextlib.suppress(OSError, ValueError):
            if Path(word).is_file():
                yield Path(word)
