"""``python -m bootstrap`` and the ``ray-bootstrap`` command."""

import os
import sys


def main() -> None:
    """Block signals before anything else, since PID 1 loses them until then, load the rest, run the command line."""
    from bootstrap.process import signals  # noqa: PLC0415

    signals.block()
    from bootstrap.process.supervisor import flush, open_std_fds  # noqa: PLC0415

    open_std_fds()
    from bootstrap.cli import main as cli  # noqa: PLC0415

    status = cli(sys.argv[1:])
    flush()
    os._exit(status)  # the interpreter would flush again and exit with 120 on a closed pipe


if __name__ == "__main__":
    main()
