"""Write the schemas beside this file anew, from the projects' own files: ``python tests/crds/vendor.py [FOLDER]``.

Each file comes from the address in ``SOURCES``, or from ``FOLDER/<repository>/<path>``, and must have the SHA-256 that
stands there. What is kept is group, kind, and the schema of the version that our manifests use, without the
descriptions, which are nine tenths of the originals. A new version of a project: another tag, and the sum that
``sha256sum`` prints of its file.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Source:
    """A CustomResourceDefinition in a public repository, under the Apache License 2.0."""

    repository: str
    tag: str
    path: str
    sha256: str
    version: str
    """Of the API: the one that our manifests name."""

    @property
    def url(self) -> str:
        return f"https://raw.githubusercontent.com/{self.repository}/{self.tag}/{self.path}"

    @property
    def file(self) -> Path:
        return HERE / Path(self.path).with_suffix(".json.gz").name


SOURCES = (
    Source(
        "kubernetes-sigs/jobset",
        "v0.12.0",
        "config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml",
        "d022b87624512cf0b6741b31b24a2bea9945b5a838b50713af29332c878bb6fe",
        "v1alpha2",
    ),
    Source(
        "kubernetes-sigs/lws",
        "v0.10.0",
        "config/crd/bases/leaderworkerset.x-k8s.io_leaderworkersets.yaml",
        "c5dcad8ed943e495490241f00b9a1b45d51203b6d484020db3636d5bf553568e",
        "v1",
    ),
    Source(
        "ray-project/kuberay",
        "v1.7.0",
        "ray-operator/config/crd/bases/ray.io_rayclusters.yaml",
        "c44704442eef0c6721ad40c1d66782c8bd3fdab9d3344306a5820910a679baa1",
        "v1",
    ),
    Source(
        "ray-project/kuberay",
        "v1.7.0",
        "ray-operator/config/crd/bases/ray.io_rayjobs.yaml",
        "01a5cf3b17c1769fda44af7e82debcd98722f0c27b9ab84d084681c6649121f5",
        "v1",
    ),
    Source(
        "ray-project/kuberay",
        "v1.7.0",
        "ray-operator/config/crd/bases/ray.io_rayservices.yaml",
        "0a8fc325e6e22b9231c1f282b309555e2ecf94227ca20a03df3d1d9a403907ab",
        "v1",
    ),
    Source(
        "volcano-sh/volcano",
        "v1.15.1",
        "config/crd/volcano/bases/batch.volcano.sh_jobs.yaml",
        "a03feedc265bc8c9d71240063a37e0e818fa70fcad7b8a113b0875dc53fffa90",
        "v1alpha1",
    ),
)


def stripped(node: Any, *, names: bool = False) -> Any:
    """Return a schema without its descriptions. ``names``: whether the keys of ``node`` are fields of the object."""
    if isinstance(node, list):
        return [stripped(each) for each in node]
    if not isinstance(node, dict):
        return node
    kept = {key: value for key, value in node.items() if names or key != "description"}
    return {key: stripped(value, names=not names and key == "properties") for key, value in kept.items()}


def vendor(source: Source, text: bytes) -> None:
    """Write the file of ``source``, the same bytes each time. :raises ValueError: if ``text`` is not what it names."""
    found = hashlib.sha256(text).hexdigest()
    if found != source.sha256:
        raise ValueError(f"{source.url}: SHA-256 {found}, expected {source.sha256}")
    crd = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = (each for each in crd["spec"]["versions"] if each["name"] == source.version)
    kept = {
        "group": crd["spec"]["group"],
        "kind": crd["spec"]["names"]["kind"],
        "version": version["name"],
        "schema": stripped(version["schema"]["openAPIV3Schema"]),
    }
    content = json.dumps(kept, separators=(",", ":"), sort_keys=True).encode()
    source.file.write_bytes(gzip.compress(content, 9, mtime=0))


def main(folder: str | None = None) -> None:
    for source in SOURCES:
        if folder is None:
            with urllib.request.urlopen(source.url, timeout=60) as reply:
                text = reply.read()
        else:
            text = (Path(folder) / source.repository / source.path).read_bytes()
        vendor(source, text)


if __name__ == "__main__":
    main(*sys.argv[1:])
