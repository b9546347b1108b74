"""What of Ray's extension module the agent's Ray child uses."""

from __future__ import annotations

import json
import os
from pathlib import Path


class Config:
    @staticmethod
    def initialize(_config: str) -> None:
        """Ray reads RAY_AUTH_MODE anew."""


class AuthenticationTokenLoader:
    @staticmethod
    def instance() -> AuthenticationTokenLoader:
        return AuthenticationTokenLoader()

    def reset_cache(self) -> None:
        """Ray reads the token anew."""


class GcsClient:
    """A connection to what :mod:`ray.scripts.scripts` started at this address."""

    def __init__(self, address: str) -> None:
        known = json.loads((Path(os.environ["FAKE_RAY_CLUSTER"]) / "head.json").read_text())["address"]
        if address != known:
            raise RpcError(f"no GCS at {address}, but at {known}")
        if "other-token" in os.environ.get("FAKE_RAY", "").split():
            raise AuthenticationError("RPC error: InvalidAuthToken: Authentication token is missing or incorrect. More")


class RpcError(Exception):
    """As Ray's."""


class AuthenticationError(Exception):
    """As Ray's."""


class GcsClientOptions:
    def __init__(self, address: str) -> None:
        self.address = address

    @staticmethod
    def create(
        address: str, _cluster_id: object, *, allow_cluster_id_nil: bool, fetch_cluster_id_if_nil: bool
    ) -> GcsClientOptions:
        return GcsClientOptions(address)
