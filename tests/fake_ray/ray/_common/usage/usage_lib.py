"""The versions with which a Ray was started; FAKE_RAY may hold the word ``other-ray`` or ``other-python``."""

from __future__ import annotations

import os
import platform

import ray
from ray._raylet import GcsClient


def get_cluster_metadata(_client: GcsClient) -> dict[str, str]:
    words = os.environ.get("FAKE_RAY", "").split()
    return {
        "ray_version": "2.59.1" if "other-ray" in words else ray.__version__,
        "python_version": "3.9.1" if "other-python" in words else platform.python_version(),
    }
