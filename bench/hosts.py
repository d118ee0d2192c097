"""Whether two runs were measured on one host, in one way, in turns, and what else changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.store import mapping_in

#: What makes a host another one. Its name does not: a runner has another one every time.
_HOST = (
    *("cpu", "cpu_model", "vectors", "caches"),
    *("cores", "memory_bytes", "system", "machine", "virtual", "gpus"),
)

#: What makes a run another way of measuring.
SETTINGS = ("start",)

#: What the workers had around them that is not the host's.
_SURROUNDINGS = ("versions", "environment", "inherited")


def session_of(manifest: Mapping[str, Any]) -> str | None:
    """Name of the session in which two runs took turns block by block; None for other runs."""
    session = manifest.get("session")
    return session if isinstance(session, str) and session else None


def host_differences(
    old: Mapping[str, Any], new: Mapping[str, Any], settings: Sequence[str] = SETTINGS
) -> list[str]:
    """Differences of hosts and settings between two manifests: `cores 4 / 8`."""
    hosts = mapping_in(old, "host"), mapping_in(new, "host")
    pairs = {name: (hosts[0].get(name), hosts[1].get(name)) for name in _HOST}
    pairs |= {name: (old.get(name), new.get(name)) for name in settings}
    return [
        f"{name.replace('_', ' ')} {_said(a)} / {_said(b)}"
        for name, (a, b) in pairs.items()
        if a != b
        and not (name == "memory_bytes" and _about_equal(a, b))
        # Only runs on one tell of it: whether there is another one cannot be seen from the rest.
        and not (name == "gpus" and None in (a, b))
    ]


def other_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Other changes between two manifests, the reason to compare them: `torch 2.4 / 2.5`."""
    found = [
        (name, holder_a.get(name), holder_b.get(name))
        for name, holder_a, holder_b in (
            ("python", mapping_in(old, "host"), mapping_in(new, "host")),
            ("commit", old, new),
        )
    ]
    for name in _SURROUNDINGS:
        one, other = mapping_in(old, name), mapping_in(new, name)
        if name == "environment":  # by backend, and a run need not have all of them
            shared = one.keys() & other.keys()
            one, other = ({k: v for k, v in m.items() if k in shared} for m in (one, other))
        a, b = dict(leaves("", one)), dict(leaves("", other))
        found += [(key, a.get(key), b.get(key)) for key in dict.fromkeys([*a, *b])]
    return list(dict.fromkeys(f"{name} {_said(a)} / {_said(b)}" for name, a, b in found if a != b))


def leaves(name: str, value: object) -> Iterator[tuple[str, object]]:
    """The values within a value that are no objects, each with the names that lead to it."""
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, inner in value.items():
        yield from leaves(f"{name} {key}".lstrip(), inner)


def _about_equal(a: object, b: object) -> bool:
    """Memory within 1 %: a kernel keeps a little more or less for itself each time."""
    return isinstance(a, int) and isinstance(b, int) and abs(a - b) <= 0.01 * max(a, b)


def _said(value: object) -> str:
    return "none" if value is None else str(value)
