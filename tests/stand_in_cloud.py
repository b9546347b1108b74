"""A cloud for Ray's cluster launcher: `provider: {type: external, module: stand_in_cloud.Cloud, …}` in its YAML.

Its machines are those that the YAML lists. What is known of them is in one file that the launcher and the head's
autoscaler both see; a machine that is terminated is only marked so.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray.autoscaler.node_provider import NodeProvider


class Cloud(NodeProvider):  # type: ignore[misc]  # Ray has no types
    """Hands out the ``machines`` of the provider's configuration, addresses in order; ``state`` is its file."""

    @contextlib.contextmanager
    def _nodes(self) -> Iterator[dict[str, dict[str, str]]]:
        """The tags of each machine that is on, by address; what the block changes is kept."""
        path = Path(self.provider_config["state"])
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = path.read_text() if path.exists() else "{}"
            nodes = json.loads(before)
            yield nodes
            if (after := json.dumps(nodes)) != before:
                new = path.with_suffix(".new")
                new.write_text(after)
                new.replace(path)

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        with self._nodes() as nodes:
            return [name for name, tags in nodes.items() if tag_filters.items() <= tags.items()]

    def create_node(self, _node_config: dict[str, Any], tags: dict[str, str], count: int) -> None:
        with self._nodes() as nodes:
            free = [name for name in self.provider_config["machines"] if name not in nodes]
            nodes.update({name: dict(tags) for name in free[:count]})

    def terminate_node(self, node_id: str) -> None:
        with self._nodes() as nodes:
            nodes.pop(node_id, None)

    def set_node_tags(self, node_id: str, tags: dict[str, str]) -> None:
        with self._nodes() as nodes:
            nodes[node_id].update(tags)

    def node_tags(self, node_id: str) -> dict[str, str]:
        with self._nodes() as nodes:
            return dict(nodes.get(node_id, {}))

    def is_running(self, node_id: str) -> bool:
        with self._nodes() as nodes:
            return node_id in nodes

    def is_terminated(self, node_id: str) -> bool:
        return not self.is_running(node_id)

    def external_ip(self, node_id: str) -> str:
        return node_id

    def internal_ip(self, node_id: str) -> str:
        return node_id
