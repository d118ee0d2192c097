"""Expected results of a case, computed by a worker of its own."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from backends.api import Case, Mode
from bench.launch import Team
from bench.record import Status
from bench.sources import WorkerDied, WorkerHung

#: The oracle is slow and obvious, not fast.
ORACLE_LIMIT_S = 1800.0


class NoOracle(Exception):
    """Failure to compute the expected results of a case; its jobs end with `status`."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(f"the oracle: {reason}")
        self.status = status


def ask_oracle(team: Team, case: Case, mode: Mode, path: Path) -> None:
    """Have a worker write what every implementation of a case must compute, or raise `NoOracle`.

    It has the fewest threads of the team, whatever the case's are.
    """
    try:
        with team.worker("reference") as worker:
            message = {"op": "expect", "case": asdict(case), "mode": mode, "path": str(path)}
            reply = worker.request(message, limit_s=ORACLE_LIMIT_S)
    except (WorkerDied, WorkerHung) as error:
        hung = isinstance(error, WorkerHung)
        raise NoOracle(Status.TIMEOUT if hung else Status.CRASHED, str(error)) from error
    if reply["status"] != Status.OK:
        raise NoOracle(Status(reply["status"]), reply["reason"])
