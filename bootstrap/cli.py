"""The command line: parse arguments into settings, dispatch to a command, render errors."""

import contextlib
import difflib
import importlib
import io
import itertools
import os
import resource
import shlex
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import click

from bootstrap import __version__, cgroup, settings, timeouts
from bootstrap.errors import INTERNAL_STATUS, BootstrapError, PreflightFailed, UsageError, without_tracebacks
from bootstrap.files import result, runtime_dir
from bootstrap.files.manifest import Manifest
from bootstrap.files.result import Result
from bootstrap.host import Host, this_host
from bootstrap.log import Log
from bootstrap.process import signals
from bootstrap.process.bounded import TimedOut, run_bounded
from bootstrap.process.supervisor import supervise
from bootstrap.process.table import Process
from bootstrap.settings import Settings

_COMMANDS: Mapping[str, tuple[str, str, str]] = {
    "run": ("", "", "start or join the cluster, run the workload on the head, stop everywhere (the default)"),
    "detect": ("reports", "detect", "print this node's role, address and resources with their sources; change nothing"),
    "check": ("reports", "check", "run the preflight checks only; with --run on all nodes, and probes between them"),
    "status": ("reports", "status", "print what this node's agent is doing; exit with status 0 if it is ready"),
    "exec": ("within", "execute", "run the command after --, or a shell, with the variables of this user's run here"),
    "kuberay": ("kuberay", "hand_over", "in a KubeRay pod: check this node, then hand over to KubeRay"),
}
"""Name → module in :mod:`bootstrap.commands`, function, meaning."""
_EPILOG = """Run the same command on every node. The workload runs on the head; every node exits with its status.

\b
  ray-bootstrap -- python train.py                                  a laptop, a Kubernetes Job
  srun --ntasks-per-node=1 ray-bootstrap -- python train.py         Slurm
  ray-bootstrap --address 10.0.0.1:6379 --min-nodes 4 -- python ... as `ray symmetric-run`

Every option has an environment variable, such as RAY_BOOTSTRAP_NUM_CPUS for --num-cpus; the option wins. In a
variable, separate repeated values with spaces. TIME is 90, 90s, 10m or 1h; SIZE is in bytes, or 512Mi, 8Gi, 8G."""

_SWITCHES = ("as_json", "on_all", "version")
_LEAST_ADDRESSES = 256 << 20
"""Bytes; with 40-70 or 190-200 MB a thread dies before its first line, and what waits for it hangs. The preflight has
the limit for Ray."""


class _Command(click.Command):
    """A click command that lists its options under the headings of the settings table."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section per option group, then the remaining options."""
        groups = {option.name: option.metadata["group"] for option in settings.options()}
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            entry = parameter.get_help_record(ctx)
            if entry is not None:
                sections.setdefault(groups.get(parameter.name or "", "Other"), []).append(entry)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _options() -> _Command:
    def option(field: Any) -> click.Option:
        names = [settings.flag(field.name)] + (["--address"] if field.name == "head_address" else [])
        meta = field.metadata
        chosen = f" [default: {field.default}]" if "|" in meta["metavar"] and field.default else ""
        return click.Option(
            [*names, field.name], metavar=meta["metavar"], help=meta["help"] + chosen, multiple=True, type=str
        )

    as_json = click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, where a command prints a report")
    on_all = click.Option(["--run", "on_all"], is_flag=True, help="With check: check all nodes of a run, without Ray")
    version = click.Option(["--version"], is_flag=True, help="Show the version and exit.")
    return _Command(
        name=f"ray-bootstrap [{'|'.join(_COMMANDS)}]",
        params=[*(option(field) for field in settings.options()), as_json, on_all, version],
        help="Start Ray on the nodes that a scheduler gave you.\n\n\b\n"
        + "\n".join(f"  {name:{max(map(len, _COMMANDS))}}  {meaning}" for name, (_, _, meaning) in _COMMANDS.items()),
        epilog=_EPILOG,
        options_metavar="[COMMAND] [OPTIONS] [-- WORKLOAD ARGS...]",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "max_content_width": 120},
    )


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status; report every error on standard error."""
    try:
        return _main(list(argv))
    except BootstrapError as error:
        _render(error)
        _write_refusal(error, argv)
        return error.status
    except Exception:  # noqa: BLE001 (last resort: a bug in ray-bootstrap)
        _say(traceback.format_exc().rstrip())
        _say(f"ray-bootstrap: exit status {INTERNAL_STATUS} (from ray-bootstrap: internal); fix: please report this")
        return INTERNAL_STATUS


def _misplaced(command: str, switches: Collection[str], workload: Sequence[str]) -> Iterator[str]:
    """Yield a fault for each use of ``--run`` that cannot work."""
    if "on_all" not in switches:
        return
    if command != "check":
        yield "--run goes with check: ray-bootstrap check --run"
    for what, is_given in (("--json", "as_json" in switches), ("a workload", bool(workload))):
        if command == "check" and is_given:
            yield f"check --run with {what}: it prints a table, and runs nothing; leave {what} out"


def _split(argv: list[str], host: Host) -> tuple[str, list[str], list[str], list[str]]:
    """Return the command, its arguments, the workload, and what is wrong with these two."""
    command = argv.pop(0) if argv and argv[0] in _COMMANDS else "run"
    if argv[-1:] == ["train"] and "--" not in argv and host.get("TRAINING_JOB_NAME"):
        argv.insert(-1, "--")  # SageMaker appends the name of the program in the image
    if "--" not in argv:
        return command, argv, [], []
    ours, workload = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    what, omitted = ("command", "a shell") if command == "exec" else ("workload", "a cluster that stays up")
    return command, ours, workload, [] if workload else [f"no {what} after --; omit -- for {omitted}"]


def _main(argv: list[str]) -> int:
    host = this_host()
    command, ours, workload, faults = _split(argv, host)
    if "--version" in ours:
        with _printed():
            print(f"ray-bootstrap {__version__}")
        return 0
    if ours[:1] == ["-h"]:  # not left to click, which would parse `-head-address` as a cluster of short options
        ours = ["--help"]
    with _printed():
        flags, switches, found = _parse(command, ours)
    found += _misplaced(command, switches, workload)
    if flags is None:
        return 0
    if not sys.platform.startswith("linux"):
        raise UsageError([f"ray-bootstrap runs on Linux only; this is {sys.platform}"], hint="use a Linux container")
    asked = settings.load(flags, host.env, workload, faults + found)
    if asked.ignore_check:
        from bootstrap import preflight  # noqa: PLC0415 (rarely needed)

        if unknown := preflight.unknown_names(asked):
            raise UsageError(unknown)
    for line in settings.unknown_variables(host.env):
        Log(as_json=asked.log_format == "json").warn(line)
    if command == "run" or "on_all" in switches:
        return _run(asked, host, check_only=command == "check")
    if os.getpid() != 1:  # which would lose them; kuberay looks for them once it is done
        signals.restore(host)
    module, function, _ = _COMMANDS[command]
    report = getattr(importlib.import_module(f"bootstrap.commands.{module}"), function)
    with _printed():
        return int(report(asked, host, "as_json" in switches))


@contextlib.contextmanager
def _printed() -> Iterator[None]:
    """Buffer standard output and print it at the end, so that a closed pipe (``| head -1``) leaves the status alone."""
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            yield
    finally:
        if text.getvalue():  # on a full disk even a flush of nothing fails
            _print(text.getvalue())


def _print(text: str) -> None:
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        return
    except OSError as error:
        fault = f"standard output cannot be written: {error.strerror}"
        raise UsageError([fault], hint="redirect it to a file system with free space") from None


def _run(asked: Settings, host: Host, *, check_only: bool) -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESSES:
        what = f"the address space of a process is limited to {limit >> 20} MiB (ulimit -v): too little for this agent"
        raise PreflightFailed(what, hint="`ulimit -v unlimited` before this command")
    runtime, oom_count = runtime_dir.make(), cgroup.OomCount(host, cgroup.oom_kills(host))

    def agent(above: Sequence[int]) -> int:
        try:
            from bootstrap.run.agent import run_agent  # noqa: PLC0415 (in the child only, to keep the supervisor small)

            return run_agent(asked, host, runtime, above, oom_count, check_only)
        except Exception:  # noqa: BLE001 (as in main; this is another process)
            bug = traceback.format_exc().rstrip()
            _say(bug)
            reason = f"internal error: {without_tracebacks(bug)}"
            ended = Result(INTERNAL_STATUS, "internal", reason, "please report this", False, host.hostname)
            _write(asked.result_file, ended)
            return INTERNAL_STATUS

    def on_killed(status: int, reason: str, running: Sequence[Process]) -> tuple[str, Iterable[Callable[[], object]]]:
        from bootstrap import cleanup  # noqa: PLC0415 (only here, to keep the supervisor small)
        from bootstrap.raynode.session import observe  # noqa: PLC0415

        held = observe(running)
        oom = oom_count.since()
        reason, hint = (f"{reason}; {oom}", cgroup.FIX_OOM) if oom else (reason, "")
        ended = Result(status, "killed", reason, hint, True, host.hostname)
        manifest = Manifest.load(runtime.path / runtime_dir.MANIFEST)
        tasks = [lambda: _write(asked.result_file, ended), lambda: cleanup.remove(runtime.path, manifest, held)]
        return reason, tasks

    with contextlib.suppress(TimedOut):
        run_bounded(timeouts.SHARED_FOLDER_S, lambda: result.clear(asked.result_file, host))
    return supervise(agent, on_killed)


def _parse(command: str, ours: list[str]) -> tuple[dict[str, Sequence[str]] | None, Set[str], list[str]]:
    """Return each option's raw values (None after ``--help``), the names of the switches, and the usage faults."""
    options = _options()
    try:
        with options.make_context("ray-bootstrap", list(ours)) as context:
            params = context.params
            return (
                {name: value for name, value in params.items() if name not in _SWITCHES and value},
                {name for name in _SWITCHES if params[name]},
                _left_over(context.args, options, command, ours),
            )
    except click.exceptions.Exit:
        return None, set(), []
    except click.UsageError as error:
        raise UsageError([error.format_message()]) from None


def _left_over(arguments: Sequence[str], options: click.Command, command: str, ours: Sequence[str]) -> list[str]:
    """Return a fault for each argument click did not parse: an unknown option, or a workload without ``--``."""
    known = [name for parameter in options.params for name in parameter.opts]
    faults: list[str] = []
    after_unknown = False
    for argument in arguments:
        if argument.startswith("-"):
            name = argument.partition("=")[0]
            close = difflib.get_close_matches(name, known, n=1)
            faults.append(f"no such option: {name}" + (f" (did you mean {close[0]}?)" if close else ""))
            after_unknown = "=" not in argument
        elif after_unknown:
            after_unknown = False  # most likely the unknown option's value
        else:
            faults.append(f"unexpected {argument!r}; {_instead(list(ours), ours.index(argument), command)}")
            break
    return faults


def _instead(ours: list[str], at: int, command: str) -> str:
    meant = difflib.get_close_matches(ours[at], _COMMANDS, n=1, cutoff=0.75)
    if command == "exec":
        return f"put the command after --: {shlex.join(['ray-bootstrap', command, *ours[:at], '--', *ours[at:]])}"
    if command != "run":
        return f"{command} takes options only"
    if meant:
        return f"put the command first: {shlex.join(['ray-bootstrap', meant[0], *ours[:at], *ours[at + 1 :]])}"
    return f"put the workload after --: {shlex.join(['ray-bootstrap', *ours[:at], '--', *ours[at:]])}"


def _say(line: str) -> None:
    """Print ``line`` on standard error; ignore a closed pipe."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _render(error: BootstrapError) -> None:
    fix = [f"fix: {error.hint}"] if error.hint else []
    for line in (*error.message.splitlines(), *fix, f"exit status {error.status} (from ray-bootstrap: {error.name})"):
        _say(f"ray-bootstrap: {line}")


def _write_refusal(error: BootstrapError, argv: Sequence[str]) -> None:
    """Write the result of a run that was refused before its settings were known."""
    if argv and argv[0] in _COMMANDS and argv[0] != "run":
        return  # an existing result belongs to the run that this command inspects
    host, name = this_host(), settings.flag("result_file")
    ours = list(itertools.takewhile(lambda argument: argument != "--", argv))
    given = [after for argument, after in itertools.pairwise(ours) if argument == name]
    given += [argument.partition("=")[2] for argument in ours if argument.startswith(f"{name}=")]
    _write(given[-1] if given else host.get(settings.variable("result_file")), result.of_error(error, host))


def _write(result_file: str | None, outcome: Result) -> None:
    if fault := result.write(result_file, this_host(), outcome):
        _say(f"ray-bootstrap: {fault}")
