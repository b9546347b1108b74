"""Ends the build of the image unless the agent's own requirements are met: `pip check` would judge the base, too."""

import sys
from importlib import metadata

from packaging.requirements import Requirement

missing = []
for text in metadata.requires("ray-bootstrap") or ():
    wanted = Requirement(text)
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        continue
    try:
        found = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        missing.append(f"{wanted} is not installed")
        continue
    if found not in wanted.specifier:
        missing.append(f"{wanted} is wanted, {found} is installed")
sys.exit("\n".join(missing) or None)
