"""Ask a command of the system's for a line or two, within a limit."""

from collections.abc import Mapping, Sequence


def output(argv: Sequence[str], env: Mapping[str, str], seconds: float) -> tuple[str, str]:
    """Return what a command wrote to standard output, and what went wrong, in words.

    :param env: its whole environment; the command is looked up in the PATH there.
    :param seconds: how long it may take.
    """
    import subprocess  # noqa: PLC0415 (`detect` needs it nowhere else)

    try:
        # The agent's SIGCHLD handler may reap the process first, so the status says nothing.
        ran = subprocess.run(argv, env=env, timeout=seconds, capture_output=True, check=False)
    except subprocess.TimeoutExpired:
        return "", f"no answer within {seconds:g} s"
    except OSError as error:
        return "", str(error.strerror)
    complaints = ran.stderr.decode(errors="replace").strip().splitlines()
    return ran.stdout.decode(errors="replace"), complaints[-1][:200] if complaints else ""
