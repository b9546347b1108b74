"""A launcher as one row: our words on the left, its variables on the right; and what a row's functions get and give."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

from bootstrap import net
from bootstrap.host import Host
from bootstrap.launchers import events
from bootstrap.launchers.place import Place, Surroundings
from bootstrap.settings import Settings

Names = tuple[str, ...]
Fact = tuple[str, str]
"""A value as text, and its source."""
Facts = dict[str, Fact]
"""By our word: rank, size, role, head, run_id (unique), run_name (perhaps the next run's too), attempt, note; hosts:
the names of all nodes by rank, with spaces between; listed: set where nothing but a lock tells a second process on
this node from the first."""


def number(text: str | None) -> int:
    """Return a whole number of at most nine digits; -1 for any other text."""
    return int(text) if text and re.fullmatch("[0-9]{1,9}", text.strip()) else -1


@dataclass(frozen=True)
class Context:
    """The inputs of a derivation."""

    settings: Settings
    host: Host
    own_addresses: Callable[[], Collection[str]]
    resolve: net.Resolve


@dataclass(frozen=True)
class Launcher:
    """One row. Of several entries for one value the first that is set counts.

    An entry is a variable's name, or a template with such names in braces, all of which must be set.
    """

    name: str
    any_of: Names = ()
    """The row matches if any of these variables is set [default: those of rank and size] ..."""
    all_of: Names = ()
    """... and all of these ..."""
    none_of: Names = ()
    """... and none of these."""
    files: Names = ()
    """The row also matches, whatever the variables, if one of these files of the launcher's is there."""
    when: Callable[[Settings], bool] | None = None
    """Instead of all these, for a row that depends on options."""
    built_on: Names = ()
    """Rows that match beside this one by design, and so are not worth a note."""

    rank: Names = ()
    size: Names = ()
    head: Names = ()
    attempt: Names = ()
    run_id: Names = ()
    """An id that no other run has."""
    run_name: Names = ()
    """An id that the next run of that name repeats; second best. A row needs one of these two, or a ``derive`` that
    gives one, or its users give ``--run-id``."""
    local_rank: Names = ()
    """Above 0 this is a second process on the node, which must not start a second Ray."""
    local_size: Names = ()
    """Above 1 the launcher has started several processes on this node, and its ranks are not the nodes'."""
    rendezvous: str = "static"
    requeues: bool = False
    """Whether it starts a run, or its pods on a lost machine, anew by itself while a head that is cut off still works.

    Kubernetes' controllers replace such pods (https://kubernetes.io/docs/concepts/workloads/controllers/job/), Slurm
    requeues a batch job whose node failed (JobRequeue in slurm.conf(5), 1 by default). ``sky jobs`` starts a task anew,
    too, but terminates its machines first; ``sky launch``, mpirun and torchrun on several machines do not.
    """
    replaced_nodes: str = "all"
    """Default of ``--replaced-nodes``; ``all`` also where that is unknown.

    srun and mpirun start each task once (srun(1), ``--no-kill``; mpirun(1)).
    """
    derive: Callable[[Facts, Context], Facts] | None = None
    """Derives the facts that are in no variable from those that are."""
    observe: Callable[[Facts, Context], Facts] | None = None
    """Does so for an observer, which is not a node: where the run's nodes are, in a job's script beside them."""

    size_hint: str = "--nodes=N, on all nodes"
    run_id_hint: str = "--run-id=TEXT, the same on all nodes of a run and on no other's"
    local_hint: str = "start one process per node"
    look: str = "look at the terminal or the log of the command on rank {ranks}"
    """What to type to see what has become of other nodes; ``{ranks}``, ``{hosts}`` (with commas between them),
    ``{each_host}`` (with spaces), ``{name}`` and variables are filled in
    (:func:`bootstrap.launchers.look.how_to_look`)."""
    name_in: tuple[str, str] | None = None
    """The variable, or "" for the pod's name, and the pattern in which the group is ``{name}``."""
    tunnel: str = ""
    """What to type elsewhere for a connection to ``{port}`` on this node's loopback address; beside the port only
    variables are filled in (:func:`bootstrap.launchers.look.how_to_reach`)."""
    why: Callable[[Host], events.Causes] | None = None
    """Finds out why nodes have not come; it may block, and raises an OSError if it cannot."""
    nodes: Names = ()
    """Variables with the nodes of the run, for ``{hosts}`` of nodes that were never seen."""
    fields: Callable[[Place], Mapping[str, str]] | None = None
    """Computes values for the text in ``environments/`` that no template can say."""

    @property
    def environment(self) -> Callable[[Place], Surroundings] | None:
        """Return what this launcher sets on a node of a rehearsal; None for options, and an attached Ray."""
        from bootstrap.launchers import environments  # noqa: PLC0415 (no other command reads those texts)

        return partial(environments.surroundings, self) if environments.has(self.name) else None

    def matches(self, settings: Settings, host: Host) -> bool:
        """Return whether this launcher's variables or file, or its options, are set."""
        if self.when is not None:
            return self.when(settings)
        return self.file(host) != "" or (
            any(map(host.get, self.signs)) and all(map(host.get, self.all_of)) and not any(map(host.get, self.none_of))
        )

    @property
    def signs(self) -> Names:
        """Return the variables of which one must be set."""
        return self.any_of or (*self.rank, *self.size)

    def file(self, host: Host) -> str:
        """Return the path of the file that this launcher has written; empty if there is none."""
        return next((path for path in self.files if host.path(path).is_file()), "")
