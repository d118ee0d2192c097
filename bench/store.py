"""A run's folder: `manifest.json`, and records, one JSON line each, in a file that only grows.

A line is `{"crc32": ..., "record": {...}}`, written whole and fsynced, so that a run that was cut
off keeps every line but perhaps the last. Reading sets torn, foreign and doubled lines aside and
says so; it never fails on them and never executes anything.
"""

from __future__ import annotations

import errno
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from bench import durable, lock, older, strict
from bench.errors import StoreError, UsageError
from bench.record import Job, Record

#: Version of records.jsonl and manifest.json. Earlier ones stay readable; later ones are refused.
#: 1: first.
#: 2: `Job.replica`; what is not finite is a word ("NaN", "Infinity", "-Infinity"), no bare token.
#: 3: `Record.attempt`; a worker for each arm, a sample for each burst of calls.
SCHEMA = 3

#: More lines than this that are set aside are counted instead of named.
MAX_FAULTS = 20


def line_of(record: Mapping[str, Any]) -> bytes:
    """A record, as `Record.to_json` gives it, as the line that stands in the file."""
    body = strict.dumps(record, sort_keys=True)
    return f'{{"crc32": {zlib.crc32(body.encode())}, "record": {body}}}\n'.encode()


#: What stands before a record in a line as `line_of` writes it.
_HEAD = re.compile(rb'\{"crc32": (\d{1,10}), "record": ')


def _parse(line: bytes, jobs: dict[str, Job]) -> Record:
    """A record from its line. `jobs` are those that were read before."""
    head = _HEAD.match(line)
    body = line[head.end() : -len(_TAIL)] if head and line.endswith(_TAIL) else b""
    if head and zlib.crc32(body) == int(head[1]):
        return Record.from_json(strict.loads(body), jobs)
    # The line is not as it was written, or somebody else wrote it: its sum may still be right.
    data = strict.mapping(strict.loads(line), "the line")
    record = data.get("record")
    # Not in the strict form: lines of schema 1 have bare tokens, and have their sums over them.
    if data.get("crc32") != zlib.crc32(json.dumps(record, sort_keys=True).encode()):
        raise ValueError("checksum does not match")
    return Record.from_json(record, jobs)


#: What stands after it.
_TAIL = b"}\n"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as it was read: its manifest, its records, and what could not be read."""

    folder: Path
    manifest: Mapping[str, Any]
    records: list[Record]
    faults: list[str]

    @property
    def protocol(self) -> Protocol:
        return protocol_of(self.manifest)


#: How the arms of a block took turns: in bursts, each in a process of its own, or, up to schema 2,
#: call by call in one process of a framework.
Protocol = Literal["bursts", "calls"]


def protocol_of(manifest: Mapping[str, Any]) -> Protocol:
    """The protocol by which the steady samples of a run were taken."""
    schema = manifest.get("schema")
    return "calls" if isinstance(schema, int) and schema < 3 else "bursts"


def mapping_in(manifest: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a manifest by name; empty where it is not there, or is something else."""
    value = manifest.get(name)
    return value if isinstance(value, Mapping) else {}


MANIFEST = "manifest.json"


class Store:
    """A run's folder while it is written: `manifest.json`, then `records.jsonl` line by line.

    Nobody else can write into it until `close`, or until this process ends. What the host does not
    let be written raises `StoreError`, and leaves no half of it.
    """

    def __init__(self, folder: Path, held: lock.Lock) -> None:
        self.folder = folder
        self._records = folder / "records.jsonl"
        self._lock: lock.Lock | None = held
        self._kept = 0

    @classmethod
    def create(cls, folder: Path, manifest: Mapping[str, Any]) -> Store:
        """Start a run in a folder that holds none.

        Raises `UsageError` where it holds anything, or where another process writes.
        """
        check_new(folder)
        with _writing(folder, kept=0):
            folder.mkdir(parents=True, exist_ok=True)
            store = cls(folder, lock.Lock.take(folder))
        try:
            _check_empty(folder)  # again: another run may have come and gone
            with _writing(folder, kept=0):
                store._records.touch(exist_ok=False)
            try:
                store.write_manifest(manifest)
            except BaseException:
                store._records.unlink()
                raise
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def resume(cls, folder: Path) -> Store:
        """Go on with a run that is there. What it holds is for `read_run` to say, from now on.

        A line that was cut off is ended, so that nothing is glued to it: it stays a fault. Raises
        `UsageError` where there is no readable run, or where another process writes.
        """
        kept = len(read_run(folder).records)
        with _writing(folder, kept=kept):
            store = cls(folder, lock.Lock.take(folder))
        try:
            store._kept = len(read_run(folder).records)
            with _writing(folder, kept=store._kept):
                durable.end_line(store._records)
        except BaseException:
            store.close()
            raise
        return store

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest whole or not at all."""
        text = strict.dumps({"schema": SCHEMA} | dict(manifest) | {"schema": SCHEMA}, indent=1)
        with _writing(self.folder, kept=self._kept):
            durable.replace(self.folder / MANIFEST, text + "\n")

    def append(self, record: Record) -> None:
        """Add a record; on return it is on the disk."""
        self.extend([record])

    def extend(self, records: Sequence[Record]) -> None:
        """Add records in one write; on return they are on the disk."""
        if self._lock is None:
            raise RuntimeError(f"{self.folder}: the store is closed")
        lines = b"".join(line_of(record.to_json()) for record in records)
        with _writing(self.folder, kept=self._kept):
            durable.append(self._records, lines)
        self._kept += len(records)

    def close(self) -> None:
        """Let others write. A second time does nothing."""
        if self._lock is not None:
            held, self._lock = self._lock, None
            held.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _writing(folder: Path, *, kept: int) -> Iterator[None]:
    """Failures of the host in the body as the one line that they are."""
    try:
        yield
    except OSError as error:
        records = "1 record is" if kept == 1 else f"{kept} records are"
        reason = error.strerror or str(error)
        raise StoreError(f"{folder}: cannot be written ({reason}); {records} kept") from error


def check_new(folder: Path) -> None:
    """Raise `UsageError` unless a run can start in this folder. Leaves nothing there."""
    try:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"output folder {folder}: is a file")
        parent = folder
        while not parent.exists():
            parent = parent.parent
        if not parent.is_dir():
            raise UsageError(f"output folder {folder}: {parent} is a file")
        lock.check_unlocked(folder)
        if folder.is_dir():
            _check_empty(folder)
        if not os.access(parent, os.W_OK | os.X_OK):
            raise UsageError(f"output folder {folder}: {parent} cannot be written to")
    except OSError as error:
        raise UsageError(f"output folder {folder}: {error.strerror}") from error


def _check_empty(folder: Path) -> None:
    """Raise `UsageError` where a folder holds more than a lock, which may be one left behind."""
    if any(path.name != lock.NAME for path in folder.iterdir()):
        what = "another run" if (folder / MANIFEST).exists() else "other files"
        raise UsageError(f"output folder {folder}: holds {what}; name a new or an empty folder")


def read_run(folder: Path) -> Run:
    """Read a run. Raises `UsageError` where the folder holds none or one of a later schema."""
    manifest = _read_manifest(folder)
    records: dict[tuple[str, int, int], Record] = {}
    faults: list[str] = []
    calls = protocol_of(manifest) == "calls"
    earlier = older.Older(threads=older.threads_of(manifest), palindromes=calls)
    jobs: dict[str, Job] = {}
    try:
        with _regular(folder / "records.jsonl").open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    _take(earlier.upgraded(_parse(line, jobs)), records)
                except ValueError as error:
                    faults.append(f"records.jsonl line {number}: set aside ({error!s:.200})")
    except OSError as error:
        raise UsageError(f"run {folder}: no readable records.jsonl ({error.strerror})") from error
    more = len(faults) - MAX_FAULTS
    if more > 0:
        faults[MAX_FAULTS:] = [f"records.jsonl: {more} more lines set aside"]
    manifest = older.with_threads(manifest)
    return Run(folder=folder, manifest=manifest, records=list(records.values()), faults=faults)


def runs_in(folder: Path) -> list[Path]:
    """The run in a folder, or those in its sub-folders, by name.

    Raises `UsageError` where there is none.
    """
    if (folder / MANIFEST).exists():
        return [folder]
    try:
        found = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    except OSError as error:
        raise UsageError(f"folder {folder}: {error.strerror}") from error
    if not found:
        what = "holds no run" if folder.is_dir() else "no such folder"
        raise UsageError(f"run {folder}: {what}")
    return found


def read_all(folders: Iterable[Path]) -> list[Run]:
    """Every run of these folders, each once. Raises `UsageError` for one that cannot be read."""
    paths = {path.resolve(): path for folder in folders for path in runs_in(folder)}
    return [read_run(path) for path in paths.values()]


def _take(record: Record, records: dict[tuple[str, int, int], Record]) -> None:
    """Put a record among those that were read. Raises `ValueError` where its job has one."""
    key = (record.job.key, *record.pairing)
    if key in records:
        raise ValueError(f"job {key[0]} a second time in block {key[1]}")
    records[key] = record


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        path = _regular(folder / MANIFEST)
        manifest = strict.mapping(strict.loads(path.read_bytes()), "it")
        schema = strict.whole(manifest.get("schema"), "schema", least=1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"run {folder}: no readable manifest.json ({reason})") from error
    if schema > SCHEMA:
        raise UsageError(
            f"run {folder}: written with schema {schema}, this version reads up to {SCHEMA}"
        )
    return manifest


def _regular(path: Path) -> Path:
    """The path of a file. Raises `OSError` for what would block or never end when it is read."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is not a file")
    return path
