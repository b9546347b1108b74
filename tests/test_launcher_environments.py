"""Every launcher's whole environment: each is recognised as itself, beside every other one, and by halves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from launcher_environments import RECORDED, Recorded

from bootstrap.errors import IdentityError
from bootstrap.host import Host
from bootstrap.launchers import LAUNCHERS, identify
from bootstrap.model import NodeIdentity
from bootstrap.settings import Settings

Who = Callable[[Recorded], tuple[NodeIdentity, list[str]]]

THIRD = {
    frozenset({"volcano", "torch-env"}): "pytorchjob",  # Volcano's plugin `pytorch`
    frozenset({"ray", "torch-env"}): "pytorchjob",  # PyTorch's variables in a pod, here KubeRay's
    frozenset({"jobset", "pytorchjob"}): "kubeflow-trainer",  # a JobSet with PyTorch's variables
}
"""Two rows whose variables, together, are a third launcher's."""
YIELDING = {"volcano", "pytorchjob"}
"""Rows that some later ones exclude (``none_of``)."""
LARGER = {("pytorchjob-1.9", "PET_NNODES"), ("pytorchjob-1.9", "KUBERNETES_SERVICE_HOST")}
"""What remains is WORLD_SIZE, the number of processes: such a run waits for nodes that never come, and says so."""
each = pytest.mark.parametrize("recorded", RECORDED, ids=[r.id for r in RECORDED])


@pytest.fixture(scope="module")
def who(tmp_path_factory: pytest.TempPathFactory) -> Who:
    """The identity of a node on which the recorded files and programs are; each set of them is written once."""
    roots: dict[tuple[tuple[str, str], ...], Path] = {}

    def root(files: Mapping[str, str], mode: int = 0o644) -> Path:
        key = tuple(sorted(files.items()))
        if key not in roots:
            roots[key] = tmp_path_factory.mktemp("root")
            for path, text in key:
                file = roots[key] / path.lstrip("/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
                file.chmod(mode)
        return roots[key]

    def identity(recorded: Recorded) -> tuple[NodeIdentity, list[str]]:
        printing = {name: f"#!/bin/sh\ncat <<'EOF'\n{text}\nEOF\n" for name, text in recorded.programs.items()}
        env = {"PATH": f"{root(printing, 0o755)}:/usr/bin:/bin"} if printing else {}
        host = Host({**recorded.env, **env}, recorded.hostname, root(recorded.files))

        def resolve(name: str) -> list[str]:
            if name not in recorded.names:
                raise OSError(-2, "Name or service not known")
            return list(recorded.names[name])

        settings = Settings(**recorded.options)
        return identify(settings, host, own_addresses=lambda: recorded.own_addresses, resolve=resolve)

    return identity


def halves(recorded: Recorded) -> Iterator[tuple[str, Recorded]]:
    """The environment without each of its variables, and without each file."""
    for name in recorded.env:
        yield name, replace(recorded, env={k: v for k, v in recorded.env.items() if k != name})
    for path in recorded.files:
        yield path, replace(recorded, files={k: v for k, v in recorded.files.items() if k != path})


def both(one: Recorded, other: Recorded) -> Recorded:
    """All that is set in either; of a value that both have the other's."""
    return replace(
        other,
        env={**one.env, **other.env},
        files={**one.files, **other.files},
        programs={**one.programs, **other.programs},
        own_addresses=(*one.own_addresses, *other.own_addresses),
        names={**one.names, **other.names},
        options={**one.options, **other.options},
    )


@each
def test_a_launchers_whole_environment_is_recognised_as_its_own(recorded: Recorded, who: Who) -> None:
    identity, notes = who(recorded)
    assert identity.launcher == recorded.launcher
    assert (identity.rank, identity.size) == (recorded.rank, recorded.size)
    assert identity.head_hints == ((recorded.head,) if recorded.head else ())
    assert (identity.run_id, identity.attempt) == (recorded.run_id, recorded.attempt)
    assert identity.rendezvous == recorded.rendezvous
    assert [note for note in notes if not any(part in note for part in recorded.notes)] == []
    assert [part for part in recorded.notes if not any(part in note for note in notes)] == []


def test_every_launcher_with_variables_has_been_recorded() -> None:
    missing = {row.name for row in LAUNCHERS if row.when is None} - {recorded.launcher for recorded in RECORDED}
    assert missing == set()


def test_each_recording_has_its_own_name_and_a_source() -> None:
    assert len({recorded.id for recorded in RECORDED}) == len(RECORDED)
    assert all(recorded.source for recorded in RECORDED)
    assert all(recorded.rank is None or recorded.rank > 0 for recorded in RECORDED)


@each
def test_of_two_launchers_at_once_the_first_in_the_table_counts(recorded: Recorded, who: Who) -> None:
    order = [row.name for row in LAUNCHERS]
    for other in RECORDED:
        names = {recorded.launcher, other.launcher}
        first = min(names, key=order.index)
        try:
            identity, _ = who(both(recorded, other))
        except IdentityError:
            continue
        expected = names if first in YIELDING else {first}
        assert identity.launcher in expected | {THIRD.get(frozenset(names))}, other.id


@each
def test_half_a_launcher_is_the_same_run_or_an_error(recorded: Recorded, who: Who) -> None:
    for lost, half in halves(recorded):
        try:
            identity, _ = who(half)
        except IdentityError:
            continue
        assert identity.launcher != "local", lost
        if (recorded.id, lost) in LARGER:
            assert (identity.size or 0) > (recorded.size or 0), lost
        else:
            assert (identity.rank, identity.size) == (recorded.rank, recorded.size), lost
