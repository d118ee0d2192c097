"""What befalls a run from outside its jobs: servers, channels, imports and disks that fail."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench import launch, run, sources
from bench.ending import MARK, kill_marked
from bench.errors import StoreError
from bench.launch import Start, Team, Worker
from bench.record import Status
from bench.sources import ServerDied, WorkerDied, WorkerHung
from bench.store import Run, read_run
from benchmarks import faults, kill
from tests import scripted
from tests.scripted_runs import (
    PRESET,
    Acting,
    execute,
    full_disk_after,
    left_behind,
    limited_files,
    missing,
    of,
    registered,
    signal_server,
    sweep,
)

pytestmark = [pytest.mark.usefixtures("scripted_backend"), pytest.mark.xdist_group("faults")]


class Speaking:
    """A source of workers that run some lines of Python; `fd` is their channel."""

    def __init__(self, lines: str) -> None:
        self._lines = f"import os, signal, struct, sys, time\nfd = int(sys.argv[1])\n{lines}"

    def start(self, descriptor: int, environment: Mapping[str, str]) -> int:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._lines, str(descriptor)],
            pass_fds=[descriptor],
            process_group=0,
        )
        return self._process.pid

    def wait(self, pid: int) -> int:
        return self._process.wait()

    def close(self) -> None:
        pass


HALF = "os.read(fd, 65536)\nos.write(fd, struct.pack('!i', 100) + b'half')\n"


@pytest.mark.parametrize(
    ("lines", "error", "said"),
    [
        (f"{HALF}time.sleep(3600)", WorkerHung, "stopped within its answer to 'turn'"),
        (f"{HALF}os.kill(os.getpid(), 11)", WorkerDied, "during 'turn': killed by SIGSEGV"),
        (f"{HALF}sys.exit(3)", WorkerDied, "during 'turn': exit status 3"),
        (
            "os.read(fd, 65536)\nos.write(fd, struct.pack('!i', 4) + b'half')\ntime.sleep(3600)",
            WorkerDied,
            "broke off during 'turn': what it sent is no answer",
        ),
        ("os.close(fd)\ntime.sleep(3600)", WorkerDied, "broke off during 'turn'"),
        ("sys.exit(4)", WorkerDied, "during 'turn': exit status 4"),
    ],
    ids=["half", "half-and-segv", "half-and-exit", "no-answer", "closed", "exit"],
)
def test_an_answer_that_is_none_ends_the_worker_only(
    monkeypatch: pytest.MonkeyPatch, lines: str, error: type[Exception], said: str
) -> None:
    monkeypatch.setattr(launch, "REPLY_LIMIT_S", 1.0)
    monkeypatch.setattr(sources, "EXIT_LIMIT_S", 2.0)
    with Worker("scripted", Speaking(lines), {}) as worker:
        with pytest.raises(error, match=said):
            worker.request({"op": "turn"}, limit_s=20.0)
        assert not psutil.pid_exists(worker.pid)


def team_of(folder: Path, *names: str, start: Start = "fork") -> Team:
    return Team(
        names,
        cpus=[min(os.sched_getaffinity(0))],
        start=start,
        log=folder / "log",
        scratch=folder,
    )


@contextmanager
def interrupts(number: signal.Signals) -> Iterator[None]:
    """Within the body this signal is what the second Ctrl-C is."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, interrupt)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def interrupted_while_it_waits(server: int) -> Iterator[None]:
    """The body is interrupted when it has asked a server that was stopped; it answers after that.

    It has a second for everything else.
    """
    with interrupts(signal.SIGALRM):
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        with pytest.raises(KeyboardInterrupt):
            yield
    with suppress(ProcessLookupError):
        os.kill(server, signal.SIGCONT)
    time.sleep(0.5)


def check_answers(team: Team) -> None:
    """Two workers at once are who they are taken for, and end."""
    with team.worker("scripted") as one, team.worker("scripted") as other:
        for worker in (one, other):
            assert worker.request({"op": "describe"}, limit_s=60.0)["pid"] == worker.pid


def test_an_interrupt_while_a_worker_is_forked_leaves_the_next_one_its_own(tmp_path: Path) -> None:
    with team_of(tmp_path, "scripted") as team:
        with interrupted_while_it_waits(signal_server(signal.SIGSTOP)):
            team.worker("scripted")
        check_answers(team)


def test_an_interrupt_while_a_worker_ends_leaves_the_next_one_its_own(tmp_path: Path) -> None:
    with team_of(tmp_path, "scripted") as team:
        worker = team.worker("scripted")
        worker.request({"op": "describe"}, limit_s=60.0)
        with interrupted_while_it_waits(signal_server(signal.SIGSTOP)):
            worker.close()
        check_answers(team)


def test_an_interrupted_request_ends_its_worker(tmp_path: Path) -> None:
    """It would answer the first question when it is asked the second."""
    lines = (
        "os.read(fd, 65536)\n"
        "os.kill(os.getppid(), signal.SIGUSR1)\n"
        "time.sleep(0.2)\n"
        "os.write(fd, struct.pack('!i', 2) + b'{}')\n"
        "time.sleep(3600)"
    )
    with Worker("scripted", Speaking(lines), {}) as worker:
        with interrupts(signal.SIGUSR1), pytest.raises(KeyboardInterrupt):
            worker.request({"op": "first"}, limit_s=20.0)
        time.sleep(0.5)
        with pytest.raises(WorkerDied, match="ended before 'second'"):
            worker.request({"op": "second"}, limit_s=20.0)
        assert not psutil.pid_exists(worker.pid)


def test_an_interrupt_while_a_server_imports_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sleeper.py").write_text(
        "import os, signal, time\nos.kill(os.getppid(), signal.SIGUSR1)\ntime.sleep(3600)\n"
    )
    with registered() as mark:
        monkeypatch.setenv(scripted.MODULE_VARIABLE, "sleeper")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        with interrupts(signal.SIGUSR1), pytest.raises(KeyboardInterrupt) as _held:
            team_of(tmp_path, "reference", "scripted")
        assert left_behind(mark) == []


def test_a_session_that_a_worker_left_ends_with_a_server_that_was_killed(tmp_path: Path) -> None:
    plan = sweep("leaves-session", "kills-server", blocks=1)
    with registered() as mark:
        result = execute(tmp_path, plan)
        assert left_behind(mark) == []
    assert missing(plan, result) == []
    assert of(result, "kills-server", "steady")[0].status == Status.CRASHED


def test_only_what_has_the_mark_is_killed() -> None:
    """Another run has other marks, and so has what it started."""
    marks = [uuid.uuid4().hex, uuid.uuid4().hex]
    mine, others = (
        subprocess.Popen(["sleep", "3600"], env={MARK: mark}, start_new_session=True)
        for mark in marks
    )
    try:
        kill_marked(marks[0])
        assert mine.wait() == -signal.SIGKILL
        assert others.poll() is None
    finally:
        others.kill()
        others.wait()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_process_that_cannot_be_started_is_a_worker_that_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    """The limit on processes is reached, or there is no memory for one more."""

    def refused(*_: Any, **__: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", refused)
    with (
        team_of(tmp_path, "scripted", start=start) as team,
        pytest.raises(WorkerDied, match=r"could be started .*temporarily unavailable"),
    ):
        team.worker("scripted")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize(
    ("measure", "after"), [("memory", 2), ("steady", 5)], ids=["between", "within"]
)
def test_a_fork_server_that_is_lost_is_replaced_and_costs_nobody(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    measure: str,
    after: int,
) -> None:
    """Between two blocks, and when all that take part in one have been built."""
    monkeypatch.setattr(sources, "FORK_LIMIT_S", 2.0)
    lost: list[int] = []
    plan = sweep("fine", "fine-too", cold_blocks=2, memory_blocks=1)
    hit = Acting(lambda: lost.append(signal_server(number)), measure, after)
    result = execute(tmp_path, plan, progress=hit)
    assert len(lost) == 1
    assert missing(plan, result) == []
    assert {record.status for record in result.records} == {Status.OK}


def test_what_kills_its_server_every_time_is_blamed_in_the_end(tmp_path: Path) -> None:
    plan = sweep("fine", "kills-server", "fine-too", blocks=1)
    result = execute(tmp_path, plan)
    assert missing(plan, result) == []
    (blamed,) = of(result, "kills-server", "steady")
    assert (blamed.status, blamed.reason) == (
        Status.CRASHED,
        "worker ended during 'burst': with its fork server",
    )
    others = [r for r in result.records if r.job.implementation != "scripted/kills-server"]
    assert {record.status for record in others} == {Status.OK}


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_framework_that_does_not_import_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    monkeypatch.setenv(scripted.MODULE_VARIABLE, "tests.absent")
    check_only_scripted_failed(execute(tmp_path, sweep("fine", blocks=1), start), Status.CRASHED)


def test_a_framework_whose_import_never_ends_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(3600)\n")
    monkeypatch.setenv(scripted.MODULE_VARIABLE, "sleeper")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(sources, "IMPORT_LIMIT_S", 10.0)
    check_only_scripted_failed(execute(tmp_path, sweep("fine", blocks=1)), Status.TIMEOUT)


def check_only_scripted_failed(result: Run, status: Status) -> None:
    for record in result.records:
        failed = record.job.implementation == "scripted/fine"
        assert record.status == (status if failed else Status.OK)
    assert {record.job.measure for record in result.records} == {"steady", "cold", "memory"}


@pytest.mark.parametrize(("parent", "said"), [("os.getppid()", "here\n"), ("os.getpid()", "")])
def test_who_starts_when_its_parent_is_gone_ends_at_once(parent: str, said: str) -> None:
    """The parent may be killed while the interpreter starts, when nobody could tell it yet."""
    lines = f"import os; from bench.ending import die_with_parent as d; d({parent}); print('here')"
    done = subprocess.run(
        [sys.executable, "-c", lines], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == (said, 0 if said else 1)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_what_an_import_leaves_behind_ends_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    (tmp_path / "starter.py").write_text(
        "import subprocess\n"
        "subprocess.Popen(['sleep', '3600'])\n"
        "from tests.scripted import create\n"
    )
    monkeypatch.setenv(scripted.MODULE_VARIABLE, "starter")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    result = execute(tmp_path, sweep("fine", blocks=1), start)
    assert {record.status for record in result.records} == {Status.OK}


def test_a_worker_that_cannot_be_forked_costs_none_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the host has no memory for one more process, or no number."""
    (tmp_path / "crowded.py").write_text(
        "import os\n"
        "from tests.scripted import create\n"
        "real, left = os.fork, [1, 0]\n"
        "def fork():\n"
        "    if left.pop(0):\n"
        "        return real()\n"
        "    os.fork = real\n"
        "    raise OSError(12, 'Cannot allocate memory')\n"
        "os.fork = fork\n"
    )
    monkeypatch.setenv(scripted.MODULE_VARIABLE, "crowded")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with team_of(tmp_path, "scripted") as team, team.worker("scripted") as first:
        with pytest.raises(WorkerDied, match="Cannot allocate memory"):
            team.worker("scripted")
        with team.worker("scripted") as second:
            for worker in (first, second):
                assert worker.request({"op": "describe"}, limit_s=60.0)["pid"] == worker.pid


def test_a_disk_that_is_full_beside_the_records_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers share files with the parent: these meet a full disk as well."""
    monkeypatch.setattr(launch, "shorten", full_disk_after(14))
    plan = sweep("fine", "fine-too", blocks=3)
    with pytest.raises(StoreError, match=r"run: cannot be written \(No space left .* are kept\)"):
        execute(tmp_path, plan)
    kept = read_run(tmp_path / "run")
    assert kept.manifest["status"] == "failed"
    assert kept.records
    assert missing(plan, run.resume(kept.folder, progress=run.Silent())) == []


@pytest.mark.parametrize("name", ["segv", "two-runs"])
def test_the_table_of_faults_says_whether_its_goals_are_met(name: str) -> None:
    (scenario,) = (scenario for scenario in faults.SCENARIOS if scenario.name == name)
    row, met = faults.attempt(scenario)
    assert met, row
    assert row["planned"] == row["recorded"]


def test_lines_are_counted_without_the_reader_that_is_examined(tmp_path: Path) -> None:
    line = b'{"crc32": 1, "record": {"key": "a", "block": %d}}'
    lines = [line % 0, line % 1, line % 0 + b" ", line[:20]]
    (tmp_path / "records.jsonl").write_bytes(b"\n".join(lines))
    assert kill.lines_of(tmp_path) == (set(lines[:3]), 1, 1)
    toll = kill.Toll(seen={line % 0, line % 2})
    toll.look({line % 0, line % 1})
    assert (toll.before, toll.after, toll.lost, toll.is_good()) == (2, 1, 1, False)


@pytest.mark.slow
def test_a_kill_costs_nothing() -> None:
    toll = kill.killed(2, backend="scripted", strategy="fine", seed=0)
    assert toll.kills == 2
    assert toll.is_good(), toll


def bench(*arguments: str, largest_file: int | None = None) -> tuple[int, list[str]]:
    """Run the command; returns its exit status, and what it said of itself."""
    done = subprocess.run(
        [*limited_files(largest_file), "-m", "bench", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()


def test_a_command_on_a_full_disk_keeps_what_it_has_and_can_be_resumed(tmp_path: Path) -> None:
    """The limit on the size of a file stands for the disk's; names need not be ASCII either."""
    folder, preset = tmp_path / "L\u00e4ufe \u91cf", tmp_path / "\u00fcber.toml"
    preset.write_text(PRESET)
    options = ("--preset", str(preset), "--strategy", "fine,fine-too", "--blocks", "3")

    status, said = bench("run", "--out", str(folder), *options, largest_file=20_000)
    assert status == 1
    (error,) = (line for line in said if line.startswith("bench: error:"))
    kept = read_run(folder)
    records = len(kept.records)
    assert error.endswith(
        f"{folder}: cannot be written (File too large); {records} records are kept"
    )
    assert records
    assert kept.faults == []
    assert not (folder / "scratch").exists()
    status, said = bench("run", "--resume", str(folder))
    assert (status, [line for line in said if "error" in line]) == (0, [])
    result = read_run(folder)
    assert missing(run.sweep_of(result.manifest), result) == []
    before = [(record.job, record.block, record.samples) for record in kept.records]
    assert [(r.job, r.block, r.samples) for r in result.records][:records] == before


def test_a_worker_of_a_source_that_was_closed_is_gone_with_it(tmp_path: Path) -> None:
    """As where the second worker of a source cannot be started."""
    with (
        team_of(tmp_path, "scripted", start="spawn") as workers,
        workers.worker("scripted") as first,
    ):
        workers.sources["scripted", 1].close()
        with pytest.raises(ServerDied):
            first.request({"op": "describe"}, limit_s=10)


def test_flags_of_the_callers_are_kept_beside_the_backends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_of_the_callers=1")
    monkeypatch.setenv("PJRT_NPROC", "7")
    with (tmp_path / "log").open("wb") as log:
        setup = sources.Setup(backend="jax", threads=1, cpus=[0], log=log, python="python")
        variables = setup._environment()
    assert variables["XLA_FLAGS"].startswith("--xla_of_the_callers=1 --xla_cpu")
    assert variables["PJRT_NPROC"] == "1"
    monkeypatch.setenv("XLA_FLAGS", "a-file-of-flags")  # to which none can be added
    assert setup._environment()["XLA_FLAGS"].startswith("--xla_cpu")
