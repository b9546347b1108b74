"""What the options ask of a node by its role: on the head ``--head-cpus`` and its kin win, a worker ignores them.

So the same command line fits all nodes, also where the head only leads.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from bootstrap.model import Role
from bootstrap.settings import Settings


def settings_of(settings: Settings, role: Role) -> Settings:
    """Return the options as they count on a node of this role."""
    if role is not Role.HEAD:
        return dataclasses.replace(settings, head_cpus=None, head_gpus=None, head_resources={})
    return dataclasses.replace(
        settings,
        num_cpus=settings.num_cpus if settings.head_cpus is None else settings.head_cpus,
        num_gpus=settings.num_gpus if settings.head_gpus is None else str(settings.head_gpus),
        resources={**settings.resources, **settings.head_resources},
    )


def expected(settings: Settings) -> Mapping[str, float]:
    """Return how much of which resource a node must offer Ray: the head no more than its own options give it.

    :param settings: as they count on that node, from :func:`settings_of`.
    """
    gpus = {} if settings.expect_gpus is None else {"GPU": settings.expect_gpus}
    own = {"CPU": settings.head_cpus, "GPU": settings.head_gpus, **settings.head_resources}
    limits = {name: amount for name, amount in own.items() if amount is not None}
    wanted = {**settings.expect_resources, **gpus}
    return {name: min(amount, limits.get(name, amount)) for name, amount in wanted.items()}


def in_words(name: str, amount: float) -> str:
    """Return ``8 GPUs``, ``64 CPUs`` or ``16 NPU``."""
    return f"{amount:.12g} {name}{'s' if name in ('CPU', 'GPU') else ''}"


def remedy(lacking: Sequence[str], settings: Settings) -> str:
    """Return what mends a shortfall of these resources."""
    own = ", ".join(name for name in lacking if name not in ("CPU", "GPU", "memory", "object_store_memory"))
    if own:
        found = "Ray finds NPU, TPU and the like by itself where their driver's tools work"
        return f"{found}; else --resources with {own} on the nodes that are short of it, or lower --expect-resources"
    option = "--expect-gpus" if settings.expect_gpus is not None and "GPU" in lacking else "--expect-resources"
    return f"run `ray-bootstrap detect` on the nodes that are short of {', '.join(lacking)}, or lower {option}"
