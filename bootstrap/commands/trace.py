"""``trace``: draw a recorded run, in characters or as an SVG picture."""

import sys

from bootstrap.drawing import reading, svg, terminal
from bootstrap.host import Host
from bootstrap.settings import Settings
from bootstrap.switches import Switches


def show(_settings: Settings, host: Host, switches: Switches) -> int:
    """Print how the nodes of the run came up and ended. :raises UsageError: if the file is no trace of ours."""
    trace = reading.read(switches.file)
    print(svg.draw(trace) if switches.svg else terminal.draw(trace, terminal.paper(host, sys.__stdout__)), end="")
    return 0
