"""Peaks of arithmetic and of memory, of this host or of a GPU of it: worker side.

What a call needs at least (`bench.plausible`) over these rates is less time than any call takes.
They are measured, as the limit of each case is: the best of many tries, since whatever else a host
does makes a try slower and none faster.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from threadpoolctl import threadpool_limits

from backends import IMPLEMENTATIONS, refusal
from backends.api import Backend, Case, Dtype, Runner, Tf32, Unavailable
from backends.devices import is_gpu
from backends.products import flops
from bench import strict
from bench.measure import Clock, clock

#: Sides of the square matrices that are multiplied. A library has its best at different ones; a
#: GPU is filled by large ones alone.
SIDES, SIDES_ON_GPU = (128, 192, 256, 384, 512), (1024, 2048, 4096)

#: Tries of one product go on for so long [s], and of one way to read a working set.
PRODUCT_S, READING_S = 25e-3, 4e-3

#: A library whose product takes longer than this [s] is not asked for a larger one.
LONG_S = 15e-3

#: Tries are at least so many.
FEWEST_TRIES = 2

#: Working sets [bytes] over which memory is read: from the first level of a cache to none.
WORKING_SETS = tuple(16 * 1024 * 4**n for n in range(8))

#: A small working set is read again and again in one call, until it has moved so many bytes: what a
#: call of NumPy costs by itself is then a small part of it.
MOVED_BYTES = 1 << 20

#: Nobody has more working sets than these, and no host comes near to this rate [1/s].
MOST_WORKING_SETS, LARGEST_RATE = 64, 1e24


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Largest rates of a device.

    `flops_per_s` is of matrix products in one dtype; None where nothing here can tell.
    `bandwidth` has pairs of a working set [bytes] and the bytes/s that are read or written while no
    more than it is touched, by working set; empty where nothing can tell.
    """

    flops_per_s: float | None
    bandwidth: tuple[tuple[int, float], ...] = ()

    def scaled(self, threads: int) -> Peaks:
        """The peaks of so many threads, where these are the peaks of one.

        Each computes as fast as one does alone, and has caches of its own, as if all of memory
        were: hosts have less, as clocks fall and memory is shared.
        """
        return Peaks(
            flops_per_s=None if self.flops_per_s is None else threads * self.flops_per_s,
            bandwidth=tuple((threads * size, threads * rate) for size, rate in self.bandwidth),
        )

    def to_json(self) -> dict[str, Any]:
        """The peaks as they stand in a manifest."""
        bandwidth = [[size, rate] for size, rate in self.bandwidth]
        return {"flops_per_s": self.flops_per_s, "bandwidth": bandwidth}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Peaks as `to_json` wrote them. Raises `ValueError` for anything else."""
        given = strict.mapping(data, "peaks")
        if set(given) != {"flops_per_s", "bandwidth"}:
            raise strict.refused("peaks", sorted(given), "flops_per_s and bandwidth")
        flops_per_s = given["flops_per_s"]
        if flops_per_s is not None:
            flops_per_s = _rate(flops_per_s, "peaks, flops_per_s")
        pairs = strict.listed(given["bandwidth"], "peaks, bandwidth")
        if len(pairs) > MOST_WORKING_SETS:
            raise strict.refused("peaks, bandwidth", pairs, f"{MOST_WORKING_SETS} pairs or fewer")
        bandwidth = tuple(_pair(pair) for pair in pairs)
        sizes = [size for size, _ in bandwidth]
        if any(size >= larger for size, larger in itertools.pairwise(sizes)):
            raise strict.refused("peaks, bandwidth", sizes, "in ascending order")
        return cls(flops_per_s=flops_per_s, bandwidth=bandwidth)


def _rate(value: object, what: str) -> float:
    rate = float(strict.number(value, what))
    if not 0 < rate <= LARGEST_RATE:  # NaN is not
        raise strict.refused(what, value, f"above 0, and {LARGEST_RATE:g} or less")
    return rate


def _pair(value: object) -> tuple[int, float]:
    what = "peaks, bandwidth"
    pair = strict.listed(value, what)
    if len(pair) != 2:
        raise strict.refused(what, value, "pairs of a working set and a rate")
    return strict.whole(pair[0], what, least=1), _rate(pair[1], what)


def best(*peaks: Peaks) -> Peaks:
    """The larger of each rate, over backends or over tries; of none, no rate."""
    known = [each.flops_per_s for each in peaks if each.flops_per_s is not None]
    bandwidth: dict[int, float] = {}
    for size, rate in sorted(pair for each in peaks for pair in each.bandwidth):
        bandwidth[size] = max(rate, bandwidth.get(size, 0.0))
    return Peaks(flops_per_s=max(known, default=None), bandwidth=tuple(bandwidth.items()))


def measure_peaks(
    backend: Backend, *, device: str, dtype: Dtype, tf32: Tf32, now: Clock = clock
) -> Peaks:
    """The peaks of this process's CPUs or of a GPU: by bare products, and by reading with NumPy.

    `flops_per_s` is None where the backend has no bare products of the dtype on the device. Those
    of a half type are tried in float32 too: a library may have no fast products of the half type,
    and another one convert. Of a GPU `bandwidth` is empty: no interface of the backends copies
    there.

    On several CPUs they are the peaks of one thread, `Peaks.scaled` to so many: NumPy reads with
    one, and products of several wait for each other at every barrier, so that they fall far below
    the peak while another process has one of the CPUs. (MKL keeps its threads though it is told
    not to; its rate is then too high by up to their number, by which less is found implausible.)

    Takes half a second on a CPU, and 270 MB. On a GPU it takes as long as the products take to be
    built. Where nothing can be measured, nothing is raised.
    """
    cpus = 1 if is_gpu(device) else len(os.sched_getaffinity(0))
    case = Case(
        cell="rnn", seq_len=1, batch=1, inputs=1, hidden=1, dtype=dtype, device=device, tf32=tf32
    )
    with threadpool_limits(limits=1) if cpus > 1 else nullcontext():
        rates = list(_products(backend, case, now))
        if rates and dtype in ("bfloat16", "float16"):
            rates += _products(backend, replace(case, dtype="float32"), now)
        bandwidth = () if is_gpu(device) else tuple(_readings(now))
    return Peaks(flops_per_s=max(rates, default=None), bandwidth=bandwidth).scaled(cpus)


def _products(backend: Backend, like: Case, now: Clock) -> Iterator[float]:
    """FLOPs a second of products of each size, from small ones to those that take long."""
    for side in SIDES_ON_GPU if is_gpu(like.device) else SIDES:
        # One step of a vanilla RNN is two products, here of square matrices.
        case = replace(like, batch=side, inputs=side, hidden=side)
        runner = _built(backend, case)
        if runner is None:
            return
        call_s = fastest(_call(runner), seconds=PRODUCT_S, now=now)
        runner.close()
        yield flops(case, "forward") / call_s
        if call_s > LONG_S:
            return


def _call(runner: Runner) -> Callable[[], None]:
    return lambda: runner.sync(runner.forward())


def _built(backend: Backend, case: Case) -> Runner | None:
    """The backend's bare products of a case; None where it has none."""
    for entry in IMPLEMENTATIONS.values():
        ours = entry.backend == backend.name and entry.kind == "limit"
        if ours and refusal(entry.name, case, "forward") is None:
            with suppress(Unavailable):
                return backend.build(case, entry.strategy.name, "forward")
    return None


def _readings(now: Clock) -> Iterator[tuple[int, float]]:
    """Each working set with the bytes/s of one thread over it, of the fastest way to read it."""
    memory = np.empty(WORKING_SETS[-1], np.int8)
    memory.fill(0)  # memory that was never written to is one page, again and again
    for size in WORKING_SETS:
        tries = _ways(memory[:size])
        yield size, max(b / fastest(call, seconds=READING_S, now=now) for call, b in tries)


def _ways(memory: Any) -> list[tuple[Callable[[], object], int]]:
    """Ways to move all of some memory through a CPU, each with the bytes that a call moves.

    Which is the fastest depends on where the memory lies.
    """
    size = memory.nbytes
    times = max(1, MOVED_BYTES // size)
    again = np.broadcast_to(memory, (times, size))
    one, other = memory[: size // 2], memory[size // 2 :]
    floats = one.view(np.float32), other.view(np.float32)
    return [
        (lambda: np.maximum.reduce(again, axis=1), times * size),
        (lambda: np.dot(*floats), size),
        (lambda: np.copyto(one, other), size),
    ]


def fastest(call: Callable[[], object], *, seconds: float, now: Clock = clock) -> float:
    """Seconds of the fastest of the tries that begin within so many seconds; never 0."""
    began_ns, least_ns, tries = now(), math.inf, 0
    while tries < FEWEST_TRIES or now() - began_ns < 1e9 * seconds:
        start_ns = now()
        call()
        least_ns = min(least_ns, now() - start_ns)
        tries += 1
    return max(least_ns, 1) / 1e9
