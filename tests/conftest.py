"""What holds for every test: what it may need of the machine, and that it leaves nothing alive."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
from hosts import MARK, Hosts, transcripts
from hosts import make_hosts as start_hosts
from requirements import HOSTS, SKIPPED, requires, summary
from survivors import descendants, describe, marked

REPOSITORY = Path(__file__).parent.parent
_SETS_OF_HOSTS = pytest.StashKey[list[Hosts]]()
_SECONDS_TO_DIE = 5.0
_STARTS = {"os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"}
"""The audit events of Python's ways to start a process; the other functions of the library go through these."""
_started: list[str] = []
"""Those events since the test began."""


def _note_start(event: str, _: object) -> None:
    if event in _STARTS:
        _started.append(event)


sys.addaudithook(_note_start)


def pytest_configure(config: pytest.Config) -> None:
    pytest.register_assert_rewrite("cluster", "faults")
    # How long an example takes says more about the machine's load than about the code. CI tries all examples.
    too_slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("all", deadline=None, suppress_health_check=too_slow)
    hypothesis.settings.register_profile("quick", parent=hypothesis.settings.get_profile("all"), max_examples=25)
    hypothesis.settings.load_profile("all" if os.environ.get("CI") else "quick")
    # A shell's `&` and nohup have some of them ignored, and what we start would go on to.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_DFL)
    config.addinivalue_line("markers", "requires(name, ...): needs these of tests/requirements.py")


def pytest_collection_finish() -> None:
    """Takes what the imports have made out of later garbage collections, which some tests force every time."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips, or with CI=true fails, a test whose machine lacks what its marks name."""
    names = [name for mark in item.iter_markers("requires") for name in mark.args]
    requires(*(HOSTS if item.get_closest_marker("hosts") else ()), *names)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds what the hosts' commands wrote to the report of a failed test."""
    report = yield
    if report.when == "call" and report.failed:
        for node in item.listchain():
            for hosts in node.stash.get(_SETS_OF_HOSTS, []):
                report.sections.extend(transcripts(hosts))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says at the end what was not run and why."""
    lines = summary(terminalreporter.stats.get("skipped", []))
    if lines:
        terminalreporter.section("not run on this machine")
        for line in lines:
            terminalreporter.line(line, yellow=SKIPPED in line)


@pytest.fixture(autouse=sys.platform == "linux")
def nothing_left() -> Iterator[dict[str, str]]:
    """Proves that nothing the test started is alive after it: no marked process, no descendant.

    Looks through all processes of the machine only after a test that has started one.
    The value is the mark, for a test that gives its processes an environment of their own: ``env={**nothing_left, …}``.
    """
    value = uuid.uuid4().hex
    before = descendants(os.getpid())
    _started.clear()
    os.environ[MARK] = value
    try:
        yield {MARK: value}
    finally:
        os.environ.pop(MARK, None)
    # The descendants cost next to nothing, and show what C code has started.
    if not _started and descendants(os.getpid()) <= before:
        return
    if left := _left_after(_SECONDS_TO_DIE, f"{MARK}={value}", before):
        names = [describe(pid) for pid in left]
        for pid in left:
            _kill(pid)
        pytest.fail("the test left alive (killed now):\n  " + "\n  ".join(names), pytrace=False)


def _left_after(seconds: float, mark: str, before: set[int]) -> list[int]:
    """What is still there after ``seconds`` at most, for a process that was just signalled to end."""
    from hosts import wait_for

    def alive() -> set[int]:
        return marked(mark) | (descendants(os.getpid()) - before)

    try:
        # Two looks: in the midst of exec a process shows no environment, and so no mark.
        wait_for(lambda: not alive() and not alive(), timeout=seconds)
    except TimeoutError:
        return sorted(alive())
    return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _making_hosts(
    node: pytest.Item | pytest.Collector, folder: Path, temporary: Path
) -> Iterator[Callable[..., Hosts]]:
    requires(*HOSTS)
    made = node.stash.setdefault(_SETS_OF_HOSTS, [])
    numbers = itertools.count()
    python = {sys.prefix, sys.base_prefix, *sys.path}
    visible = [str(REPOSITORY), str(temporary), *filter(None, python)]

    def make(n: int, **options: object) -> Hosts:
        hosts = start_hosts(n, base=folder / f"hosts-{next(numbers)}", **{"visible": visible, **options})  # type: ignore[arg-type]
        made.append(hosts)
        return hosts

    try:
        yield make
    finally:
        for hosts in made:
            hosts.close()


@pytest.fixture
def make_hosts(
    request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Hosts]]:
    """``make_hosts(n, **options)`` as in :func:`hosts.make_hosts`; whatever was made is taken down after the test."""
    yield from _making_hosts(request.node, tmp_path, tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def make_shared_hosts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Hosts]]:
    """The same for hosts that the tests of a module share."""
    yield from _making_hosts(request.node, tmp_path_factory.mktemp("hosts"), tmp_path_factory.getbasetemp())


@pytest.fixture(name="requires")
def requires_fixture() -> Callable[..., None]:
    """``requires("cc", …)`` of :mod:`requirements`, for a need that shows only inside a test or fixture."""
    return requires
