"""Which run an observer means: by options, and by what a launcher sets in a shell beside the nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootstrap import launchers, rendezvous
from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.launchers.observer import attempt_of, identify_observer
from bootstrap.model import Role
from bootstrap.rendezvous import slurm
from bootstrap.settings import load

BATCH = {"SLURM_JOB_ID": "7", "SLURM_NODEID": "0", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "gpu[07-08]"}
TASK = {**BATCH, "SLURM_STEP_ID": "3", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NODELIST": "gpu08"}


def flags(**given: str) -> dict[str, list[str]]:
    return {name: [value] for name, value in given.items()}


@pytest.mark.parametrize(
    ("env", "given", "run_id", "attempt", "hosts"),
    [
        (BATCH, {"run_id": "7"}, "7", 0, ["gpu07"]),
        ({**BATCH, "SLURM_RESTART_COUNT": "2"}, {"run_id": "7"}, "7", 2, ["gpu07"]),
        ({**BATCH, "SLURM_RESTART_COUNT": "2"}, {"run_id": "7", "attempt": "0"}, "7", 0, ["gpu07"]),
        (TASK, {}, "slurm-7.3", 0, ["gpu08"]),  # its program, on whichever node
        (BATCH, {"run_id": "7", "head_address": "gpu09:6379"}, "7", 0, ["gpu09"]),
        ({}, {"run_id": "mine", "head_address": "10.0.0.1"}, "mine", 0, ["10.0.0.1"]),
        ({}, {"head_address": "10.0.0.1"}, "address-10.0.0.1", 0, ["10.0.0.1"]),
    ],
)
def test_the_run_and_where_its_head_may_be(
    env: dict[str, str], given: dict[str, str], run_id: str, attempt: int, hosts: list[str]
) -> None:
    settings, host = load(flags(**given), {}, [], []), Host(env, "login-1")
    found = identify_observer(settings, host)
    assert (found.run_id, found.attempt) == (run_id, attempt)
    assert (found.role, found.rank, found.size) == (Role.WORKER, None, None)
    lookup = rendezvous.make(settings, found, host).lookup()
    assert list(dict.fromkeys(head.host for head in lookup.candidates)) == hosts
    assert len({head.port for head in lookup.candidates}) == rendezvous.PORT_TRIES


@pytest.mark.parametrize(
    ("env", "given", "why"),
    [
        (BATCH, {}, "nothing names the run here"),  # the step's number is part of its name
        ({}, {}, "nothing names the run here"),
        ({}, {"run_id": "mine"}, "nothing says where the head of run 'mine' is"),
    ],
)
def test_what_is_missing(env: dict[str, str], given: dict[str, str], why: str) -> None:
    with pytest.raises(IdentityError, match=why) as caught:
        identify_observer(load(flags(**given), {}, [], []), Host(env, "login-1"))
    assert "--" in caught.value.hint


def test_an_attempt_that_nothing_says_may_be_any() -> None:
    settings = load(flags(run_id="mine"), {}, [], [])
    assert attempt_of(settings, Host({}, "here")) is None
    assert attempt_of(settings, Host({**BATCH, "SLURM_RESTART_COUNT": "1"}, "here")) == 1


def test_a_batch_script_is_still_no_node() -> None:
    with pytest.raises(IdentityError, match="not a task of srun"):
        launchers.identify(load(flags(run_id="7"), {}, [], []), Host(BATCH, "gpu07"))
    assert slurm.first(BATCH["SLURM_JOB_NODELIST"]) == "gpu07"


def test_the_first_host_of_a_hostfile(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("node-0\nnode-1\n")
    found = identify_observer(load(flags(run_id="mine", hostfile=str(path)), {}, [], []), Host({}, "login-1"))
    assert found.head_hints == ("node-0",)
