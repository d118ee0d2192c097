"""Another version of the scripted framework: `fine-too` fails there, as SCRIPTED_FAILS says."""

from __future__ import annotations

import os

from backends.api import Case, Mode, Runner, Stage, unstaged
from tests.scripted import ScriptedBackend


class OtherBackend(ScriptedBackend):
    def build(self, case: Case, strategy: str, mode: Mode, stage: Stage = unstaged) -> Runner:
        """Builds for `fine-too` what the variable names: `raises`, `raises-in-turn`."""
        failing = os.environ["SCRIPTED_FAILS"] if strategy == "fine-too" else strategy
        return super().build(case, failing, mode, stage)


def create(threads: int) -> OtherBackend:
    return OtherBackend()
