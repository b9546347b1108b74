"""The end of a run: the status stays the verdict's, whatever goes wrong on the way out; and the record of it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agents import states
from faults import check
from hypothesis import given
from hypothesis import strategies as st
from namespaces import wait_for

from bootstrap import cleanup, settings, timeouts
from bootstrap.cgroup import OomCount
from bootstrap.errors import Stopped
from bootstrap.files import result
from bootstrap.files.manifest import Manifest, digest
from bootstrap.files.result import Result
from bootstrap.files.runtime_dir import RuntimeDir
from bootstrap.host import Host
from bootstrap.log import Log
from bootstrap.model import NodeIdentity, Role, Verdict
from bootstrap.run import shutdown
from bootstrap.run.context import Context, Lifecycle

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux")


class NoChildren:
    """In the place of :class:`bootstrap.process.children.Children`, which would end pytest's."""

    fault: Exception | None = None

    def alive(self) -> list[Any]:
        return []

    async def end_all(self, _grace: float, _last_look: Any = None) -> list[Any]:
        if self.fault:
            raise self.fault
        return []


@pytest.fixture
def hung() -> Iterator[threading.Event]:
    """To wait on for ever; set at the end, since pytest would wait for the thread."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "runtime").mkdir(mode=0o700)
    monkeypatch.setattr(timeouts, "SHARED_FOLDER_S", 0.1)
    monkeypatch.setattr(timeouts, "FORCED_S", 0.1)
    return tmp_path


def ended(folder: Path, status: int = 0, **parts: Any) -> tuple[int, str, dict[str, Any]]:
    """The status, standard error and the result of a run whose workload ended with this status."""
    flags = {"result_file": [str(folder / "status.json")], **parts.pop("flags", {})}
    force_stop, identity = parts.pop("force_stop", None), parts.pop("identity", None)

    async def run() -> int:
        asked = settings.load(flags, {}, [], [])
        with (folder / "err").open("w") as err:
            children, manifest = parts.pop("children", NoChildren()), parts.pop("manifest", Manifest())
            runtime = RuntimeDir(folder / "runtime", manifest=manifest)
            here = Host({}, "here")
            context = Context(asked, here, Log(stream=err), children, runtime, OomCount(here, None))
            context.lifecycle.identity = identity
            line = await context.lifecycle.run(asyncio.sleep(0, Verdict(status, "the workload ended")))
            if force_stop is not None:
                asyncio.get_running_loop().call_later(force_stop, context.lifecycle.force_stop.set)
            return await shutdown.end_run(context, line)

    loop = asyncio.new_event_loop()
    found = loop.run_until_complete(run())  # as the agent: no wait for a thread that hangs
    loop.close()
    text = (folder / "status.json").read_text() if (folder / "status.json").is_file() else "{}"
    return found, (folder / "err").read_text(), json.loads(text)


def record(folder: Path) -> Manifest:
    return Manifest(owned_files={str(folder / "shared" / "record"): digest(b"mine")})


@pytest.mark.parametrize("error", [OSError(30, "Read-only file system"), PermissionError(13, "no"), KeyError("bug")])
def test_a_folder_that_fails_at_the_end_is_a_warning(
    folder: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_manifest: Manifest) -> None:
        raise error

    monkeypatch.setattr(cleanup, "remove_owned_files", fail)
    status, err, entry = ended(folder, 3)
    assert (status, entry["status"], entry["source"]) == (3, 3, "workload")
    assert "warning: removing this run's files: " in err
    assert "exit status 3 (from the workload)" in err


def test_children_that_cannot_be_ended_are_a_warning(folder: Path) -> None:
    children, mine = NoChildren(), folder / "shared" / "record"
    children.fault = OSError(24, "Too many open files")
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    status, err, _ = ended(folder, children=children, manifest=record(folder))
    assert status == 0
    assert "ending all processes: [Errno 24] Too many open files" in err
    assert not mine.exists()


def test_a_record_that_cannot_be_removed_does_not_keep_the_rest(folder: Path) -> None:
    (folder / "shared").write_text("")
    (folder / "runtime" / "token").touch()
    status, err, _ = ended(folder, manifest=record(folder))
    assert status == 0
    assert "Not a directory" in err
    assert not (folder / "runtime" / "token").exists()


def test_a_folder_that_hangs_is_not_waited_for(
    folder: Path, hung: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "remove_owned_files", lambda _manifest: hung.wait())
    status, err, entry = ended(folder, 4, manifest=record(folder))
    assert (status, entry["status"]) == (4, 4)
    assert f"warning: removing this run's files: {folder}/shared timed out after " in err


def test_a_result_file_that_hangs_is_not_waited_for(folder: Path) -> None:
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    try:
        status, err, _ = ended(folder, 5, flags={"result_file": [str(fifo)]})
    finally:
        os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))  # lets the thread go
    assert status == 5
    assert f"writing the result: {fifo} timed out after " in err


@pytest.fixture
def logs(folder: Path) -> Path:
    path = folder / "runtime" / "ray" / "session_2" / "logs"
    path.mkdir(parents=True)
    (path / "raylet.out").write_text("line")
    return path


WHO = NodeIdentity("local", Role.HEAD, 0, 1, "run")


def ray_in(folder: Path) -> dict[str, Any]:
    manifest = Manifest(closed_dir=str(folder / "runtime"), ray_dir=str(folder / "runtime" / "ray"))
    return {"manifest": manifest, "identity": WHO}


def test_logs_are_copied(folder: Path, logs: Path) -> None:
    copies = folder / "copies"
    status, err, entry = ended(folder, **ray_in(folder), flags={"log_dir": [str(copies)]})
    assert status == 0
    assert (Path(entry["logs"]) / "raylet.out").read_text() == "line"
    assert Path(entry["logs"]) == copies / WHO.run_hash / "rank-unnumbered"
    assert "warning" not in err


@pytest.mark.parametrize("force_stop", [None, 0.3])
def test_copying_logs_ends_after_its_time_or_a_second_signal(
    folder: Path, logs: Path, hung: threading.Event, monkeypatch: pytest.MonkeyPatch, force_stop: float | None
) -> None:
    monkeypatch.setattr(timeouts, "COPY_LOGS_S", 600 if force_stop else 0.1)
    monkeypatch.setattr("shutil.copyfileobj", lambda *_args: hung.wait())
    begun = time.monotonic()
    flags = {"log_dir": [f"{folder}/slow"]}
    status, err, entry = ended(folder, 6, **ray_in(folder), flags=flags, force_stop=force_stop)
    assert time.monotonic() - begun < 30
    assert (status, entry["logs"]) == (6, str(logs))
    assert f"copying Ray's logs: {folder}/slow/" in err


def test_the_first_signal_while_the_run_ends_by_itself_hurries_nothing() -> None:
    async def scenario() -> list[bool]:
        lifecycle, forced = Lifecycle(), []
        line = await lifecycle.run(asyncio.sleep(0, Verdict(0, "the workload ended")))
        for signum in (signal.SIGTERM, signal.SIGINT):
            lifecycle.stop(Stopped(signum, "stopped"))
            forced.append(lifecycle.force_stop.is_set())
        assert shutdown.make_verdict(lifecycle, line)[0].status == 0
        return forced

    assert asyncio.run(scenario()) == [False, True]


def test_a_manifest_that_cannot_be_written_is_a_warning(folder: Path) -> None:
    with (folder / "err").open("w") as err:
        log = Log(stream=err)
        asked, here = settings.load({}, {}, [], []), Host({}, "here")
        lost = Context(asked, here, log, NoChildren(), RuntimeDir(folder / "lost"), OomCount(here, None))
        asyncio.run(noted(lost))
    assert (
        f"{folder}/lost cannot be written: nothing will clean up if this agent is killed; fix: "
        in (folder / "err").read_text()
    )


async def noted(context: Context) -> None:
    context.note(gcs="10.0.0.1:6379")


def test_a_shared_folder_that_is_lost_does_not_change_the_status(site: Site) -> None:
    args = ["--nodes=2", f"--shared-dir={site.shared}"]
    workload = ["sh", "-c", "echo up; until test -e ../go; do sleep 0.02; done"]
    head, worker = (site.run(f"--rank={rank}", *args, "--", *workload) for rank in range(2))
    head.says("up", where="out")
    folder = site.shared / f"ray-bootstrap-{os.geteuid()}"
    folder.rename(site.folder / "away")
    folder.write_text("no folder")
    (site.folder / "go").touch()
    check("shared-dir-lost", there=head.wait(), elsewhere=[worker.wait()], workload=0)
    assert head.verdict["status"] == 0
    assert "warning: removing this run's files: " in head.err


def test_an_agent_that_is_killed_leaves_a_record(site: Site) -> None:
    node = site.run("--", "sleep", "600")
    node.is_in("running")
    agent = node.agent
    (runtime,) = (Path(state["folder"]) for state in states() if state["pid"] == agent)
    assert (runtime / "token").exists()
    os.kill(agent, signal.SIGKILL)
    assert node.wait() == 137
    assert (node.verdict["status"], node.verdict["source"], node.verdict["retryable"]) == (137, "killed", True)
    assert "SIGKILL" in node.verdict["reason"]
    assert [path.name for path in runtime.iterdir()] == ["result.json"]
    assert json.loads((runtime / "result.json").read_text()) == node.verdict


def test_the_record_of_an_earlier_run_is_cleared_at_the_start(site: Site) -> None:
    old = site.folder / "status.json"
    old.write_text('{"status": 0}')
    node = site.run(f"--result-file={old}", "--", "sleep", "600")
    node.is_in("running")
    assert not old.exists()
    node.send(signal.SIGTERM)
    assert node.wait() == 143
    assert json.loads(old.read_text())["status"] == 143


def test_only_a_regular_file_is_cleared(tmp_path: Path) -> None:
    target, link, fifo = tmp_path / "target", tmp_path / "link", tmp_path / "fifo"
    target.write_text("somebody's")
    link.symlink_to(target)
    os.mkfifo(fifo)
    for path in (link, fifo, tmp_path / "none", tmp_path / "no" / "folder"):
        result.clear(str(path), Host({}, "here"))
    assert (target.read_text(), link.is_symlink(), fifo.exists()) == ("somebody's", True, True)


KUBERNETES = Host({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "here")


@pytest.fixture
def termination_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "termination-log"
    path.write_text("old")
    monkeypatch.setattr(result, "_TERMINATION_LOG", path)
    return path


def test_the_termination_log_is_cleared_in_place(termination_log: Path) -> None:
    inode = termination_log.stat().st_ino
    result.clear(None, KUBERNETES)
    assert (termination_log.read_text(), termination_log.stat().st_ino) == ("", inode)
    assert result.write(None, KUBERNETES, ended_with("r")) == ""
    assert json.loads(termination_log.read_text())["reason"] == "r"


def ended_with(reason: str, **fields: Any) -> Result:
    return Result(70, "internal", reason, fields.get("hint", ""), False, "here")


LONG = st.builds(lambda text, times: text * times, st.text(max_size=8), st.integers(0, 3000))


@given(LONG, LONG, LONG)
def test_the_termination_log_is_whole_however_long_its_texts(reason: str, hint: str, run_id: str) -> None:
    text = result._fitted(Result(70, "internal", reason, hint, True, "here", run_id=run_id))
    assert len(text.encode()) <= 4000
    found = json.loads(text)
    assert (found["status"], found["retryable"]) == (70, True)
    assert {name: bool(found[name]) for name in ("reason", "hint")} == {"reason": bool(reason), "hint": bool(hint)}


def test_sagemaker_reads_the_reason_of_a_failure_beside_the_result_file(tmp_path: Path) -> None:
    host = Host({"TRAINING_JOB_NAME": "job"}, "algo-1", tmp_path)
    failure, given_file = tmp_path / "opt/ml/output/failure", tmp_path / "status.json"
    failed = ended_with("no " * 400, hint="try again")
    assert result.write(None, host, failed) == ""
    assert not failure.exists()  # the folder is not there: no container of SageMaker's
    failure.parent.mkdir(parents=True)
    assert result.write(str(given_file), host, failed) == ""
    assert failure.read_text() == f"exit status 70: {failed.reason}; fix: try again"[:1024]
    assert json.loads(given_file.read_text())["status"] == 70
    result.clear(str(given_file), host)
    assert not failure.exists()
    assert result.write(None, host, dataclasses.replace(failed, status=0)) == ""
    assert not failure.exists()


def test_a_long_reason_keeps_its_start_its_end_and_the_hint(termination_log: Path) -> None:
    entry = ended_with("Traceback" + "é" * 9000 + "KeyError: 'x'", hint="please report this")
    assert result.write(None, KUBERNETES, entry) == ""
    assert 3500 < termination_log.stat().st_size <= 4000
    found = json.loads(termination_log.read_text())
    assert found["reason"].startswith("Traceback")
    assert found["reason"].endswith("KeyError: 'x'")
    assert (found["hint"], found["retryable"]) == ("please report this", False)


LONG_NAME = f"--temp-dir=/tmp/{'x' * 60}"
UNREAD = [(["--help"], 0), (["--version"], 0), (["detect"], 0), (["detect", "--json"], 0), (["check"], 0)]
UNREAD += [(["check", LONG_NAME], 78), (["status", "--run-id=none"], 1)]


@pytest.mark.parametrize(("args", "status"), UNREAD)
def test_nobody_reads_standard_output(site: Site, args: list[str], status: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    node = site.run(*args, stdout=writing)
    os.close(writing)
    assert node.wait() == status, node.err
    assert "Traceback" not in node.err
    assert "BrokenPipe" not in node.err


def test_nobody_reads_standard_error(site: Site) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    node = site.run("--num-cpus=x", stderr=writing)
    os.close(writing)
    assert node.wait() == 64
    wait_for(lambda: node.verdict["status"] == 64, 5)
