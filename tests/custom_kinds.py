"""Objects of other projects' kinds against the schemas in ``tests/crds``, as the API server holds them with strict
field validation (``kubectl apply --validate=strict``, its default).

A custom kind's schema is structural, so an unknown field is one that no ``properties`` name:
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
The rules in CEL (``x-kubernetes-validations``) are not evaluated; :func:`not_evaluated` names them.
"""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CRDS = Path(__file__).parent / "crds"
_KNOWN = {"int-or-string", "preserve-unknown-fields", "embedded-resource", "list-type", "list-map-keys", "map-type"}
_KNOWN |= {"validations"}


class Invalid(Exception):
    """What the API server would refuse: a line for each fault."""


@functools.cache
def schemas() -> dict[tuple[str, str], dict[str, Any]]:
    """The schemas by apiVersion and kind."""
    found = {}
    for path in sorted(CRDS.glob("*.json.gz")):
        crd = json.loads(gzip.decompress(path.read_bytes()))
        found[f"{crd['group']}/{crd['version']}", crd["kind"]] = crd["schema"]
    return found


def validate(thing: dict[str, Any]) -> None:
    """Raises :class:`Invalid` if the API server would refuse the object; its metadata are Kubernetes' own."""
    import jsonschema
    import kubernetes_validate

    schema = schemas()[thing["apiVersion"], thing["kind"]]
    checker = jsonschema.Draft202012Validator(_closed(schema, root=True), format_checker=None)
    faults = [f"{error.json_path}: {error.message}" for error in checker.iter_errors(thing)]
    faults += _repeated(schema, thing, "$")
    like = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": thing["metadata"]}
    try:
        kubernetes_validate.validate(like, "1.29", strict=True)
    except kubernetes_validate.ValidationError as error:
        faults.append(f"{error.json_path}: {error.message}")
    if faults:
        raise Invalid("\n".join(faults))


def _closed(schema: dict[str, Any], *, root: bool = False) -> dict[str, Any]:
    """The structural schema as a JSON Schema that permits named fields only."""
    if unknown := {key for key in schema if key.startswith("x-")} - {f"x-kubernetes-{name}" for name in _KNOWN}:
        raise ValueError(f"{unknown} is not modelled")
    left_out = ("default", "format")
    kept = {key: value for key, value in schema.items() if not key.startswith("x-") and key not in left_out}
    fields = {name: _closed(field) for name, field in schema.get("properties", {}).items()}
    if root or schema.get("x-kubernetes-embedded-resource"):
        fields |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    if schema.get("type") == "object":
        others = schema.get("additionalProperties", False)
        kept["properties"] = fields
        kept["additionalProperties"] = _closed(others) if isinstance(others, dict) else others
        if schema.get("x-kubernetes-preserve-unknown-fields"):
            kept["additionalProperties"] = True
    if "items" in schema:
        kept["items"] = _closed(schema["items"])
    if schema.get("x-kubernetes-int-or-string"):
        kept["type"] = ["integer", "string"]
    if schema.get("nullable"):
        kept = {"anyOf": [{"type": "null"}, kept]}
    return kept


def _repeated(schema: dict[str, Any], value: Any, where: str) -> Iterator[str]:
    """Entries of a list that must differ: of a ``set`` all, of a ``map`` those with the same keys."""
    if isinstance(value, dict):
        for name, each in value.items():
            others = schema.get("additionalProperties")
            inner = schema.get("properties", {}).get(name) or (others if isinstance(others, dict) else {})
            yield from _repeated(inner, each, f"{where}.{name}")
    elif isinstance(value, list) and "items" in schema:
        items, keys = schema["items"], schema.get("x-kubernetes-list-map-keys", ())
        fields = items.get("properties", {})
        seen = []
        for index, each in enumerate(value):
            yield from _repeated(items, each, f"{where}[{index}]")
            if schema.get("x-kubernetes-list-type") == "set":
                seen.append(each)
            elif isinstance(each, dict) and keys:
                seen.append([each.get(key, fields.get(key, {}).get("default")) for key in keys])
        yield from (f"{where}: {each} is there twice" for index, each in enumerate(seen) if each in seen[:index])


def not_evaluated(thing: dict[str, Any]) -> set[str]:
    """The rules in CEL that the API server evaluates when it creates the object; those on ``oldSelf`` are not."""
    schema = schemas()[thing["apiVersion"], thing["kind"]]
    return {rule for rule in _rules(schema, thing) if "oldSelf" not in rule}


def _rules(schema: dict[str, Any], value: Any) -> Iterator[str]:
    yield from (each["rule"] for each in schema.get("x-kubernetes-validations", ()))
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _rules(schema.get("properties", {}).get(name, {}), each)
    elif isinstance(value, list):
        for each in value:
            yield from _rules(schema.get("items", {}), each)
