"""What there is where a worker looks for its head in vain, in words and with what to type about it."""

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bootstrap import net
from bootstrap.files import ownership
from bootstrap.files.mounts import mount_of
from bootstrap.host import Host
from bootstrap.model import HeadAddress
from bootstrap.rendezvous import ending, own_folder
from bootstrap.rollcall import wire

_OWN = re.compile(r"ray-bootstrap-([0-9]{1,10})(\.[0-9a-f]{8})?")
_SHOWN = 6
"""Maximum number of candidates, or of records, in a message."""
RANK_0 = "see the output of rank 0 first"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What there is instead of the head."""

    what: str
    fix: str


@dataclass
class Trail:
    """What one search has met so far.

    :param run: this run's id.
    :param begin: when the search began, on the event loop's clock, as are all times here.
    """

    run: str
    begin: float
    seen: dict[str, str] = field(default_factory=dict)
    """What the last look met: addresses, and what each answered; faults of records and names, with an empty text."""
    _since: dict[str, float] = field(default_factory=dict)
    """Address → since when it has been a candidate."""
    _last: HeadAddress | None = None
    _last_time: float = 0.0

    def note(self, candidates: Sequence[HeadAddress], faults: Sequence[str], now: float) -> None:
        """Note what a look has found."""
        self.seen.clear()
        self.seen.update(dict.fromkeys(faults, ""))
        self._since = {head.host: self._since.get(head.host, now) for head in candidates}
        if candidates:
            self._last, self._last_time = candidates[0], now

    def in_brief(self) -> str:
        """Return what the last look met, in one line."""
        if not self.seen:
            return "no address was found"
        return "; ".join(": ".join(filter(None, met)) for met in list(self.seen.items())[:_SHOWN])

    def describe(self, found: Surroundings, now: float) -> Surroundings:
        """Return what the whole search has met.

        :param found: what a look around has shown; empty where there is nothing to look at.
        """
        whole = [found.what] if found.what else []
        head = self._last
        if head is not None and not self._since:
            left = f"the head announced itself at {head} ({head.source}) and left {now - self._last_time:.0f} s ago"
            return Surroundings("; ".join([left, *whole]), f"{RANK_0}: it has ended, or was stopped")
        names = sorted({each for each in self._since if not net.is_address(each)})[:_SHOWN]
        resolved = survey_names(names)
        whole += filter(None, [resolved.what])
        if head is not None and head.source:
            since = now - self._since[head.host]
            whole.append(f"{head.source} has named {head.host} as the head for {since:.0f} s")
        return Surroundings("; ".join(whole), resolved.fix or self._remedy() or found.fix)

    def _remedy(self) -> str:
        """Return what to do about the answers of the candidates; empty if there are none."""
        answers = " ".join(self.seen.values())
        where = self._last
        if "another run" in answers or "this is not run" in answers:
            return f"give all nodes the same --run-id (here: {self.run!r}) and --attempt"
        if where is None or not self._since:
            return ""
        if "no answer" in answers:
            return f"`nc -vz {where.host} {where.port}` on this node; a firewall or a network policy drops packets"
        return f"{RANK_0}: no agent of this run listens at {where.host}; --head-address=HOST names the head"


def survey_names(names: Sequence[str]) -> Surroundings:
    """Return what those of these names of the head that resolve lead to, and a remedy if one does not. It may block."""
    found = {name: net.resolve(name) for name in names}
    texts = (f"{name} resolves to {', '.join(its)}" for name, its in found.items() if its)
    missing = next((name for name, its in found.items() if not its), "")
    kubernetes = f"`kubectl get service {missing.partition('.')[0]}`"
    fix = f"`getent hosts {missing}` on this node; in Kubernetes {kubernetes}; --head-address=ADDRESS does without both"
    return Surroundings("; ".join(texts), fix if missing else "")


def survey_folder(shared_dir: Path, host: Host, run: Mapping[str, object]) -> Surroundings:
    """Return what a shared folder holds: whose records, and of which runs. It may block.

    :param run: ``run_id`` and ``attempt`` of this run.
    """
    kind, device = mount_of(host, shared_dir)
    where = f"{shared_dir} (on {kind or 'an unknown file system'}{f', {device}' if device else ''})"
    same = f"is it the head's? compare `findmnt -T {shared_dir}` on both nodes"
    try:
        ours, theirs = _records(shared_dir)
    except OSError as error:
        return Surroundings(f"{where}: {error.strerror}", f"`ls -la {shared_dir}` on this node")
    if mine := [text for key, text in ours if key == run]:
        return Surroundings(f"{where} has this run's record: {mine[0]}", RANK_0)
    if ours:
        texts = "; ".join(text for _, text in ours[:_SHOWN])
        ids = f"--run-id={ours[0][0].get('run_id')}"
        fix = f"{RANK_0}; if this node belongs to that run: {ids} on all nodes, and the same --attempt"
        return Surroundings(f"{where} has records of other runs, none of {run['run_id']!r}: {texts}", fix)
    if theirs:
        me = f"this node runs as {_user(os.geteuid())}"
        fix = "start all nodes as the same user: compare `id -u` on each"
        return Surroundings(f"{where} has records of other users only: {', '.join(theirs[:_SHOWN])}; {me}", fix)
    return Surroundings(
        f"{where} has no run's record", f"{RANK_0}: it has not announced itself in this folder, or {same}"
    )


def _records(shared_dir: Path) -> tuple[list[tuple[dict[str, object], str]], list[str]]:
    """Return this user's records, each as the run it is of and as a text, and the folders of other users."""
    ours: list[tuple[dict[str, object], str]] = []
    theirs: list[str] = []
    shared = os.open(shared_dir, own_folder.FOLDER)
    try:
        for name in sorted(own_folder.names(shared)):
            if not _OWN.fullmatch(name):
                continue
            with contextlib.suppress(OSError):
                owner = os.stat(name, dir_fd=shared, follow_symlinks=False).st_uid
                if not ownership.trusted(shared, owner):
                    theirs.append(f"{name} of {_user(owner)}")
                    continue
                with own_folder.own(name, shared) as folder:
                    ours += _heads(folder) if folder is not None else ()
    finally:
        os.close(shared)
    return ours, theirs


def _heads(folder: int) -> Iterator[tuple[dict[str, object], str]]:
    """Yield the valid records of heads, and of ends that were left for nodes that come late."""
    for name in sorted(own_folder.names(folder)):
        if not (name.startswith(("head-", ending.PREFIX)) and name.endswith(".json")):
            continue
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content, _ = own_folder.read(folder, name)
            record = {**content, "t": "the record"}
            run, attempt = wire.text(record, "run_id"), wire.number(record, "attempt")
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(content["time"]))
            if name.startswith(ending.PREFIX):
                what = f"ended on {wire.text(record, 'host')} at {when} with status {wire.number(record, 'status')}"
            else:
                what = f"started on {wire.text(record, 'hostname')} at {when}"
            yield {"run_id": run, "attempt": attempt}, f"run {run!r}, attempt {attempt}, whose head {what}"


def _user(uid: int) -> str:
    import pwd  # noqa: PLC0415 (queries the name service, and only for a search in vain)

    try:
        return f"uid {uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return f"uid {uid}"
