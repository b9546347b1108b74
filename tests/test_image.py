"""docker/Dockerfile is built for real, and its image forms a cluster as the pods of k8s/base do."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import controllers
import kubelet
import pytest
from entrypoint import ENTRYPOINT

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.requires("buildah", "kubectl", "nft"),
]
REPOSITORY = Path(__file__).parent.parent
RAY = metadata.version("ray")
PYTHON = f"py{sys.version_info.major}{sys.version_info.minor}"
CONTEXT = ("LICENSE", "README.md", "bootstrap", "docker", "examples", "pyproject.toml")


@dataclass(frozen=True)
class Store:
    """buildah with a store of its own, without a registry, and with pip's packages in a folder."""

    folder: Path

    def buildah(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        root = ["--root", str(self.folder / "root"), "--runroot", str(self.folder / "run"), "--storage-driver", "vfs"]
        argv = ["buildah", *root, *words]
        result = subprocess.run(argv, capture_output=True, text=True, timeout=400, check=False)
        if check and result.returncode:
            raise RuntimeError(f"{' '.join(argv)} ended with {result.returncode}:\n{result.stdout}{result.stderr}")
        return result

    def build(self, context: Path, tag: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The image as the Dockerfile says, on the base that stands in for Ray's."""
        arguments = {"BASE": "localhost/ray", "RAY_VERSION": RAY, "PYTHON": PYTHON, "REVISION": "abc123"}
        argv = ["build", "--isolation", "chroot", "--format", "docker", "--pull-never", "--tag", tag]
        argv += [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        argv += ["--volume", f"{self.folder / 'packages'}:/packages:ro"]
        argv += ["--volume", f"{self.folder / 'pip.conf'}:/etc/pip.conf:ro"]
        return self.buildah(*argv, "--file", str(context / "docker/Dockerfile"), str(context), check=check)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The base image is made of this machine; the packages, pinned by their hashes, come by this machine's own pip."""
    made = Store(tmp_path_factory.mktemp("images"))
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    for file in ("requirements.txt", "requirements-build.txt"):
        argv = [*pip, "--dest", str(made.folder / "packages"), "--requirement", str(REPOSITORY / "docker" / file)]
        subprocess.run(argv, check=True, timeout=300)
    (made.folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /packages\n")
    try:
        base = made.buildah("from", "scratch").stdout.strip()
        root = made.buildah("mount", base).stdout.strip()
        script = Path(__file__).with_name("image_base.py")
        subprocess.run([sys.executable, str(script), root], check=True, timeout=300)
        path = "PATH=/opt/python/bin:/usr/bin"
        made.buildah("config", "--env", path, "--env", "HOME=/home/ray", "--user", "ray", base)
        made.buildah("commit", "--quiet", "--rm", base, f"localhost/ray:{RAY}-{PYTHON}-cpu")
        yield made
    finally:
        made.buildah("umount", "--all", check=False)
        shutil.rmtree(made.folder / "root", ignore_errors=True)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A copy of what the Dockerfile takes."""
    (tmp_path / "context").mkdir()
    for name in CONTEXT:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / "context" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, tmp_path / "context" / name)
    return tmp_path / "context"


def config(store: Store, tag: str) -> Mapping[str, Any]:
    said = json.loads(store.buildah("inspect", "--type", "image", tag).stdout)
    return dict(said["Docker"]["config"])


def test_the_image_forms_a_cluster_as_the_pods_of_the_base(store: Store, context: Path, make_hosts: Callable[..., Any]):
    store.build(context, "ray-bootstrap")
    made = config(store, "ray-bootstrap")
    assert made["Entrypoint"] == ENTRYPOINT
    assert made["User"] == "1000:100"
    assert made["Healthcheck"]["Test"] == ["CMD", "ray-bootstrap", "status"]
    assert made["Labels"]["org.opencontainers.image.base.name"] == f"localhost/ray:{RAY}-{PYTHON}-cpu"
    assert made["Labels"]["org.opencontainers.image.revision"] == "abc123"
    one = store.buildah("from", "--pull-never", "localhost/ray-bootstrap").stdout.strip()
    root = Path(store.buildah("mount", one).stdout.strip())
    assert left_by_the_build(root) == []

    env = dict(entry.split("=", 1) for entry in made["Env"])
    image = kubelet.Image(entrypoint=made["Entrypoint"], env=env, root=str(root), files={})
    objects = kubelet.render("k8s/base")
    its = kubelet.container(kubelet.only(objects, "Job")["spec"]["template"]["spec"])
    its["args"] = [
        "--",
        "sh",
        "-c",
        f"{shlex.join(its['args'][1:])}; status=$?; mkfifo /tmp/go; read x < /tmp/go; exit $status",
    ]
    hosts = make_hosts(2, dns={})
    agents = kubelet.start(objects, controllers.job_pods(kubelet.only(objects, "Job"), hosts), hosts, image)
    agents.prints(0, "PASS: 2 nodes")
    for rank in (0, 1):  # a shell finds the run; one in the workload is left alone
        said = kubelet.execute(
            agents, rank, "bash", "-ic", "echo $RAY_ADDRESS; RAY_ADDRESS=x bash -ic 'echo $RAY_ADDRESS'"
        )
        assert said == f"{hosts[0].ip}:6379\nx\n"
    assert kubelet.execute(agents, 0, "sh", "-c", "echo > /tmp/go") == ""
    assert agents.wait() == [0, 0]
    assert kubelet.termination_message(agents, 1)["status"] == 0


def left_by_the_build(root: Path) -> Sequence[str]:
    """Caches, tools and tests; ours are the wheel and the examples."""
    assert len(list((root / "opt/ray-bootstrap").iterdir())) == 3
    patterns = ("root/.cache", "home/ray/.cache", "tmp/*", "src", "build", "wheels", "verify.py")
    site = next((root / "opt/python/lib").glob("python3.*/site-packages"))
    tools = [name for name in ("setuptools", "pytest", "tests") if (site / name).exists()]
    return [str(path) for pattern in patterns for path in root.glob(pattern)] + tools


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("bootstrap/cli.py", "import click", "import klick", "klick"),
        ("docker/requirements.txt", "tenacity==9.2.1", "", "hash"),
        ("pyproject.toml", '"click>=8.1"', '"click>=800"', "click>=800"),
    ],
)
def test_an_image_that_would_not_work_is_not_built(
    store: Store, context: Path, file: str, old: str, new: str, said: str
):
    text = (context / file).read_text()
    assert old in text
    (context / file).write_text(text.replace(old, new))
    result = store.build(context, "broken", check=False)
    assert result.returncode != 0
    assert said in result.stdout + result.stderr
    assert "broken" not in store.buildah("images").stdout
