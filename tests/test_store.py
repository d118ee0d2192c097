"""A run's folder while it is written: one writer, nothing torn, nothing lost on a full disk."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from bench import lock
from bench.errors import StoreError, UsageError
from bench.store import SCHEMA, Store, check_new, line_of, read_run
from tests.test_record import RECORD, written

ROOT = Path(__file__).parent.parent


def test_a_folder_that_holds_anything_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        written(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    written(tmp_path / "run")
    with pytest.raises(UsageError, match="holds another run"):
        written(tmp_path / "run")


def test_a_file_in_the_way_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UsageError, match="is a file"):
            written(folder)


def test_two_writers_of_one_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Store.create(folder, {}) as store:
        store.append(RECORD)
        for start in (lambda: Store.create(folder, {}), lambda: Store.resume(folder)):
            with pytest.raises(
                UsageError, match=rf"written by another process \(pid {os.getpid()}"
            ):
                start()
        with pytest.raises(UsageError, match="written by another process"):
            check_new(folder)
        store.append(replace(RECORD, block=1))
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "records.jsonl"}
    with Store.resume(folder) as store:
        store.append(replace(RECORD, block=2))
    run = read_run(folder)
    assert [record.block for record in run.records] == [0, 1, 2]
    assert run.faults == []


def test_a_closed_store_takes_no_record(tmp_path: Path) -> None:
    with Store.create(tmp_path / "run", {}) as store:
        pass
    store.close()
    with pytest.raises(RuntimeError, match="closed"):
        store.append(RECORD)


def test_of_writers_that_start_at_once_one_wins(tmp_path: Path) -> None:
    """Also where one has just ended and removed the lock that others were about to take."""
    for attempt in range(20):
        folder, barrier = tmp_path / f"run-{attempt}", threading.Barrier(4)
        won: list[Store] = []
        refused: list[UsageError] = []

        def start(
            folder: Path = folder,
            barrier: threading.Barrier = barrier,
            won: list[Store] = won,
            refused: list[UsageError] = refused,
        ) -> None:
            barrier.wait()
            try:
                won.append(Store.create(folder, {}))
            except UsageError as error:
                refused.append(error)

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert len(refused) == 3
        won[0].append(RECORD)
        won[0].close()
        assert read_run(folder).records == [RECORD]


def test_a_lock_that_was_removed_before_it_was_taken_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening the file and locking it its holder may go, and another one come."""
    first = lock.Lock.take(tmp_path)
    others: list[lock.Lock] = []
    flock = fcntl.flock

    def slow(descriptor: int, kind: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        first.release()
        others.append(lock.Lock.take(tmp_path))
        flock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", slow)
    with pytest.raises(UsageError, match="written by another process"):
        lock.Lock.take(tmp_path)
    (other,) = others
    other.release()
    assert list(tmp_path.iterdir()) == []


def _python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, with what this file imports."""
    head = "from tests.test_store import *\n"
    return subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(code), *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_writer_that_was_killed_blocks_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    killed = _python(
        """
        store = Store.create(Path(sys.argv[1]), {})
        store.append(RECORD)
        os.kill(os.getpid(), 9)
        """,
        folder,
    )
    assert killed.returncode == -9, killed.stderr
    assert (folder / "lock").exists()
    with Store.resume(folder) as store:
        store.append(replace(RECORD, block=1))
    assert [record.block for record in read_run(folder).records] == [0, 1]


def test_a_lock_that_was_left_behind_is_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("123456\n")
    check_new(tmp_path)
    written(tmp_path, RECORD)
    assert not (tmp_path / "lock").exists()


def test_a_file_that_is_called_lock_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("a letter to somebody, and no process id\n")
    with pytest.raises(UsageError, match="is not the lock of a run"):
        Store.create(tmp_path, {})
    assert "letter" in (tmp_path / "lock").read_text()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("1")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").symlink_to(tmp_path / "mine")
    with pytest.raises(StoreError):
        Store.create(tmp_path / "run", {})
    assert (tmp_path / "mine").read_text() == "1"


def test_a_record_that_is_cut_off_anywhere_costs_that_record_only(tmp_path: Path) -> None:
    """Also where the next one is written after it."""
    folder = tmp_path / "run"
    written(folder, *(replace(RECORD, block=block) for block in range(2)))
    path = folder / "records.jsonl"
    whole = path.read_bytes()
    last = whole.index(b"\n") + 1
    for end in range(last, len(whole) + 1):
        path.write_bytes(whole[:end])
        torn = end not in (last, len(whole) - 1, len(whole))
        with Store.resume(folder) as store:
            store.append(replace(RECORD, block=2))
        run = read_run(folder)
        kept = [0, 2] if torn or end == last else [0, 1, 2]
        assert [record.block for record in run.records] == kept
        assert len(run.faults) == torn
        if torn:
            assert "line 2: set aside" in run.faults[0]


def test_what_was_cut_off_can_be_measured_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    written(folder, RECORD)
    path = folder / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    with Store.resume(folder) as store:
        store.append(RECORD)
    run = read_run(folder)
    assert run.records == [RECORD]
    assert len(run.faults) == 1


@pytest.mark.parametrize("damage", ["no manifest", "no records", "a later schema"])
def test_what_is_no_run_is_not_resumed(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    written(folder, RECORD)
    if damage == "a later schema":
        (folder / "manifest.json").write_text(json.dumps({"schema": SCHEMA + 1}))
    else:
        (folder / f"{damage.split()[1]}.json").unlink(missing_ok=True)
        (folder / f"{damage.split()[1]}.jsonl").unlink(missing_ok=True)
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(UsageError):
        Store.resume(folder)
    assert {path.name for path in folder.iterdir()} == before


def test_a_full_disk_loses_one_record_and_leaves_no_half_of_it(tmp_path: Path) -> None:
    """The limit on the size of a file ends a write within a line, as a full disk does."""
    folder = tmp_path / "run"
    size = len(line_of(RECORD.to_json()))
    done = _python(
        """
        import resource
        store = Store.create(Path(sys.argv[1]), {"id": "x"})
        limit = int(sys.argv[2])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        block = 0
        while True:
            try:
                store.append(replace(RECORD, block=block))
            except StoreError as error:
                print(error)
                break
            block += 1
        try:
            store.write_manifest({"id": "x" * limit})
        except StoreError as error:
            print(error)
        store.close()
        """,
        folder,
        5 * size // 2,
    )
    assert done.stderr == ""
    said = f"{folder}: cannot be written (File too large); 2 records are kept\n"
    assert done.stdout == 2 * said
    run = read_run(folder)
    assert [record.block for record in run.records] == [0, 1]
    assert run.faults == []
    assert run.manifest["id"] == "x"
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "records.jsonl"}


def test_a_run_that_cannot_begin_leaves_the_folder_free(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = _python(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        try:
            Store.create(Path(sys.argv[1]), {"id": "x" * 200})
        except StoreError as error:
            print(error)
        """,
        folder,
    )
    assert done.stdout == f"{folder}: cannot be written (File too large); 0 records are kept\n"
    check_new(folder)
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write anywhere, so that permissions alone would show nothing here."""
    asked: list[Path] = []

    def access(path: Path, mode: int) -> bool:
        assert mode & os.W_OK
        asked.append(path)
        return False

    monkeypatch.setattr(os, "access", access)
    for folder in (tmp_path, tmp_path / "new" / "folder"):
        with pytest.raises(UsageError, match="cannot be written to"):
            check_new(folder)
    assert asked == [tmp_path, tmp_path]


def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="File name too long"):
        check_new(tmp_path / ("x" * 300))
