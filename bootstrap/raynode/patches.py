"""Changes to the functions of Ray's services.py by which ``ray start`` starts each of Ray's processes.

Only :mod:`bootstrap.raynode.child_main` calls this, as it imports Ray.
"""

import contextlib
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

Arguments = dict[str, Any]
"""Those of one call, by name."""
Around = Callable[[Arguments], contextlib.AbstractContextManager[None]]


def patch(name: str, around: Around) -> None:
    """Patch a function of ``ray._private.services`` in this process: each call is made inside ``around(arguments)``.

    With a Ray version that has other names, or where ``around`` fails, the function does what it always did.

    :param around: may change the arguments.
    """
    try:
        services: Any = importlib.import_module("ray._private.services")
        stock = getattr(services, name)
    except (ImportError, AttributeError):
        return
    signature = inspect.signature(stock)

    @functools.wraps(stock)
    def patched(*args: Any, **kwargs: Any) -> Any:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(Exception):
                given = signature.bind(*args, **kwargs)
                stack.enter_context(around(given.arguments))
                args, kwargs = given.args, given.kwargs
            return stock(*args, **kwargs)

    setattr(services, name, patched)
