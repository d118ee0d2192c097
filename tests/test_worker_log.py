"""The file that workers print to does not grow without bound, and says what it lacks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench import worker_log
from bench.launch import Team
from bench.worker_log import END_BYTES, LARGEST_BYTES, shorten


def test_a_file_of_the_size_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * LARGEST_BYTES)
    shorten(path)
    assert path.read_bytes() == b"x" * LARGEST_BYTES
    shorten(tmp_path / "nowhere")


def test_the_ends_stay_and_the_count_is_of_all_cuts(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"first" + b"x" * LARGEST_BYTES + b"last")
    with path.open("ab", buffering=0) as writer:
        shorten(path)
        cut = LARGEST_BYTES + 9 - 2 * END_BYTES
        text = path.read_bytes()
        assert text.startswith(b"firstx")
        assert text.endswith(b"xlast")
        assert text[END_BYTES:-END_BYTES] == b"\n[bench: %d bytes cut here]\n" % cut
        writer.write(b"y" * LARGEST_BYTES)
        shorten(path)
    text = path.read_bytes()
    cut += LARGEST_BYTES
    assert text.startswith(b"firstx")
    assert text.endswith(b"yy")
    assert text[END_BYTES:-END_BYTES] == b"\n[bench: %d bytes cut here]\n" % cut


@pytest.mark.usefixtures("scripted_backend")
def test_a_log_is_shortened_before_each_worker_and_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_log, "LARGEST_BYTES", 1000)
    monkeypatch.setattr(worker_log, "END_BYTES", 100)
    log, cpus = tmp_path / "log", [min(os.sched_getaffinity(0))]
    with Team(["scripted"], cpus=cpus, start="spawn", log=log, scratch=tmp_path) as team:
        sizes = []
        for _ in range(2):
            with log.open("ab") as writer:
                writer.write(b"noise" * 1000)
            with team.worker("scripted"):
                sizes.append(log.stat().st_size)
        with log.open("ab") as writer:
            writer.write(b"noise" * 1000)
    assert max(*sizes, log.stat().st_size) < 1000
    assert log.read_bytes().count(b"cut here") == 1
