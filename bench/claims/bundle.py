"""Which claims are asked for, of which folders, and what is missing to judge them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.claims.registry import CLAIMS, Claim
from bench.errors import choose
from bench.store import Run, mapping_in


def ids_and_folders(words: Sequence[str]) -> tuple[list[Claim], list[Path]]:
    """`T4 results/local/RUN` -> claims and folders; no claim is named: all of them.

    Raises `UsageError` for a word that is neither.
    """
    claims: list[Claim] = []
    folders: list[Path] = []
    for word in words:
        if word.upper() in CLAIMS:
            claims.append(CLAIMS[word.upper()])
        elif word[:1].upper() in ("T", "I") and word[1:].isdecimal() and not Path(word).exists():
            choose("claim", word.upper(), CLAIMS)
        else:
            folders.append(Path(word))
    return claims or list(CLAIMS.values()), folders


def latest(results: Path) -> Path | None:
    """The newest folder of runs that `claims --run` left under a folder of results."""
    found = sorted(path for path in results.glob("*-claims") if path.is_dir())
    return found[-1] if found else None


def missing(claims: Sequence[Claim], runs: Sequence[Run]) -> list[str]:
    """The presets that decide these claims and that no run is of, in the order of the claims."""
    there = {mapping_in(run.manifest, "sweep").get("name") for run in runs}
    wanted = dict.fromkeys(preset for claim in claims for preset in claim.presets)
    return [preset for preset in wanted if preset not in there]
