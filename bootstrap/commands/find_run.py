"""Find a run's roll call as an observer: first on this machine, then where the run's nodes would look for their head.

:mod:`bootstrap.commands.whole_run` has the commands that use it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bootstrap import parsers, rendezvous, timeouts
from bootstrap.errors import BootstrapError, HeadNotFound, IdentityError, UsageError
from bootstrap.files import runtime_dir
from bootstrap.files.secret import NO_SECRET, Secret, load_secret
from bootstrap.host import Host
from bootstrap.launchers.observer import attempt_of, identify_observer
from bootstrap.model import HeadAddress, NodeIdentity, Role, Verdict
from bootstrap.process.bounded import TimedOut, run_in_thread
from bootstrap.rendezvous import Rendezvous
from bootstrap.rendezvous.discovery import join_one_of
from bootstrap.rollcall.hello import ObserverHello
from bootstrap.rollcall.observer import Observer
from bootstrap.rollcall.refusal import NotThisHead
from bootstrap.settings import Settings

_SHOWN = 6
"""Places in a message."""


@dataclass(frozen=True)
class Ended:
    """How a run has ended, as a file says."""

    run_id: str
    verdict: Verdict
    when: float
    """Seconds since the epoch."""
    host: str
    file: Path

    def __str__(self) -> str:
        """Return it in words."""
        ago = max(0.0, time.time() - self.when)
        return f"run {self.run_id!r} ended on {self.host} {ago:.0f} s ago ({self.file})"


@dataclass
class Search:
    """The search for one run: that of ``--run-id``, of the launcher's variables, or the only one of this user here."""

    settings: Settings
    host: Host
    run_id: str | None = None
    """The run's id, once it is known."""
    folders: set[Path] = field(default_factory=set)
    """The runtime directories of the run's agents on this machine, as of all looks so far."""
    alive: bool = False
    """Whether an agent of the run lives on this machine, as of the last look."""
    recorded: Ended | None = None
    """How the run has ended according to the record in a shared folder."""
    met: dict[str, str] = field(default_factory=dict)
    """What the last look met: places, and what was there instead."""
    missing: str = ""
    """What would lead to other machines, where nothing does."""
    _there: "tuple[NodeIdentity, Rendezvous, Secret] | None" = None
    _nowhere: str = ""
    """Why there is nothing to look at over the network."""

    def __post_init__(self) -> None:
        self.run_id = self.settings.run_id
        self._attempt = attempt_of(self.settings, self.host)

    async def look(self) -> Observer | None:
        """Look once; return an observer in the run's roll call, or None if it is not to be found.

        :raises UsageError: if this user has several runs here and none was named, or the run is attached.
        :raises Refused: if a head of this run refuses this observer: another secret, another version.
        """
        self.met.clear()
        states = self._states()
        self.alive = bool(states)
        self.folders.update(path for path, _ in states)
        for path, state in states:
            self.run_id = state.get("run_id", self.run_id)
            if (found := await self._join_here(path, state)) is not None:
                return found
        return None if states else await self._join_there()

    @property
    def starting(self) -> bool:
        """Return whether an agent on this machine may yet show what run it is of, or where its roll call is."""
        shown = {path for path, state in runtime_dir.running_in() if state.get("rollcall")}
        ended = {path for _, path, _ in runtime_dir.results()}
        return bool(set(runtime_dir.locked()) - shown - ended)

    def ended(self) -> Ended | None:
        """Return how the run has ended, by the latest result on this machine or the record; None if an agent lives."""
        if self.alive:
            return None
        for when, path, content in runtime_dir.results():
            result = {"reason": "", "source": "?", "host": self.host.hostname, **content}
            run_id = str(result.get("run_id"))
            if self._is_ours(result) and time.time() - when < timeouts.END_KEPT_S:
                verdict = Verdict(content["status"], str(result["reason"]), str(result["source"]))
                return Ended(run_id, verdict, when, str(result["host"]), path / runtime_dir.RESULT)
        return self.recorded

    def where(self) -> str:
        """Return in words where the last look was, and what it met."""
        places = [": ".join(filter(None, met)) for met in list(self.met.items())[:_SHOWN]]
        return "; ".join(filter(None, [*places, self._nowhere]))

    def _is_ours(self, facts: Mapping[str, Any]) -> bool:
        """Return whether a state or a result is of this run."""
        right = self._attempt in (None, facts.get("attempt"))
        return right and self.run_id in (None, facts.get("run_id"))

    def _states(self) -> list[tuple[Path, Mapping[str, Any]]]:
        """Return the run's live agents on this machine, the head first.

        :raises UsageError: if there are two runs, or the one that was named is attached.
        """
        live = runtime_dir.running_in()
        # What is attached to a Ray has no roll call, and may be beside the run whose Ray that is.
        running = [each for each in live if each[1].get("role") != Role.DRIVER.value]
        found = [(path, state) for path, state in running if self._is_ours(state)]
        ids = {state.get("run_id") for _, state in found}
        if len(ids) > 1:
            what = f"this user has {len(ids)} runs here: {', '.join(sorted(map(repr, ids)))}"
            raise UsageError([what], hint="name one: --run-id=ID")
        if not found:
            self.met[runtime_dir.no_run(self.run_id, [state for _, state in running])] = ""
            for state in (state for _, state in live if self._is_ours(state)):
                what = f"run {state.get('run_id')!r} is attached to a Ray that already runs, so it has no roll call"
                fix = f"`kill {state['pid']}` ends it"
                if self.settings.run_id is not None and not self.folders:
                    raise UsageError([what], hint=f"`ray-bootstrap status` shows it; {fix}")
                self.met[what] = fix
        return sorted(found, key=lambda each: each[1].get("role") != Role.HEAD.value)

    async def _join_here(self, path: Path, state: Mapping[str, Any]) -> Observer | None:
        """Join the roll call of a live agent on this machine, as far as it has one."""
        agent = f"the agent of run {state.get('run_id')!r} here (pid {state['pid']}, {state.get('phase', 'starting')})"
        if not isinstance(address := state.get("rollcall"), str):
            self.met[agent] = "it has no roll call yet"
            return None
        key = runtime_dir.observer_key(path)
        if key is None and runtime_dir.read_state(path) is None:
            self.met[agent] = "it is ending"
            return None
        hello = ObserverHello(str(state["run_id"]), int(state["attempt"]), self.host.hostname)
        host, port = parsers.host_port(address)
        secret = NO_SECRET if key is None else Secret(key, str(path / runtime_dir.OBSERVER))
        make = partial(Observer, hello, secret, self.settings.heartbeat_timeout, key=key)
        return await self._join([HeadAddress(host, port or 0)], make)

    async def _join_there(self) -> Observer | None:
        """Join the roll call of the head that the options or the launcher name, or of a record."""
        if self._there is None and not self._nowhere:
            try:
                identity = identify_observer(self.settings, self.host)
                given = load_secret(self.settings, self.host, identity)
                meeting = rendezvous.make(self.settings, identity, self.host)
            except IdentityError as error:
                self._nowhere, self.missing = f"no other machine was asked: {error.message}", error.hint
                return None
            meeting = rendezvous.with_secret_record(meeting, given, identity, self.host)
            self._there, self.run_id = (identity, meeting, given), identity.run_id
        if self._there is None:
            return None
        identity, meeting, secret = self._there
        try:
            lookup = await run_in_thread(timeouts.CANDIDATE_S, meeting.lookup)
        except TimedOut:
            self.met[meeting.place] = f"no answer within {timeouts.CANDIDATE_S:g} s"
            return None
        self.met.update(dict.fromkeys(lookup.faults, ""))
        if (end := lookup.ended) is not None:
            self.recorded = Ended(identity.run_id, end.verdict, end.time, end.host, Path(end.path))
        if secret.value is None and secret.is_in_record:
            if lookup.secret is None:
                self.met[f"the secret is to come from {secret.source}"] = "it is not there yet, or no longer"
                return None
            secret = replace(secret, value=lookup.secret)
        hello = ObserverHello(identity.run_id, identity.attempt, self.host.hostname)
        return await self._join(lookup.candidates, partial(Observer, hello, secret, self.settings.heartbeat_timeout))

    async def _join(self, candidates: Sequence[HeadAddress], make: "partial[Observer]") -> Observer | None:
        try:
            return (await join_one_of(candidates, make, self.met))[0]
        except NotThisHead:
            return None


def not_found(search: Search, within: str = "") -> BootstrapError:
    """Return the error of a search in vain."""
    if search.alive:
        return HeadNotFound(f"run {search.run_id!r} is not up{within}: {search.where()}", hint="`ray-bootstrap status`")
    which = "no run" if search.run_id is None else f"no run {search.run_id!r}"
    given = "what its nodes have to find their head: --run-id, and --head-address or --shared-dir"
    hint = f"start it on this machine, or give {search.missing or given}"
    return HeadNotFound(f"{which} found{within}: {search.where()}", hint=hint)
