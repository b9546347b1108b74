"""The command line: parse arguments into settings, dispatch to a command, render errors."""

import contextlib
import dataclasses
import difflib
import importlib
import io
import itertools
import os
import shlex
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from bootstrap import __version__, settings, switches
from bootstrap.errors import INTERNAL_STATUS, BootstrapError, UsageError
from bootstrap.files import result
from bootstrap.host import Host, this_host
from bootstrap.log import Log
from bootstrap.process import signals
from bootstrap.switches import Switches

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "run": (
        "launch.foreground:run",
        "start or join the cluster, run the workload on the head, end everywhere (default)",
    ),
    "up": ("launch.background:up", "start or join the cluster and return when it stands; the agent stays until `down`"),
    "detect": ("commands.reports:detect", "print this node's role, address and resources with their sources"),
    "check": (
        "commands.reports:check",
        "run the preflight checks only; with --run on all nodes, and probe between them",
    ),
    "status": (
        "commands.reports:status",
        "print what this node's agent is doing; with --run, all nodes; exit status 0: ready",
    ),
    "wait": ("commands.whole_run:wait", "wait until the run's cluster stands, from any shell of its user"),
    "down": ("commands.whole_run:down", "end the run on all nodes, and return when it is gone"),
    "rehearse": (
        "launch.rehearse:rehearse",
        "start the whole run on this machine, each node on a host of its own, with faults",
    ),
    "exec": ("commands.within:execute", "run the command after --, or a shell, with this run's variables"),
    "env": ("commands.within:show", 'print the same variables, for eval "$(ray-bootstrap env)"'),
    "trace": ("commands.trace:show", "draw how the run that FILE records came up and ended (a file of --trace)"),
    "kuberay": ("commands.kuberay:hand_over", "in a KubeRay pod: check this node, then hand over to KubeRay"),
}
"""Name → module and function, meaning."""
_ON_ALL = {"check": "launch.foreground:check_all", "status": "commands.whole_run:status"}
"""Module and function with ``--run``."""
_EPILOG = """Run the same command on every node. The workload runs on the head; every node exits with its status.

\b
  ray-bootstrap -- python train.py                                  a laptop, a Kubernetes Job
  srun --ntasks-per-node=1 ray-bootstrap -- python train.py         Slurm
  ray-bootstrap --address 10.0.0.1:6379 --min-nodes 4 -- python ... as `ray symmetric-run`

Every option has an environment variable, such as RAY_BOOTSTRAP_NUM_CPUS for --num-cpus; the option wins. In a
variable, separate repeated values with spaces, those of --setup with line breaks. TIME is 90, 90s, 10m or 1h; SIZE is
in bytes, or 512Mi, 8Gi, 8G."""


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
        for operand in (field.metadata for field in switches.switches() if field.metadata["operand"]):
            sections["Other"].append(
                (operand["metavar"], f"{operand['help']} (with {' or '.join(operand['commands'])})")
            )
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

    def switch(field: Any) -> click.Option:
        meta = field.metadata
        again = "; may be repeated" if meta["many"] else ""
        help_text = f"{meta['help']}{again} (with {' or '.join(meta['commands'])})"
        return click.Option(
            [meta["flag"], field.name],
            metavar=meta["metavar"],
            is_flag=meta["metavar"] is None or None,  # with False, click takes the option without its value
            multiple=meta["many"],
            help=help_text,
        )

    flagged = [field for field in switches.switches() if not field.metadata["operand"]]
    version = click.Option(["--version"], is_flag=True, help="Show the version and exit.")
    return _Command(
        name=f"ray-bootstrap [{'|'.join(_COMMANDS)}]",
        params=[*map(option, settings.options()), *map(switch, flagged), version],
        help="Start Ray on the nodes that a scheduler gave you.\n\n\b\n"
        + "\n".join(f"  {name:{max(map(len, _COMMANDS))}}  {meaning}" for name, (_, meaning) in _COMMANDS.items()),
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


def _contradictions(command: str, chosen: Switches, workload: Sequence[str]) -> Iterator[str]:
    """Yield a fault for each switch or workload that does not go with another switch."""
    if command == "check" and chosen.on_all:
        for what in ["--json"] * chosen.as_json + ["a workload"] * bool(workload):
            yield f"check --run with {what}: it prints a table, and runs nothing; leave {what} out"
    if workload and command in ("status", "wait", "down", "env", "trace"):
        yield f"{command} runs nothing: omit `-- {shlex.join(workload)}`; `ray-bootstrap exec -- COMMAND` uses the run"
    if chosen.watch and (chosen.as_json or not chosen.on_all):
        yield "status --watch: it prints the table of --run; give --run, and leave --json out"


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
        parsed = _parse(command, ours)
    if parsed is None:
        return 0
    flags, chosen, found = parsed
    found += _contradictions(command, chosen, workload)
    if not sys.platform.startswith("linux"):
        raise UsageError([f"ray-bootstrap runs on Linux only; this is {sys.platform}"], hint="use a Linux container")
    asked = settings.load(flags, host.env, workload, faults + found)
    if asked.ignore_check:
        from bootstrap import preflight  # noqa: PLC0415 (rarely needed)

        if unknown := preflight.unknown_names(asked):
            raise UsageError(unknown)
    for line in settings.unknown_variables(host.env):
        Log(as_json=asked.log_format == "json").warn(line)
    module, _, name = (_ON_ALL[command] if chosen.on_all else _COMMANDS[command][0]).partition(":")
    function = getattr(importlib.import_module(f"bootstrap.{module}"), name)
    if module.startswith("launch."):
        return int(function(asked, host, chosen))
    if os.getpid() != 1:  # which would lose them; kuberay looks for them once it is done
        signals.restore(host)
    with _printed():
        return int(function(asked, host, chosen))


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
    encoding = sys.stdout.encoding
    try:
        print(text.encode(encoding, "replace").decode(encoding), end="", flush=True)
    except BrokenPipeError:
        return
    except OSError as error:
        fault = f"standard output cannot be written: {error.strerror}"
        raise UsageError([fault], hint="redirect it to a file system with free space") from None


def _parse(command: str, ours: list[str]) -> tuple[dict[str, Sequence[str]], Switches, list[str]] | None:
    """Return each option's raw values, the switches, and the usage faults; None after ``--help``."""
    options = _options()
    try:
        with options.make_context("ray-bootstrap", list(ours)) as context:
            operand, left = _left_over(context.args, options, command, ours)
            given = {**context.params, **operand}
            chosen, faults = switches.load(given, command)
            flags = {option.name: given[option.name] for option in settings.options() if given[option.name]}
            texts = [f"{settings.flag(name)}={text}" for name, given in flags.items() for text in given]
            return flags, dataclasses.replace(chosen, options=tuple(texts)), left + faults
    except click.exceptions.Exit:
        return None
    except click.UsageError as error:
        raise UsageError([error.format_message()]) from None


def _left_over(
    arguments: Sequence[str], options: click.Command, command: str, ours: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Return the command's operand, and a fault for each other argument that click did not parse.

    That is an unknown option, a workload without ``--``, or an operand too many.
    """
    wanted, operand = switches.operand(command), dict[str, str]()
    known = [name for parameter in options.params for name in parameter.opts]
    faults: list[str] = []
    after_unknown = False
    for argument in arguments:
        if argument.startswith("-") and argument != "-":
            name = argument.partition("=")[0]
            close = difflib.get_close_matches(name, known, n=1)
            faults.append(f"no such option: {name}" + (f" (did you mean {close[0]}?)" if close else ""))
            after_unknown = "=" not in argument
        elif after_unknown:
            after_unknown = False  # most likely the unknown option's value
        elif wanted is not None and not operand:
            operand[wanted.name] = argument
        else:
            faults.append(f"unexpected {argument!r}; {_instead(list(ours), ours.index(argument), command)}")
            break
    return operand, faults


def _instead(ours: list[str], at: int, command: str) -> str:
    meant = difflib.get_close_matches(ours[at], _COMMANDS, n=1, cutoff=0.75)
    if command in ("exec", "rehearse"):
        what = "command" if command == "exec" else "workload"
        return f"put the {what} after --: {shlex.join(['ray-bootstrap', command, *ours[:at], '--', *ours[at:]])}"
    if command != "run":
        operand = switches.operand(command)
        return f"{command} takes one {operand.metadata['metavar']}" if operand else f"{command} takes options only"
    if meant:
        first = "put the command first:" if meant[0] == ours[at] else "did you mean"
        return f"{first} {shlex.join(['ray-bootstrap', meant[0], *ours[:at], *ours[at + 1 :]])}"
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
    if argv and argv[0] in _COMMANDS and argv[0] not in ("run", "up"):
        return  # an existing result belongs to the run that this command inspects
    host, name = this_host(), settings.flag("result_file")
    ours = list(itertools.takewhile(lambda argument: argument != "--", argv))
    given = [after for argument, after in itertools.pairwise(ours) if argument == name]
    given += [argument.partition("=")[2] for argument in ours if argument.startswith(f"{name}=")]
    target = given[-1] if given else host.get(settings.variable("result_file"))
    if fault := result.write(target, host, result.of_error(error, host)):
        _say(f"ray-bootstrap: {fault}")
