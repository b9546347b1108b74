"""The secret through MUNGE, with a real munged: only the same user gets it, and nobody can take it out of use."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hosts import wait_for
from requirements import requires
from rollcall_peers import a_head, a_peer, hello, join, looped

from bootstrap import munge, timeouts
from bootstrap.errors import Refused
from bootstrap.files.secret import NO_SECRET, Channel, Secret, generate
from bootstrap.munge import MungeError
from bootstrap.rollcall import credential
from bootstrap.rollcall.refusal import NotThisHead

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("munge")

THROUGH_MUNGE = Secret(None, "the head, through MUNGE", Channel.MUNGE)
UNTIL_UP = ["sh", "-c", "echo up"]


@pytest.fixture
def munged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The socket of a real munged, which this process uses, too."""
    requires("munge")
    folder = Path(tempfile.mkdtemp(prefix="rb-munge-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "key").write_bytes(os.urandom(128))
    (folder / "key").chmod(0o600)
    files = [f"--{name}-file={folder / name}" for name in ("key", "pid", "log", "seed")]
    path = folder / "munge.socket.2"
    daemon = subprocess.Popen(["munged", "--foreground", "--force", "--num-threads=1", f"--socket={path}", *files])
    monkeypatch.setattr(munge, "SOCKET", path)
    try:
        wait_for(munge.is_available, timeout=30, what="munged")
        yield path
    finally:
        daemon.kill()  # a SIGTERM just before its accept(2) would wait for the next client
        daemon.wait()
        shutil.rmtree(folder)


def _as_another_user(program: str, munged: Path, given: str = "") -> str:
    """What ``munge`` or ``unmunge`` says to user 4242."""
    user = ["setpriv", "--reuid=4242", "--regid=4242", "--clear-groups"]
    done = subprocess.run(
        [*user, program, f"--socket={munged}"], input=given, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_what_is_encoded_is_decoded_once(munged: Path) -> None:
    made = munge.encode(b"secret \0 bytes")
    assert munge.decode(made) == b"secret \0 bytes"
    with pytest.raises(MungeError, match="Replayed credential"):
        munge.decode(made)
    for junk in ("", "MUNGE:AAAA:", "\ud800", "x" * 100_000):
        with pytest.raises(MungeError):
            munge.decode(junk)


@pytest.mark.requires("root")
def test_another_user_can_neither_read_a_credential_nor_make_one_for_us(munged: Path) -> None:
    requires("root")
    ours = munge.encode(b"for us")
    said = _as_another_user("unmunge", munged, ours)
    assert "Unauthorized credential" in said
    assert "for us" not in said
    theirs = _as_another_user("munge", munged, "for anybody").strip()
    with pytest.raises(MungeError, match=f"uid 4242 made the credential, not {os.geteuid()}"):
        munge.decode(theirs)
    assert munge.decode(ours) == b"for us"


@pytest.mark.requires("root", "unshare")
def test_a_container_that_maps_users_gets_its_own_credentials(munged: Path) -> None:
    """As with Pyxis' --container-remap-root: geteuid(2) is not what munged sees."""
    requires("root", "unshare")
    code = f"""
import os
from pathlib import Path
from bootstrap import munge, timeouts
munge.SOCKET = Path({str(munged)!r})
print(os.geteuid(), munge.decode(munge.encode(b"mine")), munge.decode({munge.encode(b"from outside")!r}))
"""
    argv = ["unshare", "--user", "--map-user=1234", sys.executable, "-c", code]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["1234", "b'mine'", "b'from", "outside'"]


def test_a_worker_gets_the_secret_from_its_head(munged: Path) -> None:
    @looped
    async def scenario() -> None:
        made = generate(THROUGH_MUNGE)
        async with a_head(made) as head:
            workers = [await join(head.address, hello(rank), THROUGH_MUNGE) for rank in (1, 2)]
            assert [worker.secret.value for worker in workers] == [made.value] * 2
            for worker in workers:
                worker.close()

    scenario()


def test_a_credential_serves_for_one_connection_of_one_run(munged: Path) -> None:
    @looped
    async def scenario() -> None:
        me, made = hello(), generate(THROUGH_MUNGE)
        for run, attempt, nonce in (("other", 0, "n"), (me.run, 1, "n"), (me.run, 0, "another nonce")):
            given = await credential.make(made, hello(run=run, attempt=attempt), nonce)
            with pytest.raises(Refused, match="for another run, attempt or connection"):
                await credential.read(given, me, "n")
        assert await credential.read(await credential.make(made, me, "n"), me, "n") == made.value

    scenario()


@pytest.mark.parametrize(
    ("theirs", "mine", "complaint"),
    [
        (THROUGH_MUNGE, NO_SECRET, "the head has no secret, this node has a secret through MUNGE"),
        (NO_SECRET, THROUGH_MUNGE, "the head has a secret through MUNGE, this node has no secret"),
        (THROUGH_MUNGE, Secret(b"given", ""), "the head has a secret, this node has a secret through MUNGE"),
    ],
)
def test_a_node_without_munge_is_refused_with_both_remedies(
    munged: Path, theirs: Secret, mine: Secret, complaint: str
) -> None:
    @looped
    async def scenario() -> None:
        async with a_head(generate(mine)) as head:
            with pytest.raises(Refused) as caught:
                await join(head.address, hello(), theirs)
            assert caught.value.message == complaint
            for remedy in ("mount /run/munge into the container", "set RAY_BOOTSTRAP_SECRET"):
                assert remedy in caught.value.hint

    scenario()


def test_a_munged_that_is_gone_is_an_error_and_no_reason_to_run_open(munged: Path) -> None:
    @looped
    async def scenario() -> None:
        made = generate(THROUGH_MUNGE)
        async with a_head(made) as head:
            os.unlink(munged)  # noqa: PTH108 (nothing here waits)
            with pytest.raises(Refused, match="MUNGE on head-host: Socket communication error"):
                await join(head.address, hello(), THROUGH_MUNGE)
            assert not head.call.members

    scenario()


def test_a_munged_that_is_kept_busy_is_asked_again_and_holds_nothing_of_who_has_gone(
    munged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any user may hold idle connections to it, one for each of its threads."""
    monkeypatch.setattr(timeouts, "MUNGE_S", 0.3)

    @looped
    async def scenario() -> None:
        made = generate(THROUGH_MUNGE)
        async with a_head(made) as head:
            with contextlib.ExitStack() as idle:
                for _ in range(8):  # munged drops each after 2 s
                    idle.enter_context(socket.socket(socket.AF_UNIX)).connect(str(munged))
                for _ in range(50):
                    async with a_peer(head.port) as peer:
                        peer.send({"t": "hail", "v": 6, "nonce": "0" * 32})
                with pytest.raises(NotThisHead):
                    await join(head.address, hello(), THROUGH_MUNGE)
            while head.call.handshakes._credentials:
                await asyncio.sleep(0.05)
            worker = await join(head.address, hello(), THROUGH_MUNGE)
            worker.close()

    scenario()


# ------------------------------------------------------------------------------------------------- whole agents

SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "0"}
SLURM |= {
    "SLURM_STEP_NODELIST": "127.0.0.1",
    "SLURM_JOB_NODELIST": "127.0.0.1",
    "RAY_BOOTSTRAP_HEAD_ADDRESS": "127.0.0.1",
}


def _use(site: Site, path: Path) -> None:
    site.patch("from pathlib import Path", "from bootstrap import munge", f"munge.SOCKET = Path({str(path)!r})")


def test_the_one_line_for_slurm_runs_with_a_token_that_no_one_was_given(site: Site, munged: Path) -> None:
    _use(site, munged)
    nodes = [site.run("--", *UNTIL_UP, env={**SLURM, "SLURM_NODEID": str(rank)}) for rank in range(2)]
    assert [node.wait() for node in nodes] == [0, 0], nodes[0].err + nodes[1].err
    starts = [node.starts[0]["env"] for node in nodes]
    assert [env["RAY_AUTH_MODE"] for env in starts] == ["token", "token"]
    assert all("this run is open" not in node.err for node in nodes)


def test_a_batch_script_waits_for_its_run_and_ends_it_through_munge(site: Site, munged: Path) -> None:
    """It has the job's variables, but neither a step nor a rank, and no secret: the run's id is given to both."""
    _use(site, munged)
    nodes = [site.run(env={**SLURM, "SLURM_NODEID": str(rank)}) for rank in range(2)]
    site.patch(
        "from pathlib import Path",
        "from bootstrap import munge",
        "from bootstrap.files import runtime_dir",
        f"munge.SOCKET, runtime_dir.PARENT = Path({str(munged)!r}), Path('/nonexistent')",
    )
    script = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "127.0.0.1", "SLURM_NODEID": "0"}
    waiting = site.run("wait", env=script)
    assert waiting.wait() == 0, waiting.err
    without = site.run("down", env={**script, "RAY_BOOTSTRAP_RUN_ID": None})
    assert without.wait() == 68
    assert "nothing names the run here" in without.err
    assert site.run("down", "--status=3", env=script).wait() == 0
    assert [node.wait() for node in nodes] == [3, 3]


def test_one_node_in_a_container_without_the_socket_ends_with_77(site: Site, munged: Path) -> None:
    _use(site, munged)
    head = site.run("--quorum-timeout=5s", "--", *UNTIL_UP, env={**SLURM, "SLURM_NODEID": "0"})
    head.says("roll call is open")
    _use(site, munged.parent / "missing")
    worker = site.run("--", *UNTIL_UP, env={**SLURM, "SLURM_NODEID": "1"})
    assert worker.wait() == 77, worker.err
    assert "the head has a secret through MUNGE, this node has no secret" in worker.err
    assert "mount " in worker.err
    assert "set RAY_BOOTSTRAP_SECRET" in worker.err
    assert head.wait() == 75, head.err
