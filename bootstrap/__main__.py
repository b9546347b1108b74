"""``python -m bootstrap`` and the ``ray-bootstrap`` command."""

import os
import sys


def main() -> None:
    """Keep signals pending first of all (PID 1 would lose them), then load the rest."""
    from bootstrap.process.supervisor import block_signals, flush, open_std_fds  # noqa: PLC0415

    block_signals()
    open_std_fds()
    from bootstrap.cli import main as cli  # noqa: PLC0415

    status = cli(sys.argv[1:])
    flush()
    os._exit(status)  # the interpreter would flush again, and make 120 of a reader that has gone


if __name__ == "__main__":
    main()
