"""What becomes of the Jobs of k8s/: the table of docs/kubernetes.md, played with the controller's rules."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import kubelet
import pytest
from controllers import native
from job_controller import Job
from kubelet import REPOSITORY
from test_manifests import beyond_repair, rendered

pytestmark = [pytest.mark.requires("kubectl")]
NODES = 3
KEEP_RUNNING, RETRY = "keep running", "retry whole runs"
Step = tuple[Mapping[int, int], Collection[int]]
"""The statuses of the pods that end, by index, and which of them were disrupted."""


def every(status: int, disrupted: Collection[int] = ()) -> list[Step]:
    return [(dict.fromkeys(range(NODES), status), disrupted)]


ROWS: Mapping[str, Sequence[Sequence[Step]]] = {
    "the workload returns 0": [every(0)],
    "the workload fails with 3": [every(3)],
    "the workload cannot be started; bad options; an unfit node; different images": [
        every(status) for status in sorted(beyond_repair())
    ],
    "a worker crashes (out of memory, say)": [[({1: 137}, ())]],
    "the same with `--on-node-loss=fail`": [[({0: 76, 1: 137, 2: 76}, ())]],
    "a worker crashes before the workload has started": [[({1: 137}, ()), ({0: 76, 2: 76}, ())]],
    "a worker is preempted, evicted or drained": [[({1: 143}, [1])]],
    "the head is preempted, evicted or drained": [every(143, [0])],
    "the head crashes": [[({0: 137, 1: 76, 2: 76}, ())]],
    "the head is cut off from the others": [every(76)],
    "not all nodes come (no room, an image that is not found)": [[({0: 75, 1: 75}, ())]],
}
"""What happens, in the words of the docs, and how the pods end; a list of the ways in which it may happen."""


def table() -> dict[str, list[str]]:
    """The other cells of each row, by the first one."""
    text = (REPOSITORY / "docs/kubernetes.md").read_text().partition("## How the Job ends")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert rows[0] == ["what happens", "the pods' statuses", KEEP_RUNNING, RETRY]
    return {row[0]: row[1:] for row in rows[2:]}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The Jobs of the two shapes, with three pods."""
    tried = kubelet.with_components(tmp_path_factory.mktemp("retry"), "k8s/base", "retry")
    made = {KEEP_RUNNING: rendered("k8s/base"), RETRY: tried}
    jobs = {name: kubelet.only(objects, "Job") for name, objects in made.items()}
    for job in jobs.values():
        job["spec"] |= {"completions": NODES, "parallelism": NODES}
    return jobs


def becomes(its: Any, steps: Sequence[Step]) -> str:
    """What the docs say of a Job whose pods end so."""
    job, tries = Job(its), 1
    for statuses, disrupted in steps:
        job.end(statuses, disrupted)
        pause, made = job.wait(), len(job.created) - NODES
        if pause and len(statuses) == 1:
            assert (job.running, job.deleted) == (list(range(NODES)), [])
            return f"a new pod after {pause:g} s"
    if job.reason:
        return job.reason if job.reason == "Complete" else f"Failed, {job.reason}"
    if not pause:
        job.end(dict.fromkeys(job.running, 0))
        return f"the others go on; at the end Failed, {job.reason}"
    assert job.deleted == []
    anew = f"{'all' if made == NODES else 'those'} pods anew after {pause:g} s"
    if disrupted:
        return anew
    while not job.reason:
        tries += 1
        job.end(statuses)
        job.wait()
    assert tries == 1 + its["spec"]["backoffLimitPerIndex"]
    return f"{anew}; at the end Failed, {job.reason}"


def test_the_docs_have_a_row_for_each_case() -> None:
    assert list(table()) == list(ROWS)


@pytest.mark.parametrize("shape", [KEEP_RUNNING, RETRY])
@pytest.mark.parametrize("what", ROWS)
def test_the_table_of_the_docs(shapes: Mapping[str, Any], what: str, shape: str) -> None:
    statuses, *cells = table()[what]
    cell = cells[0 if shape == KEEP_RUNNING else 1]
    for steps in ROWS[what]:
        assert re.match(re.escape(becomes(shapes[shape], steps)) + r"(?= joins|; the workload starts|$)", cell)
    named = {int(number) for number in re.findall(r"\b\d+\b", re.sub(r"`[^`]*`|\(.*?\)", "", statuses))}
    ends = {status for steps in ROWS[what] for ended, _ in steps for status in ended.values()}
    assert ends == named or (what.startswith(("the same", "a worker crashes before")) and ends >= named)


def test_a_workers_crash_leaves_the_head_and_its_logs(shapes: Mapping[str, Any]) -> None:
    job = Job(shapes[KEEP_RUNNING])
    job.end({1: 137})
    assert (job.reason, job.running, job.failed_indexes) == (None, [0, 2], [1])
    job.pass_time(3600)
    assert len(job.created) == NODES
    job.end({0: 0, 2: 0})
    assert (job.reason, job.deleted, job.succeeded_indexes) == ("FailedIndexes", [], [0, 2])


def test_a_preempted_head_is_not_enough_once_a_rank_has_failed(shapes: Mapping[str, Any]) -> None:
    job = Job(shapes[KEEP_RUNNING])
    job.end({1: 137})
    job.end({0: 143, 2: 143}, disrupted=[0])
    assert (job.wait(), job.running) == (10, [0, 2])
    job.end({0: 75, 2: 75})
    assert job.reason == "PodFailurePolicy"


def test_backoff_limit_would_delete_the_head_for_it(shapes: Mapping[str, Any]) -> None:
    """As a real 1.32 did, 2-3 s later."""
    job = Job(as_with(shapes[KEEP_RUNNING], backoffLimit=0))
    job.end({1: 137})
    assert (job.reason, job.deleted) == ("BackoffLimitExceeded", [0, 2])


def as_with(its: Any, *, per_index: int | None = None, **spec: Any) -> Any:
    """The Job with another limit."""
    kept = {k: v for k, v in its["spec"].items() if k not in ("backoffLimitPerIndex", "maxFailedIndexes")}
    return {**its, "spec": {**kept, **({} if per_index is None else {"backoffLimitPerIndex": per_index}), **spec}}


def test_the_pauses_of_backoff_limit_double_with_every_pod(shapes: Mapping[str, Any]) -> None:
    """A real 1.32 with 4 nodes: the second try came after 78 s, a third would have come after 600 s."""
    job = Job(as_with(shapes[KEEP_RUNNING], backoffLimit=8, completions=4, parallelism=4))
    pauses = []
    while not job.reason:
        job.end(dict.fromkeys(range(4), 3))
        pauses.append(job.wait())
    assert 78 <= pauses[0] <= 78 + 3
    assert pauses[1:] == [600, 0]
    assert job.reason == "BackoffLimitExceeded"
    assert len(job.created) == 3 * 4


@pytest.mark.parametrize("retries", [1, 3])
def test_retries_per_index_are_tries_of_the_whole_run(shapes: Mapping[str, Any], retries: int) -> None:
    """A real 1.32: all pods anew after 9 s, and exactly R retries."""
    job = Job(as_with(shapes[RETRY], per_index=retries, maxFailedIndexes=0))
    pauses = []
    while not job.reason:
        job.end(dict.fromkeys(range(NODES), 3))
        if not job.reason:
            pauses.append(job.wait())
            assert job.running == list(range(NODES))
    assert pauses == [10, 20, 40][:retries]
    assert 9 <= pauses[0] <= 9 + 3
    assert job.reason == "MaxFailedIndexesExceeded"


def test_there_one_rank_that_keeps_failing_ends_the_job_with_its_head(shapes: Mapping[str, Any]) -> None:
    job = Job(shapes[RETRY])
    for pause in (10, 20, 40):
        job.end({2: 137})
        assert (job.deleted, job.wait(), job.running) == ([], pause, [0, 1, 2])
    job.end({2: 137})
    assert (job.reason, job.deleted) == ("MaxFailedIndexesExceeded", [0, 1])


def test_preemption_is_for_ever_but_comes_back_later_each_time(shapes: Mapping[str, Any]) -> None:
    job = Job(shapes[KEEP_RUNNING])
    pauses = []
    for _ in range(8):
        job.end({1: 143}, disrupted=[1])
        pauses.append(job.wait())
    assert pauses == [10, 20, 40, 80, 160, 320, 600, 600]
    assert (job.reason, job.failed_indexes, job.running) == (None, [], [0, 1, 2])


def test_pods_that_are_pending_end_with_a_run_that_gave_up_on_them(shapes: Mapping[str, Any]) -> None:
    job = Job(shapes[KEEP_RUNNING])
    job.end({0: 75, 1: 75})
    assert (job.reason, job.deleted) == ("PodFailurePolicy", [2])


def test_but_else_they_keep_the_job_active(shapes: Mapping[str, Any]) -> None:
    job = Job({**shapes[KEEP_RUNNING], "spec": {**shapes[KEEP_RUNNING]["spec"], "activeDeadlineSeconds": 7200}})
    job.end({0: 137, 1: 76})
    job.pass_time(7199)
    assert (job.reason, job.running) == (None, [2])
    job.pass_time(1)
    assert (job.reason, job.deleted) == ("DeadlineExceeded", [2])


def test_the_heads_machine_is_lost(shapes: Mapping[str, Any]) -> None:
    """Its pod has ended only when Kubernetes gives the machine up; the new head finds no worker."""
    job = Job(shapes[KEEP_RUNNING])
    job.end({1: 76, 2: 76})
    job.pass_time(300)
    assert (job.reason, job.running) == (None, [0])
    job.end({0: 137}, disrupted=[0])
    job.wait()
    assert job.running == [0]
    job.end({0: 75})
    assert job.reason == "PodFailurePolicy"


def test_with_fewer_nodes_an_unfit_one_costs_its_own_rank(tmp_path: Path, shapes: Mapping[str, Any]) -> None:
    its = kubelet.only(kubelet.with_components(tmp_path, "k8s/base", "min-nodes"), "Job")
    its["spec"] |= {"completions": NODES, "parallelism": NODES}
    job = Job(its)
    job.end({2: 78})
    assert (job.reason, job.running, job.failed_indexes) == (None, [0, 1], [2])
    job.end({0: 0, 1: 0})
    assert (job.reason, job.succeeded_indexes) == ("FailedIndexes", [0, 1])
    without = Job(shapes[KEEP_RUNNING])
    without.end({2: 78})
    assert (without.reason, without.deleted) == ("PodFailurePolicy", [0, 1])
    with pytest.raises(ValueError, match="FailIndex requires backoffLimitPerIndex"):
        Job(as_with(its))


def test_a_success_policy_completes_the_job_with_the_workload(shapes: Mapping[str, Any]) -> None:
    policy = {"rules": [{"succeededIndexes": "0"}]}
    job = Job({**shapes[KEEP_RUNNING], "spec": {**shapes[KEEP_RUNNING]["spec"], "successPolicy": policy}})
    job.end({0: 0, 1: 0})
    assert (job.reason, job.deleted) == ("SuccessPolicy", [2])


def test_a_suspended_job_has_no_pods_and_then_all_at_once(shapes: Mapping[str, Any]) -> None:
    spec = {**shapes[KEEP_RUNNING]["spec"], "suspend": True, "activeDeadlineSeconds": 60}
    job = Job({**shapes[KEEP_RUNNING], "spec": spec})
    job.pass_time(3600)
    assert (job.reason, job.created) == (None, [])
    job.resume()
    assert job.created == [(3600, 0), (3600, 1), (3600, 2)]
    assert job.reason is None


def test_the_first_failure_ends_a_try_of_a_jobset_and_a_preempted_head_is_back_soon() -> None:
    (part,) = (p for thing in rendered("k8s/overlays/jobset") if thing["kind"] == "JobSet" for p in native(thing))
    part["spec"] |= {"completions": 8, "parallelism": 8}
    job = Job(part)
    job.end({5: 137})
    assert (job.reason, job.deleted) == ("MaxFailedIndexesExceeded", [0, 1, 2, 3, 4, 6, 7])
    stopped, older = Job(part), Job(as_with(part, backoffLimit=0))
    for its, pause in ((stopped, 10), (older, 600)):
        its.end(dict.fromkeys(range(8), 143), disrupted=[0])
        assert (its.wait(), its.running) == (pause, list(range(8)))
