"""Volcano Jobs, also below Huawei's ModelArts and Azure ML on Kubernetes: the pods of one task or of several.

Sources: pkg/controllers/job/plugins/env/env.go and svc/svc.go, pkg/controllers/job/job_controller_{util,actions}.go
(https://github.com/volcano-sh/volcano); https://support.huaweicloud.com/drawer-modelarts/ma_drawer_129.html
"""

import re
from collections.abc import Mapping, Sequence

from bootstrap import net
from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.launchers import events, hostlist
from bootstrap.launchers.kubernetes import downward, pod_name, pods
from bootstrap.launchers.row import Context, Fact, Facts, Launcher

FOLDER = "/etc/volcano"
"""Where plugin svc mounts its ConfigMap, a file for each variable: all there is with ``--inject-hosts-env=false``."""
_HEADS = ("MASTER", "HEAD", "LEADER", "LAUNCHER")
"""Tasks, as variables spell them, whose pods have the first ranks; the others follow by name."""
_SHOWN = 80
"""Characters of a list in an error message."""
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_PLUGINS = "in the Job's spec `plugins: {env: [], svc: [--publish-not-ready-addresses=true]}`"
_BY_HAND = "--rank=N on each node, with --nodes=N and --head-address=HOST"

Tasks = Mapping[str, Sequence[str]]
"""Task, as variables spell it → the names of its pods by index; in the order of the ranks."""


def volcano(found: Facts, context: Context) -> Facts:
    """Derive rank, size, head and hosts from the lists of all tasks' pods and from this pod's name.

    :raises IdentityError: if there is no list, or one that lacks pods, if numbers contradict each other, or if it is
        not certain which of the pods this is.
    """
    host, declared = context.host, found.get("size", ("", ""))[0]
    tasks = _tasks(host)
    if not tasks:
        return _without_lists(found, declared, context)
    _refuse_incomplete(tasks, declared, host)
    hosts, source = [name for names in tasks.values() for name in names], ", ".join(map(_variable, tasks))
    job = hosts[0].partition(".")[2] or hosts[0]  # the Service is named after it
    name = found.get("run_name", (f"volcano-{job}", source))
    facts = {"run_name": name, "size": (str(len(hosts)), source), **hostlist.by_rank(hosts, source)}
    return facts if context.settings.rank is not None else {**facts, "rank": _rank(tasks, found, declared, host)}


def _tasks(host: Host) -> Tasks:
    files = (path.name for path in host.path(FOLDER).glob("VC_*_HOSTS"))
    names = {match[1] for name in (*host.env, *files) if (match := re.fullmatch("VC_(.+)_HOSTS", name))}
    ordered = sorted(names, key=lambda task: (_HEADS.index(task) if task in _HEADS else len(_HEADS), task))
    lists = {task: re.findall(r"[^,\s]+", _value(_variable(task), host)) for task in ordered}
    return {task: listed for task, listed in lists.items() if listed}


def _value(name: str, host: Host) -> str:
    return host.get(name) or host.read(f"{FOLDER}/{name}") or ""


def _without_lists(found: Facts, declared: str, context: Context) -> Facts:
    """Return rank 0 if ModelArts says that this is the only node, where the index means nothing; else no facts.

    :raises IdentityError: if nothing says how many nodes there are.
    """
    if declared == "1":
        named = found.get("run_name", (f"volcano-{context.host.hostname}", "host name"))
        return {"rank": ("0", "MA_NUM_HOSTS=1"), "run_name": named}
    if not declared and context.settings.nodes is None:
        quoted = ", ".join(f"{source}={value!r}" for value, source in found.values())
        raise IdentityError(
            f"{quoted}, but no VC_<TASK>_HOSTS, neither as a variable nor in {FOLDER}: how many pods there are is"
            " unknown",
            hint=f"{_PLUGINS}; or {_BY_HAND}",
        )
    return {}


def _refuse_incomplete(tasks: Tasks, declared: str, host: Host) -> None:
    for task, hosts in tasks.items():
        quoted, number = _quoted(task, hosts), _value(f"VC_{task}_NUM", host).strip()
        if number and number != str(len(hosts)):
            raise IdentityError(f"{quoted} has {len(hosts)} names, and VC_{task}_NUM={number!r}", hint=_BY_HAND)
        first = f"-{task.replace('_', '-').lower()}-0"
        if len(hosts) == 1 and not declared and not net.short_name(hosts[0]).endswith(first):
            raise IdentityError(
                f"{quoted} does not name a pod of this task: with `hostname` in its template Volcano lists that one"
                " name, however many pods there are",
                hint=f"take `hostname` out of the task's template; or {_BY_HAND}",
            )
    total = sum(map(len, tasks.values()))
    if declared and declared != str(total):
        lists = " and ".join(map(_variable, tasks))
        raise IdentityError(f"MA_NUM_HOSTS={declared!r}, and {lists} has {total} names", hint=_BY_HAND)


def _rank(tasks: Tasks, found: Facts, declared: str, host: Host) -> Fact:
    """Return the rank by this pod's name; where that is in no list, by its index, if the task is certain."""
    pods_by_rank = [(task, index, name) for task, names in tasks.items() for index, name in enumerate(names)]
    own, (index, source) = host.hostname.partition(".")[0], found.get("rank", ("", "VC_TASK_INDEX"))
    if declared == "1":
        return "0", "MA_NUM_HOSTS=1"
    ranks = [rank for rank, (_, _, name) in enumerate(pods_by_rank) if net.short_name(name) == net.short_name(own)]
    if not ranks:
        task = next(iter(tasks)) if len(tasks) == 1 else (host.get("MA_TASK_NAME") or "").upper().replace("-", "_")
        ranks = [rank for rank, (its, place, _) in enumerate(pods_by_rank) if (its, str(place)) == (task, index)]
    task, place, _ = pods_by_rank[ranks[0]] if len(ranks) == 1 else ("", -1, "")
    if not task or index not in ("", str(place)):
        lists = ", ".join(_quoted(*each) for each in tasks.items())
        raise IdentityError(
            f"{source}={index!r}, host name {own!r}, {lists}: which of these pods this one is, is not certain",
            hint=_BY_HAND,
        )
    return str(ranks[0]), source if str(ranks[0]) == index else f"{place} in {_variable(task)}"


def _variable(task: str) -> str:
    return f"VC_{task}_HOSTS"


def _quoted(task: str, names: Sequence[str]) -> str:
    return f"{_variable(task)}={','.join(names)[:_SHOWN]!r}"


def _causes(host: Host) -> events.Causes:
    """Return why pods of the head's task have not started, which have the first ranks."""
    job = pod_name(host)[1].partition(".")[0]  # the Service is named after it
    return events.causes(host, pods="{job}-([0-9]{1,9})", makers=re.escape(job))


ROWS: tuple[Launcher, ...] = (
    # With its plugin pytorch, torchrun or mpirun in a pod the ranks are those of these, and so with Azure ML's PyTorch.
    Launcher(
        "volcano",
        none_of=("RANK", "NODE_RANK", "GROUP_RANK", "OMPI_COMM_WORLD_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_RANK"),
        rank=("VC_TASK_INDEX", "VK_TASK_INDEX"),
        size=("MA_NUM_HOSTS",),
        run_name=("volcano-{MA_VJ_NAME}",),
        rendezvous="dns",
        requeues=True,
        derive=volcano,
        run_id_hint=downward("metadata.annotations['scheduling.k8s.io/group-name']"),
        look=pods("volcano.sh/job-name={name}", "vcjob {name}"),
        why=_causes,
        name_in=("RAY_BOOTSTRAP_RUN_ID", f"(.+)-{_UUID}"),
    ),
)
