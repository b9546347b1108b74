"""When this node is ready: Ray runs here, and the cluster stands. The state file and ``--ready-port`` say so alike."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bootstrap.log import Log
from bootstrap.model import Phase

if TYPE_CHECKING:
    from bootstrap.rollcall.listener import Listener


@dataclass
class Readiness:
    """What makes this node ready, and the port that is open as long as it is.

    A connection is all that a prober gets: it is closed without a byte, so that there is nothing to parse or to hold.
    """

    phase: Phase = Phase.PREPARING
    cluster_stands: bool = False
    """Whether the head has reached its quorum."""
    _listener: "Listener | None" = None

    def update(self, port: int | None, log: Log) -> bool:
        """Open or close ``--ready-port``, if one is given; return whether this node is ready."""
        ready = self.cluster_stands and self.phase.is_ready
        if ready and port is not None and self._listener is None:
            self._open(port, log)
        elif not ready and self._listener is not None:
            self._listener.close()
            self._listener = None
        return ready

    def _open(self, port: int, log: Log) -> None:
        from bootstrap.rollcall.listener import Listener  # noqa: PLC0415 (imported by now, but not before Ray is)

        self._listener = Listener(lambda _address: None)
        try:
            self._listener.listen(port)
        except OSError as error:
            log.warn(
                f"--ready-port={port} cannot be opened ({os.strerror(error.errno or 0)}): a readiness probe fails here;"
                f" fix: `ss -ltnp sport = :{port}` shows which process has it; another --ready-port"
            )
