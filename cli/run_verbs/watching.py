"""`runs watch`."""

from __future__ import annotations

import json as json_format
import time
from collections.abc import Iterable
from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveFloat

from cli.run_verbs.settings import ROOT
from reports.text_columns import visible
from run_store.following import RunFollower, RunsFollower, last_events
from run_store.registry import find_run

_METRICS = 6


def watch(
    run: str | None = None,
    last: NonNegativeInt = 10,
    once: bool = False,
    every: PositiveFloat = 0.5,
    folder: str = ROOT,
    json: bool = False,
) -> None:
    """Prints what happens to runs as it happens: to one run until it has ended, to all of them until Ctrl-C.

    Args:
        run: Its folder, id or name; all runs by default, and those that are still to come.
        last: So many of the newest events come first.
        once: Print those, and end.
        every: Seconds between two looks.
        folder: The folder of all runs.
        json: Print a line of JSON for each event.
    """
    try:
        if run is None:
            _watch_all(folder, last, once, every, json)
        else:
            _watch_one(RunFollower(find_run(folder, run).folder), last, once, every, json)
    except KeyboardInterrupt:  # the way to end it
        print()


def _watch_one(follower: RunFollower, last: int, once: bool, every: float, json: bool) -> None:
    _print(follower.new_events()[-last:] if last else follower.new_events()[:0], json)
    while not once:
        has_ended = follower.has_ended()  # asked first: what happens after it is not missed
        _print(follower.new_events(), json)
        if has_ended:
            break
        time.sleep(every)


def _watch_all(folder: str, last: int, once: bool, every: float, json: bool) -> None:
    follower = RunsFollower(folder)
    _print(last_events(folder, last), json)
    while not once:
        _print(follower.new_events(), json)
        time.sleep(every)


def _print(events: Iterable[dict[str, Any]], json: bool) -> None:
    for event in events:
        print(json_format.dumps(event) if json else visible(_line(event)), flush=True)


def _line(event: dict[str, Any]) -> str:
    when, run = str(event.get("time"))[:19].replace("T", " "), str(event.get("run"))[:8]
    return f"{when}  {run}  {event.get('status')!s:<12}  {_what(event)}".rstrip()


def _what(event: dict[str, Any]) -> str:
    """What an event says beyond its status."""
    kind = str(event.get("event"))
    if kind == "progress":
        metrics = [f"{name} {_short(value)}" for name, value in sorted(dict(event.get("metrics") or {}).items())]
        more = ", …" if len(metrics) > _METRICS else ""
        return f"step {dict(event.get('progress') or {}).get('step')}  {', '.join(metrics[:_METRICS])}{more}"
    if kind == "error":
        return f"{event.get('kind')}: {event.get('message')}"
    if kind == "labels":
        return f"tags {', '.join(map(str, event.get('tags') or ())) or 'none'}; note {event.get('note') or 'none'}"
    return "" if kind == "status" else kind


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
