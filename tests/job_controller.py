"""The rules by which Kubernetes' Job controller replaces pods, and ends a Job and the pods that still run.

Of Kubernetes 1.32, pkg/controller/job, for an Indexed Job with ``restartPolicy: Never``; each rule names its function.
Not here: the time that the controller itself takes. It looks 1 s after a pod's change (``syncJobBatchPeriod``) and the
kubelet reports that change within another second or two, so on a real cluster each event comes 1-3 s later than here,
and a pause that begins with a pod's end seems that much shorter.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]
BACK_OFF_S, MOST_BACK_OFF_S = 10.0, 600.0
"""``DefaultJobPodFailureBackOff`` and ``MaxJobPodFailureBackOff`` (job_controller.go)."""
NO_LIMIT = 2**31 - 1
"""The default of ``backoffLimit`` beside ``backoffLimitPerIndex``; else it is 6 (pkg/apis/batch/v1/defaults.go)."""


@dataclass
class Pod:
    """One pod of a Job."""

    index: int
    failures: int = 0
    """Annotation batch.kubernetes.io/job-index-failure-count: failures of the index that counted, before this pod."""
    ignored: int = 0
    """Annotation batch.kubernetes.io/job-index-ignored-failure-count: those that did not."""
    status: int | None = None
    disrupted: bool = False
    """Whether it has the condition DisruptionTarget: preempted, evicted, drained, or its node gone."""
    ended: float = 0.0
    deleted: bool = False
    """Whether the controller has deleted it before its end."""

    @property
    def failed(self) -> bool:
        """Phase Failed. With a podFailurePolicy, that a pod is being deleted is none yet (``isPodFailed``)."""
        return self.status not in (None, 0)

    @property
    def active(self) -> bool:
        """Pending or running, and not being deleted (``FilterActivePods``)."""
        return self.status is None and not self.deleted


class Job:
    """A Job from its creation on; ``now`` is the time in seconds since then."""

    def __init__(self, job: Object) -> None:
        self.spec: dict[str, Any] = {**job["spec"]}
        if self.spec.get("completionMode") != "Indexed" or self.spec["template"]["spec"]["restartPolicy"] != "Never":
            raise ValueError("only Indexed Jobs whose pods are not restarted are modelled")
        self.per_index: int | None = self.spec.get("backoffLimitPerIndex")
        self.rules: Sequence[Object] = self.spec.get("podFailurePolicy", {}).get("rules", ())
        self._check()
        self.now = 0.0
        self.pods: list[Pod] = []
        self.created: list[tuple[float, int]] = []
        """When a pod of which index was made."""
        self.reason: str | None = None
        """Why the Job has failed, as in its condition FailureTarget; "Complete" or "SuccessPolicy" if it has not."""
        self._started = 0.0
        self._since_success, self._last_failure = 0, 0.0
        self._recorded: set[int] = set()
        self.sync()

    def _check(self) -> None:
        """As the API server (``validateJobSpec``, ``validatePodFailurePolicyRule``, pkg/apis/batch/validation)."""
        if any(rule["action"] == "FailIndex" for rule in self.rules) and self.per_index is None:
            raise ValueError("FailIndex requires backoffLimitPerIndex")
        if self.spec.get("maxFailedIndexes") is not None and self.per_index is None:
            raise ValueError("maxFailedIndexes requires backoffLimitPerIndex")

    # What happens to it

    def end(self, statuses: Mapping[int, int], disrupted: Collection[int] = ()) -> None:
        """Let the active pods of these indexes end, all before the controller looks again.

        :param disrupted: the indexes whose pods get the condition DisruptionTarget.
        """
        for pod in [pod for pod in self.pods if pod.status is None and pod.index in statuses]:
            pod.status, pod.ended, pod.disrupted = statuses[pod.index], self.now, pod.index in disrupted
        self.sync()

    def wait(self) -> float:
        """Let time pass until the controller makes pods, and return how long; 0 if it makes none."""
        if (seconds := self._pause()) is None:
            return 0.0
        self.pass_time(seconds)
        return seconds

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.sync()

    def resume(self) -> None:
        """``spec.suspend: false``, as Kueue does when there is room."""
        self.spec["suspend"] = False
        self._started = self.now  # the deadline does not count the time before (syncJob)
        self.sync()

    # What one sees of it

    @property
    def running(self) -> list[int]:
        return sorted(pod.index for pod in self.pods if pod.active)

    @property
    def deleted(self) -> list[int]:
        """Indexes whose pods the controller has deleted, with what they ran, their containers and so their logs."""
        return sorted(pod.index for pod in self.pods if pod.deleted)

    @property
    def failed_indexes(self) -> list[int]:
        """``status.failedIndexes`` (``isIndexFailed``, indexed_job_utils.go)."""
        if self.per_index is None:
            return []
        over = {pod.index for pod in self.pods if self._counts(pod) and pod.failures >= self.per_index}
        return sorted(over | {pod.index for pod in self.pods if self._action(pod) == "FailIndex"})

    @property
    def succeeded_indexes(self) -> list[int]:
        """``status.completedIndexes``."""
        return sorted({pod.index for pod in self.pods if pod.status == 0})

    # The controller (syncJob, job_controller.go)

    def sync(self) -> None:
        """Decide whether the Job ends, and delete its active pods if so; else make those that are missing."""
        self._record()
        if self.reason is None and (reason := self._end()):
            self.reason = reason
            # In the same round in which the condition FailureTarget is set (deleteActivePods), or SuccessCriteriaMet.
            for pod in self.pods:
                pod.deleted = pod.deleted or pod.active
        if self.reason is None and not self.spec.get("suspend"):
            for index in self._creatable():
                self.pods.append(self._successor(index))
                self.created.append((self.now, index))

    def _end(self) -> str | None:
        """Return the reason of the Job's end, by the first condition that is met."""
        if any(self._action(pod) == "FailJob" for pod in self.pods):
            return "PodFailurePolicy"  # getFailJobMessage
        counted = sum(self._counts(pod) for pod in self.pods)
        if counted > self.spec.get("backoffLimit", 6 if self.per_index is None else NO_LIMIT):
            return "BackoffLimitExceeded"
        deadline = self.spec.get("activeDeadlineSeconds")
        if deadline is not None and not self.spec.get("suspend") and self.now - self._started >= deadline:
            return "DeadlineExceeded"  # pastActiveDeadline
        failed, succeeded = self.failed_indexes, self.succeeded_indexes
        most = self.spec.get("maxFailedIndexes")
        if most is not None and len(failed) > most:
            return "MaxFailedIndexesExceeded"
        if failed and len(failed) + len(succeeded) >= self.spec["completions"]:
            return "FailedIndexes"
        if any(set(_indexes(rule["succeededIndexes"])) <= set(succeeded) for rule in self._success_rules()):
            return "SuccessPolicy"  # matchSuccessPolicy (success_policy.go): the Job is Complete
        return "Complete" if len(succeeded) >= self.spec["completions"] and not self.running else None

    def _success_rules(self) -> Sequence[Object]:
        return self.spec.get("successPolicy", {}).get("rules", ())

    def _action(self, pod: Pod) -> str | None:
        """Of the first rule that matches (``matchPodFailurePolicy``, pod_failure_policy.go); None: it counts."""
        if not pod.failed:
            return None
        for rule in self.rules:
            if codes := rule.get("onExitCodes"):
                if pod.status and (pod.status in codes["values"]) is (codes["operator"] == "In"):
                    return str(rule["action"])
            elif pod.disrupted and {"type": "DisruptionTarget", "status": "True"} in rule["onPodConditions"]:
                return str(rule["action"])
        return None

    def _counts(self, pod: Pod) -> bool:
        return pod.failed and self._action(pod) != "Ignore"

    def _missing(self) -> list[int]:
        """``firstPendingIndexes``; with a podFailurePolicy a pod that is being deleted must have ended first."""
        gone = {*self.succeeded_indexes, *self.failed_indexes, *(pod.index for pod in self.pods if pod.status is None)}
        return [index for index in range(self.spec["completions"]) if index not in gone]

    def _creatable(self) -> list[int]:
        """The missing indexes whose back-off is over; without one per index it holds for all (``manageJob``)."""
        return [index for index in self._missing() if self._remaining(index) <= 0]

    def _pause(self) -> float | None:
        remaining = [self._remaining(index) for index in self._missing()]
        return min(remaining) if remaining and self.reason is None and not self.spec.get("suspend") else None

    def _remaining(self, index: int) -> float:
        """``getRemainingTimePerIndex``, or ``getRemainingTime`` of the Job's one record (backoff_utils.go).

        Ignored failures count for both, though for no limit.
        """
        if self.per_index is None:
            return _back_off(self._since_success) - (self.now - self._last_failure)
        before = [pod for pod in self.pods if pod.index == index]
        if not before:
            return 0.0
        last = before[-1]
        return _back_off(last.failures + last.ignored + 1) - (self.now - last.ended)

    def _record(self) -> None:
        """``newBackoffRecord``: failed pods of the whole Job since the last one that succeeded."""
        new = [pod for pod in self.pods if pod.status is not None and id(pod) not in self._recorded]
        self._recorded |= {id(pod) for pod in new}
        won = [pod.ended for pod in new if not pod.failed]
        lost = [pod for pod in new if pod.failed and (not won or pod.ended > max(won))]
        self._since_success = len(lost) + (0 if won else self._since_success)
        self._last_failure = max((pod.ended for pod in lost), default=self._last_failure)

    def _successor(self, index: int) -> Pod:
        """``getNewIndexFailureCounts``: what the annotations of a new pod say (kept per index only)."""
        before = [pod for pod in self.pods if pod.index == index]
        if not before or self.per_index is None:
            return Pod(index)
        counted = self._counts(before[-1])
        return Pod(index, before[-1].failures + counted, before[-1].ignored + (not counted))


def _indexes(text: str) -> list[int]:
    """Of "0,2-4"."""
    pairs = [part.split("-") for part in text.split(",")]
    return [index for pair in pairs for index in range(int(pair[0]), int(pair[-1]) + 1)]


def _back_off(failures: int) -> float:
    """``getRemainingTimeForFailuresCount``, seconds from the last failure."""
    return 0.0 if failures == 0 else min(BACK_OFF_S * 2 ** (failures - 1), MOST_BACK_OFF_S)


def outcome(job: Object, statuses: Sequence[int], disrupted: Collection[int] = ()) -> str:
    """What a Job becomes when its first pods have ended so, at once: the reason of its end, or "Retry".

    :param statuses: by rank.
    :param disrupted: ranks of the pods with the condition DisruptionTarget.
    """
    its = Job(job)
    its.end(dict(enumerate(statuses)), disrupted)
    return its.reason or "Retry"
