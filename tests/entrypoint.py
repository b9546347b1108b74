"""The entrypoint of the image and its line for bash, as the Dockerfile has them."""

import json
import re
from pathlib import Path

_DOCKERFILE = (Path(__file__).parent.parent / "docker" / "Dockerfile").read_text()
(_LINE,) = re.findall(r"^ENTRYPOINT (.*)", _DOCKERFILE, re.MULTILINE)
ENTRYPOINT: list[str] = json.loads(_LINE)
BEFORE = ENTRYPOINT[:-1]
"""What it puts before the agent."""
(BASHRC,) = re.findall(r"^ *&& echo '(.*)' >> /etc/bash.bashrc$", _DOCKERFILE, re.MULTILINE)
