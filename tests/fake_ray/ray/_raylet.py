"""What of Ray's extension module the agent's Ray child uses."""

from __future__ import annotations


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


class GcsClientOptions:
    def __init__(self, address: str) -> None:
        self.address = address

    @staticmethod
    def create(
        address: str, _cluster_id: object, *, allow_cluster_id_nil: bool, fetch_cluster_id_if_nil: bool
    ) -> GcsClientOptions:
        return GcsClientOptions(address)
