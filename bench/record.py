"""What a job leaves: records, one JSON line each, in a file that only grows.

A line is `{"crc32": ..., "record": {...}}`, written whole and fsynced, so that a run that was cut
off keeps every line but perhaps the last. Reading sets torn, foreign and doubled lines aside and
says so; it never fails on them and never executes anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from backends.api import Case, Mode
from bench.errors import UsageError

#: Version of records.jsonl and manifest.json. Earlier ones stay readable; later ones are refused.
#: 1: first.
SCHEMA = 1

Measure = Literal["steady", "cold", "memory"]
MEASURES: tuple[Measure, ...] = ("steady", "cold", "memory")


class Status(StrEnum):
    """How a job ended. Every job ends as exactly one of these."""

    OK = "ok"
    WRONG_OUTPUT = "wrong output"
    NAN = "nan"
    OOM = "oom"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    UNSUPPORTED = "unsupported"
    UNAVAILABLE = "unavailable"
    CAPPED = "capped"
    INTERRUPTED = "interrupted"


#: Ends that were decided before the run and are no failure.
EXPECTED = frozenset({Status.OK, Status.UNSUPPORTED, Status.UNAVAILABLE, Status.CAPPED})


@dataclass(frozen=True, kw_only=True)
class Job:
    """One implementation of one case in one mode, measured in one way."""

    implementation: str
    case: Case
    mode: Mode
    measure: Measure

    @property
    def key(self) -> str:
        """A hash of everything that the job is; equal jobs of different runs have equal keys."""
        canonical = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one job left of one block.

    `samples` holds raw seconds by phase: "create", "build", "load", "first" (one value each),
    "steady" (consecutive pairs belong to one palindrome, see `bench.measure`), and "stage:<name>"
    for the named parts of a build. A steady sample is the time of `inner` calls divided by
    `inner`. `values` holds bytes and counts, `errors` the largest absolute and relative error
    against the oracle by part.
    """

    job: Job
    block: int
    status: Status
    reason: str = ""
    samples: Mapping[str, list[float]] = field(default_factory=dict)
    inner: int = 1
    values: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    worker: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"key": self.job.key, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Rebuild a record. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
        job = dict(data["job"])
        known = {f.name for f in fields(cls)}
        rest = {k: v for k, v in data.items() if k in known - {"job", "status"}}
        return cls(
            job=Job(**{**job, "case": Case(**job["case"])}), status=Status(data["status"]), **rest
        )


def _line(record: Record) -> bytes:
    body = json.dumps(record.to_json(), sort_keys=True)
    return f'{{"crc32": {zlib.crc32(body.encode())}, "record": {body}}}\n'.encode()


def _parse(line: bytes) -> Record:
    data = json.loads(line)
    body = json.dumps(data["record"], sort_keys=True)
    if zlib.crc32(body.encode()) != data["crc32"]:
        raise ValueError("checksum does not match")
    return Record.from_json(data["record"])


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as it was read: its manifest, its records, and what could not be read."""

    folder: Path
    manifest: Mapping[str, Any]
    records: list[Record]
    faults: list[str]


class Store:
    """A run's folder while it is written: `manifest.json`, then `records.jsonl` line by line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records = folder / "records.jsonl"

    @classmethod
    def create(cls, folder: Path, manifest: Mapping[str, Any]) -> Store:
        """Start a run in a folder that holds none. Raises `UsageError` where it holds anything."""
        check_new(folder)
        folder.mkdir(parents=True, exist_ok=True)
        store = cls(folder)
        store.write_manifest(manifest)
        store._records.touch(exist_ok=False)
        return store

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest whole or not at all."""
        temporary = self.folder / "manifest.json.part"
        temporary.write_text(json.dumps({"schema": SCHEMA, **manifest}, indent=1) + "\n")
        temporary.replace(self.folder / "manifest.json")

    def append(self, record: Record) -> None:
        """Add a record; on return it is on the disk."""
        with self._records.open("ab") as file:
            file.write(_line(record))
            file.flush()
            os.fsync(file.fileno())


def check_new(folder: Path) -> None:
    """Raise `UsageError` unless a run can start in this folder."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"output folder {folder}: is a file")
    if folder.is_dir() and any(folder.iterdir()):
        what = "another run" if (folder / "manifest.json").exists() else "other files"
        raise UsageError(f"output folder {folder}: holds {what}; name a new or an empty folder")
    parent = folder
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise UsageError(f"output folder {folder}: {parent} is a file")
    if not os.access(parent, os.W_OK):
        raise UsageError(f"output folder {folder}: {parent} cannot be written to")


def read_run(folder: Path) -> Run:
    """Read a run. Raises `UsageError` where the folder holds none or one of a later schema."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        schema = int(manifest["schema"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"run {folder}: no readable manifest.json ({error})") from error
    if schema > SCHEMA:
        raise UsageError(
            f"run {folder}: written with schema {schema}, this version reads up to {SCHEMA}"
        )
    try:
        lines = (folder / "records.jsonl").read_bytes().splitlines()
    except OSError as error:
        raise UsageError(f"run {folder}: no readable records.jsonl ({error.strerror})") from error
    records: dict[tuple[str, int], Record] = {}
    faults: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = _parse(line)
        except (ValueError, KeyError, TypeError) as error:
            faults.append(
                f"records.jsonl line {number}: set aside ({type(error).__name__}: {error})"
            )
            continue
        key = (record.job.key, record.block)
        if key in records:
            faults.append(f"records.jsonl line {number}: set aside (job {key[0]} a second time)")
            continue
        records[key] = record
    return Run(folder=folder, manifest=manifest, records=list(records.values()), faults=faults)


def to_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row a record: the case's fields, the job's, the outcome, samples as lists of seconds."""
    rows = [
        {
            "implementation": record.job.implementation,
            "backend": record.job.implementation.split("/")[0],
            "strategy": record.job.implementation.split("/")[1],
            **asdict(record.job.case),
            "mode": record.job.mode,
            "measure": record.job.measure,
            "block": record.block,
            "status": str(record.status),
            "reason": record.reason,
            "inner": record.inner,
            **{f"{phase}_s": values for phase, values in record.samples.items()},
            **record.values,
            **{
                f"{part}_{kind}_error": value
                for part, error in record.errors.items()
                for kind, value in error.items()
            },
        }
        for record in records
    ]
    return pd.DataFrame(rows)
