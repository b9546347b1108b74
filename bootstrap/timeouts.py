"""Every delay of the program, in seconds: what it bounds, and which option changes it, if one does.

The options' own defaults are in :mod:`bootstrap.settings`: ``--head-timeout``, ``--quorum-timeout``, ``--last-call``,
``--dashboard-wait``, ``--heartbeat-timeout`` and ``--grace``.
"""

# Getting ready

IDENTIFY_S = 60.0
"""For finding out who this node is: some launchers give a name to resolve, and C's resolver gives up before."""
PREPARE_S = 60.0
"""For inspecting this node, /etc/hosts and the checks: NVML is slow on many GPUs without the persistence daemon."""
RESOLVE_S = 2.0
"""For a name server to answer where the answer only helps."""
HOSTS_FILE_LOCK_S = 5.0
"""For another agent on this machine to finish writing /etc/hosts."""
STATE_FILE_S = 1.0
"""Between writes of the state file at most, while the roll call changes."""

# Finding the head

CANDIDATE_S = 5.0
"""For one address to show that the head of this run is there; also for the rendezvous when a head looks for another."""
OTHER_HEAD_S = 1.0
"""For another head of this run to answer a head that is starting; mostly there is none."""
LAST_LOOK_S = 1.0
"""That the last look for the head may take beyond ``--head-timeout``."""
FIRST_LOOK_AGAIN_S = 0.05
"""Between the first two looks for the head; later ones double it up to :data:`LOOK_AGAIN_S`."""
LOOK_AGAIN_S = 0.25
"""Between looks for the head at most, in runs of up to 250 nodes; larger ones look 1 000 times a second in all."""
STILL_LOOKING_S = 30.0
"""Between lines that say that a worker still looks for the head, or a head still waits for nodes."""
REPORT_UNFIT_S = 10.0
"""That an unfit node spends on telling the others why; ``--head-timeout`` shortens it."""

# Until the workload starts

ASK_GCS_AGAIN_S = 1.0
"""Between questions to GCS when no node says that it has joined."""
DASHBOARD_LOOK_AGAIN_S = 0.05
"""Between looks at the dashboard's port while ``--dashboard-wait`` lasts."""
STARTER_END_S = 2.0
"""For the process that imports Ray to end by itself when it is no longer needed."""

# Signals and losses

SAME_SIGNAL_S = 0.5
"""Within which the same signal twice counts once: Slurm without cgroups, and systemd, signal every process."""
DAEMON_OR_SIGNAL_S = 0.1
"""Between the end of a Ray daemon and taking it for the reason: a signal to all processes may be on its way to us."""
STOPPED_FIRST_S = 5.0
"""Between a worker that is stopped and a head that is stopped too, such as by scancel; then the worker is no loss."""
DRAIN_RESERVE_S = 1.0
"""Of ``--grace`` that is kept back from Ray's drain, to tell the head and to end all processes."""
DRAIN_START_S = 2.0
"""That starting a drain takes at least (it imports Ray); a ``--grace`` without room for it ends the node undrained."""

# The end

RAY_GRACE_S = 0.3
"""Between SIGTERM and SIGKILL for Ray's processes. A raylet that is asked to end drains for 3 s and more (docs/ray.md),
of use to nobody once the workload has ended; this is for the exit handlers of Ray's Python workers."""
KILL_S = 5.0
"""For processes to end after SIGKILL; what is left then is another user's, or stuck in the kernel (state D)."""
PROCESS_TABLE_LOOK_AGAIN_S = 0.05
"""Between looks at the process table while processes end: a grandchild's end sends us no signal."""
VERDICT_S = 1.0
"""For the workers to acknowledge the verdict."""
VERDICT_LATE_S = 10.0
"""That a head which cannot lead waits for workers to come and be told why; else they would look for it in vain."""
LEAVE_S = 0.5
"""For the head to acknowledge that a worker leaves."""
ABANDONED_CALLS_S = 2.0
"""For calls that timed out, and may be writing what is to be removed, before the clean-up."""
SHARED_FOLDER_S = 5.0
"""For removing files from a shared folder, and for writing the result: a network file system may hang for ever."""
REMOVE_SESSION_S = 60.0
"""For removing Ray's session."""
COPY_LOGS_S = 60.0
"""For copying Ray's logs to ``--log-dir``."""
FORCED_S = 1.0
"""For either of the two after a second signal."""
DEAD_AGENT_S = 10.0
"""For the supervisor to clean up behind a killed agent."""
LOG_FLUSH_S = 1.0
"""For a reader of standard error that stalls to take our last lines."""
