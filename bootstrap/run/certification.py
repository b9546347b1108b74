"""Ray's TLS: the head's CA, and how each node gets a certificate that works at its address (docs/rollcall.md)."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from bootstrap import timeouts
from bootstrap.errors import PreflightFailed
from bootstrap.files import certificates
from bootstrap.files.certificates import Issued, Request, TlsFiles
from bootstrap.files.runtime_dir import RuntimeDir
from bootstrap.process.bounded import TimedOut, run_in_thread
from bootstrap.rollcall.hello import Hello

if TYPE_CHECKING:
    from bootstrap.files.authority import Authority

T = TypeVar("T")


async def make_authority() -> "Authority":
    """Return a new CA. :raises PreflightFailed: if this node cannot make one."""

    def make() -> "Authority":
        from bootstrap.files.authority import Authority  # noqa: PLC0415 (70 ms and 10 MB, for TLS only)

        return Authority()

    return await _here(make)


async def get_certificate(runtime: RuntimeDir, ip: str, sign: Callable[[str], Awaitable[Issued]]) -> TlsFiles:
    """Make a key, have the head sign it, and return the files for Ray on this node.

    :param sign: returns the certificate for a request in PEM.
    :raises PreflightFailed: if the certificate would not work at this node's address.
    """

    def make() -> Request:
        from bootstrap.files.authority import make_request  # noqa: PLC0415 (as above)

        return make_request()

    request = await _here(make)
    files = certificates.write(runtime, request.key, await sign(request.pem))
    if files is None:
        what = f"{runtime.path} cannot be written, and Ray is to read its certificate there"
        raise PreflightFailed(what, hint=f"free space in {runtime.path.parent}, or --tls=off on all nodes")
    try:
        await _here(lambda: certificates.check(files, ip))
    except ValueError as error:
        raise PreflightFailed(str(error), hint="compare `date -u` on this node and on the head") from None
    return files


async def certify_head(runtime: RuntimeDir, me: Hello, authority: "Authority | None") -> TlsFiles | None:
    """Return the files of the head, which signs its own certificate; None in a run without TLS."""
    if authority is None:
        return None

    async def sign(request: str) -> Issued:
        return authority.sign(request, me.ip, me.host)

    return await get_certificate(runtime, me.ip, sign)


async def _here(function: Callable[[], T]) -> T:
    """Return what ``function`` returns, run in a thread. :raises PreflightFailed: if this installation cannot."""
    try:
        return await run_in_thread(timeouts.CERTIFICATE_S, function)
    except TimedOut:
        what = f"making keys for TLS timed out after {timeouts.CERTIFICATE_S:g} s"
        raise PreflightFailed(
            what, hint="check the file system with Python's packages; --tls=off on all nodes"
        ) from None
    except ImportError as error:
        raise PreflightFailed(
            f"TLS: {error}", hint="pip install 'cryptography>=42', or --tls=off on all nodes"
        ) from None
