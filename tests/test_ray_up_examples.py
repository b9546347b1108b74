"""examples/ray-up: Ray's own checks accept each file, and its start commands are shell with options that exist.

What only a cloud's SDK can check, with its credentials, is not checked here: whether the project, the machine types and
the images exist.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from bootstrap import settings
from bootstrap.host import Host
from bootstrap.launchers import identify
from bootstrap.model import Role

REPOSITORY = Path(__file__).parent.parent
FOLDER = REPOSITORY / "examples" / "ray-up"
CLOUDS = ("aws", "gcp", "azure")
EXAMPLES = ("local", *CLOUDS)
HEAD_IP = "10.0.0.1"


def config(name: str) -> dict[str, Any]:
    """The file, as Ray's launcher prepares it: with the provider's defaults."""
    from ray.autoscaler._private.util import prepare_config

    prepared = prepare_config(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))
    assert isinstance(prepared, dict)
    return prepared


def up_line(commands: list[str]) -> list[str]:
    """The words of the one line with ``ray-bootstrap up``."""
    (line,) = re.findall(r"^ray-bootstrap up .*$", "\n".join(commands), re.MULTILINE)
    return shlex.split(line.replace("$RAY_HEAD_IP", HEAD_IP))


def loaded(words: list[str]) -> settings.Settings:
    """The settings that ``ray-bootstrap up --detach OPTIONS`` gets from these words."""
    assert words[:3] == ["ray-bootstrap", "up", "--detach"]
    given: dict[str, list[str]] = {}
    for word in words[3:]:
        flag, _, value = word.partition("=")
        given.setdefault(flag.removeprefix("--").replace("-", "_"), []).append(value)
    assert given.keys() <= {option.name for option in settings.options()}
    return settings.load(given, {})


def test_the_folder_has_these_files_and_the_page_links_them() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(EXAMPLES)
    page = (REPOSITORY / "docs" / "ray-up.md").read_text()
    assert {*re.findall(r"\]\(\.\./examples/ray-up/([a-z]+)\.yaml\)", page)} == {*EXAMPLES}


@pytest.mark.parametrize("name", EXAMPLES)
def test_rays_schema_accepts_it_with_the_providers_defaults(name: str) -> None:
    from ray.autoscaler._private.util import validate_config

    prepared = config(name)
    validate_config(prepared)
    assert prepared["provider"]["type"] == name
    kinds = prepared["available_node_types"]
    assert prepared["head_node_type"] in kinds
    least = sum(kind["min_workers"] for kind in kinds.values())
    assert 0 < least <= prepared["max_workers"]
    if name in CLOUDS:  # on machines of one's own Ray counts what it finds
        assert all(kind["resources"]["CPU"] > 0 and kind["node_config"] for kind in kinds.values())


def test_the_schema_would_refuse_a_misspelt_field() -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import validate_config

    with pytest.raises(ValidationError, match="idle_timeout"):
        validate_config({**config("aws"), "idle_timeout": 5})


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_command_is_shell_in_the_form_in_which_rays_launcher_runs_it(name: str) -> None:
    """That is ``(export RAY_HEAD_IP=…; COMMAND)``: a comment in its last line would take the bracket along."""
    from ray.autoscaler._private.util import with_envs

    prepared = config(name)
    lists = [prepared[key] for key in prepared if key.endswith("_commands")]
    commands = with_envs([command for each in lists for command in each], {"RAY_HEAD_IP": HEAD_IP})
    for command in commands:
        subprocess.run(["bash", "-n", "-c", f"source ~/.bashrc; export X=1 && ({command})"], check=True, timeout=30)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_head_starts_the_autoscaler_and_the_workers_find_it(name: str) -> None:
    prepared = config(name)
    head, worker = (loaded(up_line(prepared[f"{role}_start_ray_commands"])) for role in ("head", "worker"))
    assert head.ray_start_arg == ("--autoscaling-config=~/ray_bootstrap_config.yaml",)
    assert head.run_id == worker.run_id == prepared["cluster_name"]
    assert f"down --run-id={head.run_id} " in "\n".join(prepared["head_start_ray_commands"])
    assert not re.search("^ray-bootstrap down", "\n".join(prepared["worker_start_ray_commands"]), re.MULTILINE)
    assert [head.secret_file] == [worker.secret_file] == prepared["cluster_synced_files"]
    assert f">{head.secret_file}" in "\n".join(prepared["head_setup_commands"])
    hosts = [Host(env={}, hostname=host) for host in ("head", "worker")]
    first, other = (identify(given, host)[0] for given, host in zip((head, worker), hosts, strict=True))
    assert (first.role, first.rank, first.size) == (Role.HEAD, 0, None)
    assert (other.role, other.rank, other.size) == (Role.WORKER, None, None)  # the head numbers it
    assert first.run_hash == other.run_hash


@pytest.mark.parametrize("name", EXAMPLES)
def test_rays_launcher_does_not_warn_that_ray_is_not_started(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks for the words ``ray start`` and ``autoscaling-config`` in the head's commands."""
    from ray.autoscaler._private import commands

    warned: list[str] = []
    monkeypatch.setattr(commands.cli_logger, "warning", lambda text, *_: warned.append(text))
    commands.warn_about_bad_start_command(config(name)["head_start_ray_commands"])
    assert warned == []
    commands.warn_about_bad_start_command(["ray-bootstrap up"])
    assert len(warned) == 2
