"""Every fixed delay of the program, in seconds: what it bounds, and the option that changes it, if any.

The defaults of options are in :mod:`bootstrap.settings`: ``--head-timeout``, ``--quorum-timeout``, ``--last-call``,
``--dashboard-wait``, ``--heartbeat-timeout`` and ``--grace``; but :data:`ISOLATION_S` depends on the launcher.
"""

# Preparing the node

SURVIVORS_S = 10.0
"""Limit for ending what outlived earlier runs of this user on this node."""
IDENTIFY_S = 60.0
"""Limit for identifying this node: some launchers give a name to resolve, and libc's resolver gives up earlier."""
PREPARE_S = 60.0
"""Limit for the inspection, /etc/hosts and the checks: NVML is slow with many GPUs and no persistence daemon."""
SCONTROL_S = 3.0
"""Limit for slurmctld to say how much memory this node gives; it answers within some 10 ms."""
FLUX_S = 5.0
"""Limit for Flux' broker on this node to say which nodes the job has."""
RESOLVE_S = 2.0
"""Limit for a name server to answer, where the answer is optional."""
HOSTS_FILE_LOCK_S = 5.0
"""Limit for another agent on this machine to finish writing /etc/hosts."""
STATE_FILE_S = 1.0
"""Maximum delay of a write to the state file while nodes join and leave."""

# Finding the head, or a Ray that already runs

CANDIDATE_S = 5.0
"""Limit for one address to prove to be this run's head; also for the rendezvous when a head looks for another head."""
ASK_RAY_AGAIN_S = 1.0
"""Delay between looks for a Ray that already runs."""
OTHER_HEAD_S = 1.0
"""Limit for another head of this run to answer a head that starts; usually none exists."""
LAST_LOOK_S = 1.0
"""Time by which the last look for the head may exceed ``--head-timeout``."""
FIRST_LOOK_AGAIN_S = 0.05
"""Delay between the first two looks for the head; it doubles up to :data:`LOOK_AGAIN_S`."""
LOOK_AGAIN_S = 0.25
"""Maximum delay between looks for the head in runs of up to 250 nodes; larger runs look 1 000 times a second in all."""
PUBLISHED_S = 3.0
"""Time for a headless Service to publish all pods of a run before a worker asks for the head's name anyway: a resolver
may repeat for 30 s that the name does not exist. Kubernetes publishes a pod 1 to 2 s after its start."""
OTHER_FOLDERS_S = 10.0
"""Delay between looks for the head's record in other folders than the usual one, to which a neighbour may force it."""
STILL_LOOKING_S = 30.0
"""Delay between log lines while a worker looks for the head, or a head waits for nodes."""
MUNGE_S = 3.0
"""Limit for munged to make or read a credential, which takes it less than a millisecond."""
RECORD_LATE_S = 5.0
"""Time for the head's record to appear on this node after the head has answered, before its absence counts."""
NODE_NAMES_S = 5.0
"""Limit for resolving the names that the launcher gives the missing nodes, and delay before the next attempt."""
FIRST_REPORT_S = 10.0
"""Time from the start of a search to its first line on what there is instead of the head."""
SURVEY_S = 3.0
"""Limit for looking around in the shared folder for that line."""
OTHER_ADDRESS_S = 1.0
"""Time for the head to answer at its node address before a worker tries the head's other addresses."""
END_BELIEVED_S = 1.0
"""Time for a worker to look for a live head before it believes the record of the run's end."""
END_KEPT_S = 3600.0
"""Time after which workers ignore the record of a run's end, and the user's next head in that folder removes it; the
same for the result in a runtime directory without logs."""
RECORD_REFRESH_S = 900.0
"""Delay between renewals of the time of the head's record, by which other runs of its user see that the head lives."""
RECORD_KEPT_S = 7 * 86400.0
"""Age of a head's record at which the user's next head in that folder removes it: its agents were killed. Long, as the
agents of a run that is suspended over a weekend renew nothing."""
REPORT_UNFIT_S = 10.0
"""Limit for an unfit node to report why to the others; a lower ``--head-timeout`` shortens it."""
CERTIFICATE_S = 30.0
"""Limit for making a key, which takes 0.1 s with the import of the library for it."""

# Probes between the nodes

PROBE_S = 5.0
"""Limit for a probe to connect and be answered, and again for its packet test: TCP repeats a lost SYN after 1 and
3 s."""
PROBE_LATE_S = 0.5
"""How late the end of a probe may come in a process that was not suspended meanwhile."""
PROBE_COLLECT_S = 1.0
"""Delay between a failed probe and the lines about it: one broken node makes many fail."""
PROBES_LAST_S = 30.0
"""Limit for the last results to come in once the workload has started, and in a check of all nodes."""

# Before the workload starts

ASK_GCS_AGAIN_S = 1.0
"""Delay between queries to GCS while no node reports that it has joined."""
RAY_DIR_S = 10.0
"""Limit for making Ray's folder."""
START_LOOK_AGAIN_S = 0.5
"""Delay between looks for a GCS or raylet that ends while `ray start` runs, which itself takes up to 40 s to notice."""
READ_LOGS_S = 2.0
"""Limit for reading the cause of a failure in Ray's logs."""
QUIET_START_S = 3.0
"""Time for `ray start` before what it prints and logs is read for why it takes so long."""
SLOW_START_S = 8.0
"""Time for `ray start`, for a command of ``--setup`` and for the import of Ray, before a node reports how far it is; of
an import, which takes long from a cold image, each further report comes after twice the time."""
SHELL_S = 5.0
"""Limit for the shell to read a command of ``--setup`` in the preflight."""
READ_LOGS_AGAIN_S = 1.0
"""Delay between looks at what a slow `ray start` has printed and logged."""
START_REPORT_S = 3.0
"""Time by which a worker's limit of `ray start` ends before the head's wait for the quorum, so that the head hears why;
a fifth of what is left, if that is less. With less than this left, the head gives up first."""
REPORTS_TOGETHER_S = 1.0
"""Delay before the head logs what a node reports: nodes with the same report share one line."""
UNSEEN_S = 60.0
"""Time after which the head says how to look at the nodes that have not come, and where it listens if none has."""
LATE_RANK_S = 15.0
"""Time in one phase after which the head shows what a node that it waits for has found wrong with itself. Also before
it asks the launcher why nodes were never seen; it does so again every :data:`STILL_LOOKING_S`."""
EVENTS_S = 5.0
"""Limit for Kubernetes' API server to list its events."""
DASHBOARD_LOOK_AGAIN_S = 0.05
"""Delay between questions to the dashboard during ``--dashboard-wait``."""
DASHBOARD_ANSWER_S = 5.0
"""Limit for it to answer one of them."""
DASHBOARD_S = 60.0
"""``--dashboard-wait`` of a workload that needs the dashboard, and without a workload."""
READ_WORKLOAD_S = 2.0
"""Limit for reading the scripts that the workload names."""
STARTER_END_S = 2.0
"""Limit for the starter to end by itself before it is killed."""

# Signals and losses

ISOLATION_S = 60.0
"""Default of ``--isolation-timeout`` where the launcher starts a lost run anew. By default that comes later: Slurm and
Kubernetes give a node that does not answer 300 s (SlurmdTimeout; tolerationSeconds)."""
SAME_SIGNAL_S = 0.5
"""The same signal twice within this time counts once: scancel signals the task and srun, which forwards it."""
CTRL_C_AGAIN_S = 0.1
"""The same for SIGINT, which a person may type twice; timeout(1) sends it twice at once."""
DAEMON_OR_SIGNAL_S = 0.1
"""Delay before the end of a Ray daemon stops the run: a signal to all processes may be about to reach the agent."""
STOPPED_FIRST_S = 5.0
"""Delay before the loss of a stopped worker stops the run: the head may be about to be stopped, too (scancel). Also
for a worker to come again whose welcome came too late for it."""
STOPPED_ANSWER_S = 1.0
"""Limit for the head to say whether it is stopping, too, before a stopped worker drains."""
STOPPED_TOO_S = 0.7
"""Delay before the head lets a stopped worker drain, as its own signal may be on the way: the rest of
:data:`STOPPED_ANSWER_S` is for the network and a busy machine."""
DRAIN_RESERVE_S = 1.0
"""Part of ``--grace`` that Ray's drain may not use, to send bye to the head and to end all processes."""
DRAIN_START_S = 2.0
"""Minimum time to start a drain, which imports Ray; with a ``--grace`` too short for it, and for the head's answer, the
node is not drained."""

HOLDER_PING_S = 0.1
"""Delay before the holder of a rank that a second node claims is pinged: what it sent before it died arrives earlier.
Also between looks for its answer."""

WATCH_S = 1.0
"""Delay between two looks of ``status --run --watch``."""
FOLLOW_LOG_S = 0.2
"""Delay between two looks of ``up --detach`` at its agent's log."""
UP_LOOK_AGAIN_S = 60.0
"""Delay between two looks of ``up`` at its agent where a parent has had it ignore SIGIO, which says when to look."""
ROWS_PAUSE_S = 0.02
"""Pause of the head after up to 64 KiB of rows for an observer, which take it up to 10 ms."""

# Shutdown

RAY_GRACE_S = 0.3
"""Delay between SIGTERM and SIGKILL for Ray's processes, for the exit handlers of Ray's Python workers. A raylet drains
for 3 s or more after SIGTERM (docs/ray.md), which is useless once the workload has ended."""
KILL_S = 5.0
"""Limit for processes to end after SIGKILL; one that remains is another user's, or stuck in the kernel (state D)."""
PROCESS_TABLE_LOOK_AGAIN_S = 0.05
"""Delay between looks at the process table while processes end: a grandchild's end sends the agent no signal."""
VERDICT_S = 1.0
"""Limit for the workers to acknowledge the verdict."""
DOWN_S = 90.0
"""Limit for all nodes to clean up while an observer that has ended the run waits for that."""
TRACE_S = 10.0
"""The same with ``--trace``, whose file then has the end of each node."""
LEAVE_S = 0.5
"""Limit for the head to acknowledge that a worker leaves."""
ABANDONED_CALLS_S = 2.0
"""Limit for calls that timed out to end before the clean-up, since they may still write what it removes."""
SHARED_FOLDER_S = 5.0
"""Limit for removing files from a shared folder, and for writing the result: a network file system may hang."""
REMOVE_SESSION_S = 60.0
"""Limit for removing Ray's session."""
COPY_LOGS_S = 60.0
"""Limit for copying Ray's logs to ``--log-dir``."""
FORCED_S = 1.0
"""Limit for removing the files, and for copying the logs, after a second signal."""
DEAD_AGENT_S = 10.0
"""Limit for the supervisor to clean up after a killed agent."""
LOG_FLUSH_S = 1.0
"""Limit for a stalled reader of standard error to take the agent's last lines."""
