"""Why pods have not come, by the API server's events: from a real HTTPS server with a CA of its own."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import api_server
import pytest
from api_server import NO_ROOM, QUOTA, event

from bootstrap import timeouts
from bootstrap.host import Host
from bootstrap.launchers import events
from bootstrap.launchers.look import finds_causes
from bootstrap.log import Log
from bootstrap.run.causes import UnseenCauses

PULL = (
    'Failed to pull image "train:8": rpc error: code = NotFound desc = failed to resolve reference "train:8": not found'
)
Ask = Callable[..., Any]


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Ask]:
    """``asked(events, launcher, hostname, handler)``: what the head of that name finds out."""
    with contextlib.ExitStack() as servers:

        def ask(
            found: Any, launcher: str = "kubernetes", name: str = "ray-0", handler: type[Any] = api_server.Handler
        ) -> Any:
            folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
            api_server.write(folder, "127.0.0.1", found)
            account = folder / events.ACCOUNT.lstrip("/")
            account.parent.mkdir(parents=True)
            (folder / "account").rename(account)
            (folder / "account").symlink_to(account)
            server = servers.enter_context(api_server.make_server("127.0.0.1", 0, folder, handler))
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            servers.callback(thread.join)
            servers.callback(server.shutdown)
            env = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.server_address[1])}
            find = finds_causes(launcher, Host(env, name, folder))
            assert find is not None
            return find()

        yield ask


@pytest.mark.parametrize(
    ("found", "launcher", "name", "expected"),
    [
        (
            [event("Pod", "ray-1-x7k2p", "FailedScheduling", NO_ROOM)],
            "kubernetes",
            "ray-0",
            {1: f"FailedScheduling (Pod ray-1-x7k2p): {NO_ROOM}"},
        ),
        (
            [event("Job", "ray", "FailedCreate", f'Error creating: pods "ray-1-b4w8s" {QUOTA}')],
            "kubernetes",
            "ray-0",
            {1: f'FailedCreate (Job ray): Error creating: pods "ray-1-b4w8s" {QUOTA}'},
        ),
        (
            [event("Job", "ray", "FailedCreate", 'Error creating: admission webhook "v.io" denied the request: no')],
            "kubernetes",
            "ray-0",
            {None: 'FailedCreate (Job ray): Error creating: admission webhook "v.io" denied the request: no'},
        ),
        (
            [
                event("Pod", "ray-3-aaaaa", "Failed", PULL, 4),
                event("Pod", "ray-3-aaaaa", "Failed", "Error: ImagePullBackOff", 2),
                event("Pod", "ray-3-zzzzz", "FailedScheduling", f"{NO_ROOM} {NO_ROOM}", 400),
            ],
            "kubernetes",
            "ray-0",
            {3: f"Failed (Pod ray-3-aaaaa): {PULL}"},
        ),
        (
            [
                event("Pod", "other-1-x7k2p", "FailedScheduling", NO_ROOM),
                event("Pod", "ray-tune-1-x7k2p", "FailedScheduling", NO_ROOM),
                event("Job", "ray-tune", "FailedCreate", "no"),
                event("Pod", "ray-1-x7k2p", "FailedScheduling", NO_ROOM, 4000),
                event("Pod", "ray-1-x7k2p", "Unhealthy", "Readiness probe failed"),
                event("Pod", "ray-1-x7k2p", "Scheduled", "assigned", type="Normal"),
            ],
            "kubernetes",
            "ray-0",
            {},
        ),
        (
            [event("Pod", "ray-node-0-1-x7k2p", "FailedScheduling", NO_ROOM)],
            "jobset",
            "ray-node-0-0",
            {1: f"FailedScheduling (Pod ray-node-0-1-x7k2p): {NO_ROOM}"},
        ),
        (
            [
                event("StatefulSet", "vllm-0", "FailedCreate", f'create Pod failed error: pods "vllm-0-2" {QUOTA}'),
                event("Pod", "vllm-1-2", "FailedScheduling", "of another group"),
            ],
            "leaderworkerset",
            "vllm-0",
            {2: f'FailedCreate (StatefulSet vllm-0): create Pod failed error: pods "vllm-0-2" {QUOTA}'},
        ),
        (
            [
                event("Pod", "ray-node-1", "FailedScheduling", NO_ROOM),
                event("Pod", "ray-node-b-2", "FailedScheduling", "of another task"),
                event("Job", "ray", "FailedCreate", f"Error creating pods: [failed to create pod ray-node-2, {QUOTA}]"),
                event("Job", "ray", "PodGroupPending", "PodGroup default:ray unschedulable"),
            ],
            "volcano",
            "ray-node-0.ray",
            {
                1: f"FailedScheduling (Pod ray-node-1): {NO_ROOM}",
                None: f"FailedCreate (Job ray): Error creating pods: [failed to create pod ray-node-2, {QUOTA}]",
            },
        ),
    ],
)
def test_the_cause_of_a_rank(asked: Ask, found: Any, launcher: str, name: str, expected: dict[int | None, str]) -> None:
    assert asked(found, launcher, name) == expected


def test_texts_from_outside_are_one_short_line(asked: Ask) -> None:
    found = asked([event("Pod", "ray-1-x7k2p", "Failed\x1b[2J", f"a\nb\r\x1b[31mc\u202e{'d' * 9000}")])
    assert found[1].startswith("Failed [2J (Pod ray-1-x7k2p): a b [31mc d")
    assert found[1].isprintable()
    assert len(found[1]) < 500


def test_events_without_what_they_should_have_are_passed_over(asked: Ask) -> None:
    whole = event("Pod", "ray-1-x7k2p", "FailedScheduling", NO_ROOM)
    broken = [{**whole, key: value} for key in whole for value in (None, 7, [], {}, "\ud800", "x" * 5000)]
    assert len(asked([7, None, [], {}, *broken, whole])[1]) < 500


def test_many_events_come_in_pages(asked: Ask) -> None:
    others = [event("Pod", f"other-{i}", "FailedScheduling", NO_ROOM) for i in range(1200)]
    assert list(asked([*others, event("Pod", "ray-1-x7k2p", "FailedScheduling", NO_ROOM)])) == [1]


def answering(respond: Callable[[Any], object]) -> type[Any]:
    def get(handler: Any) -> None:
        respond(handler)

    return type("Other", (api_server.Handler,), {"do_GET": get})


def slowly(handler: Any) -> None:
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):
        while not time.sleep(0.01):
            handler.wfile.write(b" ")


@pytest.mark.parametrize(
    ("respond", "kind", "text"),
    [
        (
            lambda its: its.answer(403, {"kind": "Status"}),
            PermissionError,
            "403 Forbidden; fix: add k8s/components/events",
        ),
        (lambda its: its.answer(500, {}), OSError, "500 Internal Server Error"),
        (lambda its: its.send(200, b"\x00garbage"), OSError, "is not JSON"),
        (lambda its: its.send(200, b"[" * 100_000), OSError, "is not JSON"),
        (lambda its: its.answer(200, {"items": 7}), OSError, "not a list of events"),
        (lambda its: its.wfile.write(b"\x15\x03\x01 what\r\n\r\n"), OSError, "is not HTTP"),
        (lambda its: its.send(200, b" " * (5 << 20)), OSError, "more than 4 MiB"),
        (lambda _its: time.sleep(3), OSError, "timed out"),
        (slowly, OSError, "takes more than 1 s"),
    ],
)
def test_an_api_server_that_does_not_answer_with_events(
    asked: Ask, monkeypatch: pytest.MonkeyPatch, respond: Any, kind: type[OSError], text: str
) -> None:
    monkeypatch.setattr(timeouts, "EVENTS_S", 1.0)
    with pytest.raises(kind, match="Kubernetes' events about the missing pods cannot be read: ") as caught:
        asked([], handler=answering(respond))
    assert text in str(caught.value)
    assert type(caught.value) is kind
    assert "eyJ" not in str(caught.value)


def test_a_server_of_another_ca_gets_no_token(asked: Ask, tmp_path: Path) -> None:
    got: list[str] = []
    (tmp_path / "other").mkdir()
    api_server.write(tmp_path / "other/its", "127.0.0.1", [])
    stranger = type("Stranger", (api_server.Handler,), {"do_GET": lambda self: got.append(self.path)})
    with api_server.make_server("127.0.0.1", 0, tmp_path / "other/its", stranger) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        mine = tmp_path / "mine"
        api_server.write(mine, "127.0.0.1", [])
        account = mine / events.ACCOUNT.lstrip("/")
        account.parent.mkdir(parents=True)
        (mine / "account").rename(account)
        env = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.server_address[1])}
        find = finds_causes("kubernetes", Host(env, "ray-0", mine))
        assert find is not None
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            find()
        server.shutdown()
        thread.join()
    assert got == []


def test_a_token_of_two_lines_is_not_shown(tmp_path: Path) -> None:
    """http.client quotes a header that it refuses, in a ValueError."""
    account = tmp_path / events.ACCOUNT.lstrip("/")
    account.parent.mkdir(parents=True)
    api_server.write(tmp_path / "its", "127.0.0.1", [])
    (tmp_path / "its/account").rename(account)
    (account / "token").write_text("eyJ\nhbGciOi")
    with socket.socket() as unused:  # refuses all
        unused.bind(("127.0.0.1", 0))
        env = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(unused.getsockname()[1])}
        find = finds_causes("kubernetes", Host(env, "ray-0", tmp_path))
        assert find is not None
        with pytest.raises(OSError, match="Connection refused"):
            find()


def test_without_a_service_account_nothing_is_asked(tmp_path: Path) -> None:
    find = finds_causes("kubernetes", Host({"KUBERNETES_SERVICE_HOST": "192.0.2.1"}, "ray-0", tmp_path))
    assert find is not None
    assert find() == {}
    assert finds_causes("slurm", Host({}, "n1")) is None


@pytest.mark.parametrize(
    ("answers", "lines"),
    [
        (
            [{1: "no room"}, {1: "no room", 2: "no room"}, {2: "quota"}],
            ["1 not seen: no room", "2 not seen: no room", "2 not seen: quota"],
        ),
        ([{None: "quota"}], ["1, 2 not seen: quota"]),
        ([PermissionError("403"), {1: "not asked again"}], ["403"]),
        ([OSError("timed out"), OSError("timed out"), {1: "no room"}], ["timed out", "1 not seen: no room"]),
    ],
)
def test_each_cause_is_said_once_and_nothing_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, answers: list[Any], lines: list[str]
) -> None:
    monkeypatch.setattr(timeouts, "STILL_LOOKING_S", 0.0)
    written, left = io.StringIO(), list(answers)

    def find() -> Any:
        answer = left.pop(0) if left else answers[-1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    unseen = UnseenCauses(find, Log(stream=written), 0.0)
    unseen.look([1, 2], timeouts.LATE_RANK_S - 1)
    assert len(left) == len(answers)
    deadline = time.monotonic() + 20
    while written.getvalue().count("\n") < len(lines) and time.monotonic() < deadline:
        unseen.look([1, 2], timeouts.LATE_RANK_S)
        time.sleep(0.01)
    for _ in range(20):
        unseen.look([1, 2], timeouts.LATE_RANK_S)
        time.sleep(0.005)
    said = [line.partition("warning: ")[2].removeprefix("rank ") for line in written.getvalue().splitlines()]
    assert said == lines


def test_a_server_that_hangs_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    unseen = UnseenCauses(lambda: (release.wait(30), {})[1], Log(stream=io.StringIO()), 0.0)  # type: ignore[return-value]
    begun = time.monotonic()
    for _ in range(3):
        unseen.look([1], 100.0)
    assert time.monotonic() - begun < 5
    assert unseen.of(1) == ""
    release.set()
