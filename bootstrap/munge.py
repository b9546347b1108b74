"""MUNGE: credentials that only processes of the same user, on machines with the same key, can read.

Slurm sites run its daemon on every node, since Slurm's own authentication uses it (https://dun.github.io/munge/). A
credential is encrypted with the site's key, expires, names the user who made it, and can be restricted to the user who
may decode it. We call libmunge (munge(3)) through ctypes: no Python binding to install, no process for each call.
"""

import contextlib
import ctypes
import functools
import os
from collections.abc import Iterator
from pathlib import Path

SOCKET = Path("/run/munge/munge.socket.2")
"""Where munged listens, as packaged by Debian, Red Hat and SUSE."""
_LIBRARY = "libmunge.so.2"
_SOCKET, _UID_RESTRICTION = 8, 9
"""MUNGE_OPT_SOCKET and MUNGE_OPT_UID_RESTRICTION in munge.h."""


class MungeError(Exception):
    """MUNGE could not make or read a credential; the message says why."""


def is_available() -> bool:
    """Return whether this node has MUNGE; that munged works, only a call can show."""
    try:
        return SOCKET.is_socket()
    except OSError:  # its folder is not accessible
        return False


def encode(payload: bytes) -> str:
    """Return a credential with this payload that only this user can decode. It may block: bound it.

    :raises MungeError: if munged does not make one.
    """
    return _encode(payload, _own_uid())


def decode(credential: str) -> bytes:
    """Return the payload of a credential that this user made, here or on another node. It may block: bound it.

    munged rejects a credential that has expired, was decoded on this machine before, or is restricted to another user.

    :raises MungeError: if it does, or another user made the credential.
    """
    payload, uid = _decode(credential)
    if uid != _own_uid():
        raise MungeError(f"uid {uid} made the credential, not {_own_uid()}")
    return payload


@functools.cache
def _own_uid() -> int:
    """Return our uid as munged sees it: in a container's user namespace geteuid(2) is another."""
    return _decode(_encode(b"", None))[1]


def _encode(payload: bytes, uid: int | None) -> str:
    credential = ctypes.c_char_p()
    with _context() as (munge, context):
        if uid is not None:
            munge.munge_ctx_set(context, _UID_RESTRICTION, ctypes.c_uint(uid))
        try:
            _check(munge, munge.munge_encode(ctypes.byref(credential), context, payload, len(payload)))
            return (credential.value or b"").decode("ascii")
        finally:
            _free(credential)


def _decode(credential: str) -> tuple[bytes, int]:
    """Return the payload of a credential and its creator's uid."""
    payload, length, uid = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_uint()
    results = map(ctypes.byref, (payload, length, uid))
    with _context() as (munge, context):
        try:
            _check(munge, munge.munge_decode(credential.encode("ascii", "replace"), context, *results, None))
            return ctypes.string_at(payload, length.value), uid.value
        finally:
            _free(payload)


@contextlib.contextmanager
def _context() -> Iterator[tuple[ctypes.CDLL, int]]:
    try:
        munge = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise MungeError(str(error)) from None
    munge.munge_ctx_create.restype = ctypes.c_void_p
    munge.munge_strerror.restype = ctypes.c_char_p
    for name in ("munge_ctx_set", "munge_ctx_destroy"):
        getattr(munge, name).argtypes = [ctypes.c_void_p]
    munge.munge_encode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    munge.munge_decode.argtypes = [ctypes.c_char_p, *[ctypes.c_void_p] * 5]
    context = munge.munge_ctx_create()
    try:
        munge.munge_ctx_set(context, _SOCKET, ctypes.c_char_p(os.fsencode(SOCKET)))
        yield munge, context
    finally:
        munge.munge_ctx_destroy(context)


def _check(munge: ctypes.CDLL, error: int) -> None:
    if error:
        raise MungeError(munge.munge_strerror(error).decode(errors="replace"))


def _free(memory: "ctypes.c_char_p | ctypes.c_void_p") -> None:
    """Free what libmunge allocated with malloc(3), as munge(3) asks."""
    ctypes.CDLL(None).free(memory)
