"""Find the head by the record that it writes to a folder that all nodes see: on NFS or Lustre, or a shared volume.

A record is a small JSON file with mode 0600, written atomically (temporary name, fsync, rename). Its name contains a
hash of the run id, since a run id is free text. It holds the head's address and, if the head generated one, the run's
secret. Several runs and several users may share the folder: each user's records are in a folder that only he can open.
If another user has taken its name, the head makes one with a random ending, and the workers look through all that
belong to this user. A head that lives renews its record's time; what a killed one leaves, the user's next head removes.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bootstrap import net, timeouts
from bootstrap.errors import UsageError
from bootstrap.files import ownership
from bootstrap.files.manifest import FileDigests, digest
from bootstrap.host import Host
from bootstrap.model import HeadAddress, NodeIdentity
from bootstrap.node.address import MOST_OTHERS
from bootstrap.rendezvous import around, ending, own_folder
from bootstrap.rendezvous.ending import End
from bootstrap.rendezvous.protocol import Lookup, Rendezvous
from bootstrap.settings import Settings

_TRIES = 3
_FIX = "mount it on every node, and let this user write there"


@dataclass
class SharedFolder:
    """The record of one run and attempt below ``shared_dir``."""

    shared_dir: Path
    run_id: str
    attempt: int
    run_hash: str
    hostname: str
    given_by: str
    """The option or variable that names the folder, for messages."""
    fix: str
    """What to do if it cannot be used."""
    rank: int | None = None
    _nonce: str = field(default_factory=lambda: secrets.token_hex(16))
    _time: float = field(default_factory=time.time)
    _seen: bool = False
    _looked_elsewhere: float = float("-inf")

    def __post_init__(self) -> None:
        self.folder = self.shared_dir / f"ray-bootstrap-{os.geteuid()}"
        self.spare = self.folder.with_name(f"{self.folder.name}.{secrets.token_hex(4)}")
        self.name = f"{own_folder.HEAD}{self.run_hash}-{self.attempt}.json"
        self.end_name = ending.name_for(self.run_hash, self.attempt)
        self._key = {"run_id": self.run_id, "attempt": self.attempt}
        self.owned_dirs: Sequence[str] = (str(self.folder), str(self.spare))

    def owned_files(self, head: HeadAddress, secret: bytes | None) -> FileDigests:
        """Return the record's files in either folder: under its final name, and under the temporary name."""
        content = digest(self._text(head, secret))
        return {f"{folder}/{name}": content for folder in self.owned_dirs for name in (self.name, self._temporary)}

    def announce(self, head: HeadAddress, secret: bytes | None) -> None:
        """Write the record, replacing an earlier head's, and read it back.

        :raises UsageError: if the folder cannot be written, or workers would reject the record.
        """
        text = self._text(head, secret)
        for attempt in range(1, _TRIES + 1):
            try:
                with self._own_folder() as (path, folder):
                    own_folder.replace(folder, self.name, text, self._temporary)
                    faults = self._read(path, folder)[0].faults
                    ending.purge(folder, self.end_name)
                    own_folder.sweep(folder, self.name)
                break
            except OSError as error:
                # Another run's clean-up may have removed the folder while it was still empty.
                if attempt == _TRIES or not isinstance(error, FileNotFoundError):
                    raise self._unusable(error) from error
        if faults:
            hint = "use a folder that keeps file modes; or --secret-file=FILE, RAY_AUTH_TOKEN, --auth=off"
            raise UsageError([f"workers would reject the record {fault}" for fault in faults], hint=hint)

    def refresh(self) -> None:
        """Renew the time of the record, so that this user's other heads leave it in place."""
        for path in self.owned_dirs:
            with contextlib.suppress(OSError), own_folder.own(path) as folder:
                if folder is not None:
                    os.utime(self.name, dir_fd=folder, follow_symlinks=False)

    def lookup(self) -> Lookup:
        """Return the address and the secret in this run's record, if there is a valid one.

        :raises UsageError: on the first look, if the shared folder is missing or unreadable.
        """
        try:
            with own_folder.made(self.folder) as folder:
                self._seen = self._seen or folder is not None
                if folder is not None and (found := self._look_at(self.folder, folder)) is not None:
                    return found
            return self._look_elsewhere(always=folder is None)
        except OSError as error:
            closed = isinstance(error, NotADirectoryError | PermissionError) or not self.shared_dir.is_dir()
            if closed and not self._seen:
                raise self._unusable(error) from error
            # A stale NFS handle, an I/O error, a folder that another run's clean-up removed or that is being
            # remounted: each may be transient.
            return Lookup(faults=[f"{self.folder}: {error.strerror}"])

    def _look_elsewhere(self, *, always: bool) -> Lookup:
        """Return the content of the newest record in this user's other folders.

        :param always: whether the usual folder is another user's. If not, he may have given up its name after the head
            had come: then one look in a while is enough, since the shared folder may be a large one.
        """
        now = time.monotonic()
        if not always and now - self._looked_elsewhere < timeouts.OTHER_FOLDERS_S:
            return Lookup()
        self._looked_elsewhere = now
        ours = re.compile(re.escape(self.folder.name) + r"\.[0-9a-f]{8}")
        shared = os.open(self.shared_dir, own_folder.FOLDER)
        try:
            found = [self._look_into(name, shared) for name in own_folder.names(shared) if ours.fullmatch(name)]
        finally:
            os.close(shared)
        none = Lookup(faults=[f"{self.folder} is another user's"]) if always else Lookup()
        return max(filter(None, found), key=lambda record: record[0], default=(0, none))[1]

    def _look_into(self, name: str, shared: int) -> tuple[int, Lookup] | None:
        """Return the content of the record in the folder of this name and its time, if this user has made it."""
        with contextlib.suppress(OSError):
            owner = os.stat(name, dir_fd=shared, follow_symlinks=False).st_uid
            if not ownership.trusted(shared, owner):
                return None
            with own_folder.own(name, shared) as folder:
                if folder is not None and (found := self._look_at(self.shared_dir / name, folder)) is not None:
                    record = self.end_name if found.ended else self.name
                    return os.stat(record, dir_fd=folder, follow_symlinks=False).st_mtime_ns, found
        return None

    @property
    def _temporary(self) -> str:
        return f".{self.name}.{self._nonce}"

    def _text(self, head: HeadAddress, secret: bytes | None) -> bytes:
        record = {"run_id": self.run_id, "attempt": self.attempt, "host": head.host, "port": head.port}
        record |= {"hostname": self.hostname, "time": self._time, "nonce": self._nonce}
        if head.others:
            record["others"] = list(head.others)
        return json.dumps(record if secret is None else {**record, "secret": secret.decode()}).encode()

    @contextlib.contextmanager
    def _own_folder(self) -> Iterator[tuple[Path, int]]:
        """Yield the folder for the record, which is made if it is missing, and a descriptor of it.

        :raises OSError: if it cannot be made.
        """
        with contextlib.ExitStack() as stack:
            for path in (self.folder, self.spare):
                if (folder := stack.enter_context(own_folder.made(path))) is not None:
                    yield path, folder
                    return
            raise FileExistsError(errno.EEXIST, "other users have taken its name")

    def _look_at(self, path: Path, folder: int) -> Lookup | None:
        """Return what this run's records in the folder ``path`` say; None if there is none."""
        names = own_folder.names(folder)
        found, head = self._read(path, folder) if self.name in names else (None, "")
        if self.end_name not in names or ending.is_taken(self.end_name, self.rank, names):
            return found
        # While there is the record of another head, the end is not the last word.
        ended, fault = self._read_end(path, folder, {} if found is None else {"head": head})
        faults = [] if found is None else found.faults
        if ended is None or not ended.concerns(self.rank):
            return Lookup(faults=[fault]) if found is None and fault else found
        return Lookup((), faults, ended=ended)

    def _read(self, path: Path, folder: int) -> tuple[Lookup, str]:
        """Return the content of this run's record in the folder ``path``, or why it is not valid, and its nonce."""
        try:
            found, mode = own_folder.read(folder, self.name)
            _check(found, self._key)
            if found.get("secret") and mode & 0o022:
                raise ValueError(f"other users can write it (mode {mode:o}), so its secret is not safe")
        except FileNotFoundError:
            return Lookup(), ""
        except (OSError, ValueError) as fault:
            what = fault.strerror if isinstance(fault, OSError) else fault
            return Lookup(faults=[f"{path / self.name}: {what}"]), ""
        secret = found.get("secret")
        others = tuple(found.get("others", ()))
        head = HeadAddress(found["host"], found["port"], str(path / self.name), others)
        return Lookup([head], secret=secret.encode() if secret else None), str(found.get("nonce"))

    def _read_end(self, path: Path, folder: int, key: Mapping[str, Any]) -> tuple[End | None, str]:
        """Return the end of the run according to its record in the folder ``path``, or why that is not valid."""
        try:
            content, mode = own_folder.read(folder, self.end_name)
            return ending.decode(content, mode, path / self.end_name, {**self._key, **key}), ""
        except (OSError, ValueError) as fault:
            what = fault.strerror if isinstance(fault, OSError) else fault
            return None, f"{path / self.end_name}: {what}"

    def end_files(self, end: End) -> FileDigests:
        """Return the files that :meth:`write_end` makes and that do not stay: those with a temporary name."""
        content = digest(ending.encode(end, self.run_id, self.attempt, self._nonce))
        return {f"{folder}/.{self.end_name}.{self._nonce}": content for folder in self.owned_dirs}

    def write_end(self, end: End) -> Path | None:
        """Write the record of the end beside this head's, unless another head has replaced that; return its path.

        :raises OSError: if it cannot be written.
        """
        text = ending.encode(end, self.run_id, self.attempt, self._nonce)
        with self._own_folder() as (path, folder):
            if self._read(path, folder)[1] == self._nonce:
                own_folder.replace(folder, self.end_name, text, f".{self.end_name}.{self._nonce}")
                return path / self.end_name
        return None

    def take(self, end: End) -> None:
        """Note that this node has believed the record of the end. :raises OSError: if that is not possible."""
        ending.take(Path(end.path).parent, self.end_name, self.rank, end.count)

    def _unusable(self, error: OSError) -> UsageError:
        missing = not self.shared_dir.is_dir()
        path = self.shared_dir if missing else self.folder
        if isinstance(error, IsADirectoryError):
            path = self.folder / self.name  # the rename failed because a folder has the record's name
        return UsageError(
            [f"{self.given_by}={self.shared_dir}: {path}: {'no such folder' if missing else error.strerror}"],
            hint=self.fix,
        )


def _check(content: Any, key: Mapping[str, Any]) -> None:
    """Check the content of a record. :raises ValueError: saying what is wrong with it."""
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    for name, value in key.items():
        if content.get(name) != value or isinstance(content.get(name), bool):
            raise ValueError(f"{name} is {content.get(name)!r}, expected {value!r}")
    host, port, secret = content.get("host"), content.get("port"), content.get("secret")
    if not isinstance(host, str) or not host or not host.isprintable() or " " in host:
        raise ValueError(f"host {host!r} is neither a host name nor an address")
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        raise ValueError(f"port {port!r} is not in 1-65535")
    others = content.get("others", [])
    if not (isinstance(others, list) and len(others) <= MOST_OTHERS and all(map(_is_address, others))):
        raise ValueError("its other addresses are malformed")
    if secret is not None and not (isinstance(secret, str) and secret.isascii() and secret.isalnum()):
        raise ValueError("its secret is malformed")


def _is_address(text: object) -> bool:
    return isinstance(text, str) and net.is_address(text)


def make(settings: Settings, identity: NodeIdentity, host: Host, _ports: Sequence[int]) -> Rendezvous:
    """Return the rendezvous in ``--shared-dir``. :raises UsageError: without one."""
    if settings.shared_dir is None:
        raise UsageError(
            [f"launcher {identity.launcher}: no option says where the head is"],
            hint="--shared-dir=DIR with a folder that all nodes see, or --head-address=HOST",
        )
    shared = record(settings.shared_dir, identity, host)
    run, folder = {"run_id": identity.run_id, "attempt": identity.attempt}, shared.shared_dir
    survey = partial(around.survey_folder, folder, host, run)
    return Rendezvous(f"the folder {folder}", shared.lookup, survey=survey, record=shared)


def record(
    folder: str, identity: NodeIdentity, host: Host, given_by: str = "--shared-dir", fix: str = _FIX
) -> SharedFolder:
    """Return this run's record in a folder that all nodes see; ``given_by`` and ``fix`` as of :class:`SharedFolder`."""
    run = (identity.run_id, identity.attempt, identity.run_hash)
    return SharedFolder(Path(folder), *run, host.hostname, given_by, fix, identity.rank)
