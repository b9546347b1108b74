"""``python -m bootstrap`` and the ``ray-bootstrap`` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Keep signals pending first of all (PID 1 would lose them), then load the rest."""
    from bootstrap.supervisor import block_signals  # noqa: PLC0415

    block_signals()
    from bootstrap.cli import main as cli  # noqa: PLC0415

    sys.exit(cli(sys.argv[1:]))


if __name__ == "__main__":
    main()
