"""Why Kubernetes has not started a node: its warnings about this run's pods and about what makes them.

They are asked of the API server, with the token of the pod's service account, and only if there is one; its role must
allow to list events (k8s/components/events). They are core/v1 Events (k8s.io/api/core/v1/types.go).
"""

import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from bootstrap import timeouts
from bootstrap.host import Host

Causes = Mapping[int | None, str]
"""Rank → why it has not come; None → what keeps any node from coming."""

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where the kubelet puts token, CA and namespace (https://kubernetes.io/docs/tasks/run-application/access-api-from-pod)."""
_PAGE_EVENTS = 500
"""Events in an answer; one has about 1 kB."""
_MOST_PAGES, _PAGE_BYTES = 8, 4 << 20
_TEXT = 300
"""Characters of a message that are shown."""
_RECENT_S, _TOGETHER_S = 600.0, 120.0
"""Seconds for which an event counts (the scheduler repeats its own every 5 minutes at most), and for which those that
came before the last one count as being about the same trouble."""
_NO_CAUSE = {"Unhealthy", "Killing"}
"""Reasons of events about pods that run."""


def causes(host: Host, *, pods: str, makers: str) -> Causes:
    """Return why this run's pods have not started; nothing without a service account. It may block for some seconds.

    :param pods: a pattern for their names, whose group is the rank. ``{pod}`` stands for this pod's name, ``{job}`` for
        the same without its index.
    :param makers: the same for what makes them, without a group; only its events ``FailedCreate…`` count.
    :raises PermissionError: if this pod may not list events.
    :raises OSError: if the API server does not answer, or not with events.
    """
    token, namespace = (host.read(f"{ACCOUNT}/{file}") for file in ("token", "namespace"))
    if not (token and namespace and host.get("KUBERNETES_SERVICE_HOST")):
        return {}
    pod = host.hostname.partition(".")[0]
    of_pods, of_makers = _pattern(pods, pod), _pattern(makers, pod)
    found: dict[int | None, list[tuple[float, str]]] = {}
    try:
        for event in _events(host, "".join(token.split()), namespace.strip()):
            for rank in _ranks(event, of_pods, of_makers):
                found.setdefault(rank, []).append((_time(event), _sentence(event)))
    except OSError as error:
        what = f"Kubernetes' events about the missing pods cannot be read: {error.strerror or error}"
        if isinstance(error, PermissionError):
            raise PermissionError(
                f"{what}; fix: add k8s/components/events to `components` in your kustomization"
            ) from None
        raise OSError(what) from None
    return {rank: cause for rank, events in found.items() if (cause := _longest(events))}


def _pattern(text: str, pod: str) -> re.Pattern[str]:
    filled = text.replace("{pod}", re.escape(pod)).replace("{job}", re.escape(pod.rpartition("-")[0]))
    return re.compile(filled)


def _longest(events: list[tuple[float, str]]) -> str:
    """Return the longest of the last texts: "Failed to pull image …: not found" comes with "Error: ErrImagePull"."""
    last = max(when for when, _ in events)
    if last < time.time() - _RECENT_S:
        return ""
    return max((text for when, text in events if when >= last - _TOGETHER_S), key=len)


def _ranks(event: Mapping[str, Any], pods: re.Pattern[str], makers: re.Pattern[str]) -> list[int | None]:
    """Return whom an event is about: a rank, with None any node that has no pod; nothing if it is not this run's."""
    its, reason = _dict(event, "involvedObject"), _text(event, "reason")
    name, kind = _text(its, "name"), _text(its, "kind")
    if event.get("type") != "Warning" or reason in _NO_CAUSE:
        return []
    if kind == "Pod":
        return [int(match[1])] if (match := pods.fullmatch(name)) else []
    if not makers.fullmatch(name) or not reason.startswith("FailedCreate"):
        return []
    # 'Error creating: pods "ray-1-x7k2p" is forbidden: exceeded quota: …'
    message = _text(event, "message")
    match = re.search(rf'"{pods.pattern}"', message)
    if match is None:
        return [None]
    return [int(match[1]), None] if "combined from similar events" in message else [int(match[1])]


def _sentence(event: Mapping[str, Any]) -> str:
    its = _dict(event, "involvedObject")
    about = f"{_text(event, 'reason')} ({_text(its, 'kind')} {_text(its, 'name')})"
    return f"{_shown(about, _TEXT // 2)}: {_shown(_text(event, 'message'), _TEXT)}"


def _time(event: Mapping[str, Any]) -> float:
    """Return when the event happened last, in seconds since the epoch; 0 if it does not say."""
    last = _text(_dict(event, "series"), "lastObservedTime") or _text(event, "lastTimestamp")
    text = last or _text(event, "eventTime") or _text(_dict(event, "metadata"), "creationTimestamp")
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _shown(text: str, most: int) -> str:
    """Return one line of a text from outside, without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * most]).split())
    return line if len(line) <= most else f"{line[:most]}…"


def _dict(of: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return found if isinstance(found := of.get(key), dict) else {}


def _text(of: Mapping[str, Any], key: str) -> str:
    return found if isinstance(found := of.get(key), str) else ""


def _events(host: Host, token: str, namespace: str) -> Iterator[Mapping[str, Any]]:
    """Yield the namespace's warnings, for :data:`timeouts.EVENTS_S` at most.

    :raises PermissionError, OSError: as :func:`causes`.
    """
    import http.client  # noqa: PLC0415 (this and the rest only for a node that has not come)
    import ssl  # noqa: PLC0415
    from urllib.parse import quote  # noqa: PLC0415

    deadline = time.monotonic() + timeouts.EVENTS_S
    address, port = host.get("KUBERNETES_SERVICE_HOST") or "", host.get("KUBERNETES_SERVICE_PORT") or "443"
    if not port.isdecimal():
        raise OSError(f"KUBERNETES_SERVICE_PORT={port!r} is not a number")
    path = f"/api/v1/namespaces/{quote(namespace, '')}/events?fieldSelector=type%3DWarning&limit={_PAGE_EVENTS}"
    # Without a proxy, whichever is set: the address is the cluster's own, which proxies to the outside do not reach.
    server = ssl.create_default_context(cafile=str(host.path(f"{ACCOUNT}/ca.crt")))
    connection = http.client.HTTPSConnection(address, int(port), timeout=timeouts.EVENTS_S / 2, context=server)
    try:
        more = ""
        for _ in range(_MOST_PAGES):
            connection.request("GET", f"{path}{more}", headers={"Authorization": f"Bearer {token}"})
            page = _page(connection.getresponse(), deadline)
            yield from (event for event in page.get("items", ()) if isinstance(event, dict))
            following = _text(_dict(page, "metadata"), "continue")
            if not following or time.monotonic() > deadline:
                return
            more = f"&continue={quote(following, '')}"
    except (http.client.HTTPException, UnicodeError) as error:
        raise OSError(f"the API server's answer is not HTTP: {type(error).__name__}") from None
    finally:
        connection.close()


def _page(response: Any, deadline: float) -> Mapping[str, Any]:
    """Return the EventList in an answer. :raises PermissionError, OSError: if it has none, or comes too slowly."""
    import json  # noqa: PLC0415

    content = b""
    while chunk := response.read1(1 << 16):
        content += chunk
        if len(content) > _PAGE_BYTES or time.monotonic() > deadline:
            most = f"{_PAGE_BYTES >> 20} MiB, or takes more than {timeouts.EVENTS_S:g} s"
            raise OSError(f"the API server's answer has more than {most}")
    if response.status != 200:
        error = PermissionError if response.status in (401, 403) else OSError
        raise error(f"the API server answered {response.status} {_shown(response.reason, _TEXT)}")
    try:
        page = json.loads(content)
    except (ValueError, RecursionError):
        raise OSError("the API server's answer is not JSON") from None
    if not isinstance(page, dict) or not isinstance(page.get("items", []), list):
        raise OSError("the API server's answer is not a list of events")
    return page
