"""``trace``: draw a recorded run, in characters or as an SVG picture."""

import os
import sys

from bootstrap.drawing import reading, svg, terminal
from bootstrap.host import Host
from bootstrap.settings import Settings
from bootstrap.switches import Switches


def show(_settings: Settings, host: Host, switches: Switches) -> int:
    """Print how the nodes of the run came up and ended. :raises UsageError: if the file cannot be read as our trace."""
    trace, screen = reading.read(switches.file), sys.__stdout__  # not sys.stdout, which is a buffer meanwhile
    if switches.svg:
        print(svg.draw(trace), end="")
    elif screen is None or not screen.isatty():
        print(terminal.draw(trace), end="")
    else:
        width = os.get_terminal_size(screen.fileno()).columns or terminal.WIDTH
        print(terminal.draw(trace, width, colour=host.wants_colour(screen)), end="")
    return 0
