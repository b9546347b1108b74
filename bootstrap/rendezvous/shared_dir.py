"""Find the head by the record that it writes to a folder that all nodes see: on NFS or Lustre, or a shared volume.

A record is a small JSON file with mode 0600, written atomically (temporary name, fsync, rename). Its name contains a
hash of the run id, since a run id is free text. It holds the head's address and, if the head generated one, the run's
secret. Several runs and several users may share the folder: each user's records are in a folder that only he can open.
If another user has taken its name, the head makes one with a random ending, and the workers look through all that
belong to this user.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bootstrap import timeouts
from bootstrap.errors import UsageError
from bootstrap.files import ownership
from bootstrap.files.manifest import FileDigests, digest
from bootstrap.host import Host
from bootstrap.model import HeadAddress, NodeIdentity
from bootstrap.rendezvous.protocol import Lookup, Rendezvous
from bootstrap.settings import Settings

RECORD_MAX = 64 * 1024
"""Bytes; a record has some 400."""
_TRIES = 3
_FIX = "mount it on every node, and let this user write there"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


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
    _nonce: str = field(default_factory=lambda: secrets.token_hex(16))
    _time: float = field(default_factory=time.time)
    _seen: bool = False
    _looked_elsewhere: float = float("-inf")

    def __post_init__(self) -> None:
        self.folder = self.shared_dir / f"ray-bootstrap-{os.geteuid()}"
        self.spare = self.folder.with_name(f"{self.folder.name}.{secrets.token_hex(4)}")
        self.name = f"head-{self.run_hash}-{self.attempt}.json"
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
                    _replace(folder, self.name, text, self._temporary)
                    faults = self._read(path, folder).ignored
                break
            except OSError as error:
                # Another run's clean-up may have removed the folder while it was still empty.
                if attempt == _TRIES or not isinstance(error, FileNotFoundError):
                    raise self._unusable(error) from error
        if faults:
            hint = "use a folder that keeps file modes; or --secret-file=FILE, RAY_AUTH_TOKEN, --auth=off"
            raise UsageError([f"workers would reject the record {fault}" for fault in faults], hint=hint)

    def lookup(self) -> Lookup:
        """Return the address and the secret in this run's record, if there is a valid one.

        :raises UsageError: on the first look, if the shared folder is missing or unreadable.
        """
        try:
            with _made(self.folder) as folder:
                self._seen = self._seen or folder is not None
                if folder is not None and self.name in _names(folder):
                    return self._read(self.folder, folder)
            return self._look_elsewhere(always=folder is None)
        except OSError as error:
            closed = isinstance(error, NotADirectoryError | PermissionError) or not self.shared_dir.is_dir()
            if closed and not self._seen:
                raise self._unusable(error) from error
            # A stale NFS handle, an I/O error, a folder that another run's clean-up removed or that is being
            # remounted: each may be transient.
            return Lookup(ignored=[f"{self.folder}: {error.strerror}"])

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
        shared = os.open(self.shared_dir, _FOLDER)
        try:
            found = [self._look_into(name, shared) for name in _names(shared) if ours.fullmatch(name)]
        finally:
            os.close(shared)
        none = Lookup(ignored=[f"{self.folder} is another user's"]) if always else Lookup()
        return max(filter(None, found), key=lambda record: record[0], default=(0, none))[1]

    def _look_into(self, name: str, shared: int) -> tuple[int, Lookup] | None:
        """Return the content of the record in the folder of this name and its time, if this user has made it."""
        with contextlib.suppress(OSError):
            owner = os.stat(name, dir_fd=shared, follow_symlinks=False).st_uid
            if not ownership.trusted(shared, owner):
                return None
            with _own(name, shared) as folder:
                if folder is not None and self.name in _names(folder):
                    written = os.stat(self.name, dir_fd=folder, follow_symlinks=False).st_mtime_ns
                    return written, self._read(self.shared_dir / name, folder)
        return None

    @property
    def _temporary(self) -> str:
        return f".{self.name}.{self._nonce}"

    def _text(self, head: HeadAddress, secret: bytes | None) -> bytes:
        record = {"run_id": self.run_id, "attempt": self.attempt, "host": head.host, "port": head.port}
        record |= {"hostname": self.hostname, "time": self._time, "nonce": self._nonce}
        return json.dumps(record if secret is None else {**record, "secret": secret.decode()}).encode()

    @contextlib.contextmanager
    def _own_folder(self) -> Iterator[tuple[Path, int]]:
        """Yield the folder for the record, which is made if it is missing, and a descriptor of it.

        :raises OSError: if it cannot be made.
        """
        with contextlib.ExitStack() as stack:
            for path in (self.folder, self.spare):
                if (folder := stack.enter_context(_made(path))) is not None:
                    yield path, folder
                    return
            raise FileExistsError(errno.EEXIST, "other users have taken its name")

    def _read(self, path: Path, folder: int) -> Lookup:
        """Return the content of this run's record in the folder ``path``, or why it is not valid."""
        try:
            # O_NONBLOCK: opening a FIFO would otherwise block until it has a writer.
            record = os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return Lookup()
        except OSError as error:
            return Lookup(ignored=[f"{path / self.name}: {error.strerror}"])
        try:
            found = self._content(folder, record)
        except ValueError as fault:
            return Lookup(ignored=[f"{path / self.name}: {fault}"])
        finally:
            os.close(record)
        secret = found.get("secret")
        head = HeadAddress(found["host"], found["port"], str(path / self.name))
        return Lookup([head], secret=secret.encode() if secret else None)

    def _content(self, folder: int, record: int) -> Mapping[str, Any]:
        """Return the record. :raises ValueError: saying why it is not valid."""
        status = os.fstat(record)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        if not ownership.trusted(folder, status.st_uid):
            raise ValueError(f"belongs to uid {status.st_uid}, not to {os.geteuid()}")
        text = os.read(record, RECORD_MAX + 1)
        if len(text) > RECORD_MAX:
            raise ValueError(f"has {status.st_size} bytes, more than {RECORD_MAX}")
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError("not JSON") from None
        _check(content, {"run_id": self.run_id, "attempt": self.attempt})
        if content.get("secret") and status.st_mode & 0o022:
            raise ValueError(f"other users can write it (mode {status.st_mode & 0o777:o}), so its secret is not safe")
        return dict(content)

    def _unusable(self, error: OSError) -> UsageError:
        missing = not self.shared_dir.is_dir()
        path = self.shared_dir if missing else self.folder
        if isinstance(error, IsADirectoryError):
            path = self.folder / self.name  # the rename failed because a folder has the record's name
        return UsageError(
            [f"{self.given_by}={self.shared_dir}: {path}: {'no such folder' if missing else error.strerror}"],
            hint=self.fix,
        )


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[int | None]:
    """Do the same as :func:`_own` after making the folder if it is missing. :raises OSError: if that is not possible.

    Workers make it too: mkdir asks the file server, while the client may answer a look-up from its cache.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    with _own(folder) as descriptor:
        yield descriptor


@contextlib.contextmanager
def _own(folder: str | Path, dir_fd: int | None = None) -> Iterator[int | None]:
    """Yield a descriptor of a folder of this user; None if another user's folder, or no folder, has the name."""
    try:
        descriptor = os.open(folder, _FOLDER | os.O_NOFOLLOW, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EACCES):
            raise
        yield None
        return
    try:
        yield descriptor if ownership.trusted(descriptor, os.fstat(descriptor).st_uid) else None
    finally:
        os.close(descriptor)


def _names(folder: int) -> list[str]:
    """Return the names in a folder. Listing it makes an NFS client ask its server.

    Opening a name that was just missing would fail from the client's negative dentry cache for up to a minute.
    """
    return os.listdir(folder)


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
    if secret is not None and not (isinstance(secret, str) and secret.isascii() and secret.isalnum()):
        raise ValueError("its secret is malformed")


def _replace(folder: int, name: str, text: bytes, temporary: str) -> None:
    """Write a file atomically. :raises OSError: if that fails; the temporary file is removed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=folder), "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
    # Make the rename durable on the server; file systems that cannot sync a folder return EINVAL.
    with contextlib.suppress(OSError):
        os.fsync(folder)


def make(settings: Settings, identity: NodeIdentity, host: Host, _ports: Sequence[int]) -> Rendezvous:
    """Return the rendezvous in ``--shared-dir``. :raises UsageError: without one."""
    if settings.shared_dir is None:
        raise UsageError(
            [f"launcher {identity.launcher}: no option says where the head is"],
            hint="--shared-dir=DIR with a folder that all nodes see, or --head-address=HOST",
        )
    shared = record(settings.shared_dir, identity, host)
    return Rendezvous(f"the folder {settings.shared_dir}", shared.lookup, shared)


def record(
    folder: str, identity: NodeIdentity, host: Host, given_by: str = "--shared-dir", fix: str = _FIX
) -> SharedFolder:
    """Return this run's record in a folder that all nodes see; ``given_by`` and ``fix`` as of :class:`SharedFolder`."""
    run = (identity.run_id, identity.attempt, identity.run_hash)
    return SharedFolder(Path(folder), *run, host.hostname, given_by, fix)
