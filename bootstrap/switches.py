"""What single commands take besides the options. Unlike those, none of it has a variable.

A field of :class:`Switches` *is* a switch or an operand: the command line, ``--help`` and the errors are derived from
the fields.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bootstrap import parsers

_PLAIN: Mapping[str, Any] = {"metavar": None, "parse": None, "many": False, "operand": False}


def _switch(name: str, commands: str, meaning: str, *, default: Any = False, **value: Any) -> Any:
    """Declare a switch of these commands; with ``metavar`` and ``parse``, one that takes a value; or ``many``."""
    metadata = {"flag": name, "commands": commands.split(), "help": meaning, **_PLAIN, **value}
    return field(default=default, metadata=metadata)


def _operand(name: str, commands: str, meaning: str) -> Any:
    """Declare the operand of these commands: a text without a flag, which they need."""
    return _switch(name, commands, meaning, default="", metavar=name, parse=parsers.text, operand=True)


_TIME = {"metavar": "TIME", "parse": parsers.duration}
_STATUS = {"metavar": "N", "parse": parsers.integer(0, 255)}
_TEXT = {"parse": parsers.text}
_MANY: Mapping[str, Any] = {"default": (), "parse": parsers.text, "many": True}


@dataclass(frozen=True, kw_only=True)
class Switches:
    """What a command was given besides the options."""

    # fmt: off
    as_json: bool = _switch("--json", "detect check status", "Print JSON")
    on_all: bool = _switch("--run", "check status", "All nodes: check them, without Ray; or show how far each one is")
    watch: bool = _switch("--watch", "status", "With --run: again and again until the run ends, redrawn in a terminal")
    timeout: float = _switch("--timeout", "wait", "How long to wait [default: 10m]", default=600.0, **_TIME)
    status: int = _switch("--status", "down", "The exit status of all nodes [default: 0]", default=0, **_STATUS)
    as_launcher: str | None = _switch("--as", "rehearse", "Give the nodes this launcher's whole environment, such as slurm or kubernetes [default: their ranks, as options]", default=None, metavar="LAUNCHER", **_TEXT)
    gpus: int | None = _switch("--gpus", "rehearse", "GPUs that each node pretends to have: Ray counts them, but there are no devices [default: none]", default=None, metavar="N", parse=parsers.integer(0))
    late: tuple[str, ...] = _switch("--late", "rehearse", "Start a node later, such as 2=5s; this and the next five may be repeated", metavar="RANK=TIME", **_MANY)
    kill: tuple[str, ...] = _switch("--kill", "rehearse", "Kill all processes of a node, such as 1@10s after the start, or 1@workload+10s", metavar="RANK@TIME", **_MANY)
    stop: tuple[str, ...] = _switch("--stop", "rehearse", "Stop a node by SIGTERM, as a preemption does", metavar="RANK@TIME", **_MANY)
    cut: tuple[str, ...] = _switch("--cut", "rehearse", "Cut a node off the network, such as 1@10s+8s for 8 seconds", metavar="RANK@TIME+TIME", **_MANY)
    slow: tuple[str, ...] = _switch("--slow", "rehearse", "Delay each packet to and from a node, such as 2=50ms", metavar="RANK=TIME", **_MANY)
    refuse: tuple[str, ...] = _switch("--refuse", "rehearse", "Reject other nodes' connections to a port, such as 2:6379", metavar="RANK:PORT", **_MANY)
    hosts_file: str | None = _switch("--hosts-file", "rehearse", "What /etc/hosts maps each node's own name to: nothing, 127.0.1.1, or its address [default: right]", default=None, metavar="none|loopback|right", parse=parsers.choice("none", "loopback", "right"))
    faults: str | None = _switch("--faults", "rehearse", "File with one fault a line, such as kill 1@10s", default=None, metavar="FILE", **_TEXT)
    detach: bool = _switch("--detach", "up", "Outlive the caller of up; on a worker, return once it has joined")
    file: str = _operand("FILE", "trace", "The trace to draw, as --trace wrote it; - for standard input")
    svg: bool = _switch("--svg", "trace", "Write an SVG picture to standard output, instead of characters")
    # fmt: on
    options: tuple[str, ...] = ()
    """The options as they were given, for the agents that `rehearse` starts."""


def operand(command: str) -> dataclasses.Field[Any] | None:
    """Return the field that is the operand of this command; None if it takes none."""
    return next((f for f in switches() if f.metadata["operand"] and command in f.metadata["commands"]), None)


def switches() -> Iterator[dataclasses.Field[Any]]:
    """Return the fields of :class:`Switches`, in the order of ``--help``."""
    return (switch for switch in dataclasses.fields(Switches) if switch.metadata)


def load(given: Mapping[str, Any], command: str) -> tuple[Switches, list[str]]:
    """Return the switches with the values that were given, by field name, and a fault for each that cannot be."""
    faults: list[str] = []
    chosen: dict[str, Any] = {}
    for switch in switches():
        name, commands, parse = (switch.metadata[key] for key in ("flag", "commands", "parse"))
        value = given.get(switch.name)
        if value in (None, False, ()):
            if switch == operand(command):
                faults.append(f"no {name}: ray-bootstrap {command} {name}")
            continue
        if command not in commands:
            faults.append(f"{name} goes with {' or '.join(commands)}: ray-bootstrap {commands[0]} {name}")
            continue
        try:
            many = switch.metadata["many"]
            chosen[switch.name] = tuple(map(parse, value)) if many else parse(value) if parse else value
        except ValueError as error:
            faults.append(f"{name}={parsers.quoted(value)}: {error}")
    return Switches(**chosen), faults
