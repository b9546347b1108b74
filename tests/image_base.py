"""Stands in for rayproject/ray where no registry is: this machine's Python and Ray, with the libraries that they need.

``image_base.py ROOT`` fills a folder with a root file system: user ray (1000, group users), Python in /opt/python with
pip and with Ray's own requirements, and nothing of what only the agent requires.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

TOOLS = ("sh", "bash", "env", "grep", "cat", "ls", "mkdir", "rm", "sleep", "true", "uname")
PYTHON = Path("/opt/python")
ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nray:x:1000:100:ray:/home/ray:/bin/sh\n",
    "group": "root:x:0:\nusers:x:100:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_SKIPPED = shutil.ignore_patterns(
    "site-packages", "test", "tests", "__pycache__", "idlelib", "lib2to3", "*.a", "tensorboard"
)


def requirements(name: str, extras: Iterable[str], found: set[str]) -> set[str]:
    """The distribution and all that it requires with these extras, by name."""
    found.add(name)
    for text in metadata.requires(name) or ():
        wanted = Requirement(text)
        holds = wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        if holds and wanted.name not in found:
            requirements(wanted.name, wanted.extras, found)
    return found


def copy_python(root: Path) -> None:
    version = f"python{sysconfig.get_python_version()}"
    prefix = root / PYTHON.relative_to("/")
    library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(library, prefix / "lib" / version, ignore=_SKIPPED, symlinks=True)
    (prefix / "bin").mkdir()
    shutil.copy2(Path(sys.executable).resolve(), prefix / "bin" / version)
    for alias in ("python", "python3"):
        (prefix / "bin" / alias).symlink_to(version)
    site = prefix / "lib" / version / "site-packages"
    site.mkdir()
    for name in requirements("ray", ["default"], {"pip"}):
        for file in metadata.files(name) or ():
            source = Path(str(file.locate()))
            if source.is_file() and ".." not in file.parts and file.suffix != ".pyc":
                target = site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
    ray = prefix / "bin" / "ray"
    ray.write_text(f"#!{PYTHON}/bin/python\nfrom ray.scripts.scripts import main\nmain()\n")
    ray.chmod(0o755)


def copy_libraries(root: Path) -> None:
    """Whatever the dynamic loader would take for the programs and modules below ``root``."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and _is_elf(path)]
    for library in {path for path in _libraries(files) if not path.is_relative_to(root)}:
        here = library if library.parts[1] in ("lib", "lib64", "usr") else Path("/usr/lib") / library.name
        target = root / "usr" / str(here).removeprefix("/").removeprefix("usr/")  # /lib is a link to /usr/lib
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(library.resolve(), target)


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _libraries(files: list[Path]) -> Iterator[Path]:
    for start in range(0, len(files), 200):
        argv = ["ldd", *map(str, files[start : start + 200])]
        said = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120).stdout
        yield from map(Path, re.findall(r"(/\S+) \(0x", said))


def main(root: Path) -> None:
    for folder in ("usr/bin", "usr/lib", "usr/lib64", "usr/sbin", "etc", "root", "home/ray", "var", "run"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("tmp", "proc", "sys", "dev", "opt"):
        (root / folder).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    shutil.chown(root / "home/ray", 1000, 100)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for name, text in ETC.items():
        (root / "etc" / name).write_text(text)
    for tool in TOOLS:
        shutil.copy2(Path(shutil.which(tool) or tool).resolve(), root / "usr/bin" / tool)
    copy_python(root)
    copy_libraries(root)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
