"""Whether a figure can be of the work: faster than the device computes or reads memory it is not.

Two lower bounds are held against what the device reaches (`bench.peaks`): the FLOPs that nobody can
leave out, and the bytes that must be read or written once at least. Both leave out whatever an
implementation might, whether or not one does, so that no honest figure is called implausible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from backends.api import Case, Mode
from backends.data import make_batch
from backends.spec import BidirectionalGrid, Cell, Grid, TimeFreq, Wrapper
from backends.stack import Layer, layers, output_width, weight_layers
from bench.format import digits
from bench.peaks import Peaks

#: A figure is implausible that is faster than the peak by more than this factor. The fastest calls
#: come to 0.96 of the limit, and to 1.02 by the lowest peaks that a process read
#: (benchmarks/plausible.py). The rest is for peaks that were read too low: by half, while there was
#: a neighbour on the CPU's other hyperthread, or a low clock; or those of a cache nearby, of which
#: NumPy reads half as much as a CPU with two loads a cycle could.
MARGIN = 2.0

#: Of what goes into the gates so much is needed, at the least, where the state is 0: of three or
#: four gates the one that passes state on (f of an LSTM, r of a GRU) then passes nothing.
OF_GATES = Fraction(2, 3)

#: A working set is held against the bandwidth of those from this part of it on: an implementation
#: may keep much of it in a faster cache than one that is read from end to end.
PART = 0.25


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """Steps of all sequences of a batch without padding; those `later` than a sequence's first.

    `zeros` says that the state before the first is 0.
    """

    all: int
    later: int
    zeros: bool

    @property
    def of_inputs(self) -> Fraction:
        """Steps in which products of inputs are needed; those of some gates alone as a part."""
        return self.later + (self.all - self.later) * (OF_GATES if self.zeros else Fraction(1))

    @property
    def of_state(self) -> int:
        """Steps in which products of the state are needed: of a state that is 0, none."""
        return self.later if self.zeros else self.all


@lru_cache(maxsize=1024)
def _steps(case: Case) -> _Steps:
    lengths = None if case.lengths == "full" else make_batch(case).lengths
    known = [case.seq_len] * case.batch if lengths is None else [int(n) for n in lengths if n]
    zeros = case.initial_state == "zeros"
    return _Steps(all=sum(known), later=sum(known) - len(known), zeros=zeros)


@lru_cache(maxsize=1024)
def true_flops(case: Case, mode: Mode) -> float:
    """FLOPs that no implementation of a case can leave out: 2 m k n a product of dense arrays.

    They are `backends.products.flops` without

    - padding;
    - products with a state that is 0: where a case begins at zeros, those of the first step with
      the recurrent weights, forward and for their gradient, and those of its inputs with what is of
      one gate (`OF_GATES`). What is recurrent but not of the state, such as a projection, is not
      told apart from it;
    - in training, the gradient of the state that a case begins at. (That of the first layer's
      inputs is not in the formula either.) All other gradients are needed: of every weight, and of
      every layer's state and inputs;
    - the first window of each chain of a frequency cell: nothing comes along frequency there, and
      shifted windows may hold zeros alone;
    - what wrappers add: attention's matrices could be multiplied into those of the cell.

    Counted are zeros that only the values tell, such as a relu's or a mask's: products of dense
    arrays do them. So are all of a product, where algorithms with fewer multiplications (Strassen
    1969) save an eighth for each level.
    """
    steps = _steps(case)
    total = Fraction(0)
    for layer in layers(case):
        plain = _plain(layer)
        for p in plain.cell.products(plain.inputs, plain.hidden):
            flops = 2 * p.k * p.n * (p.times - _chains(plain.cell, plain.inputs))
            if p.hoisted:
                # In training the gradients of W and, above the first layer, of the inputs.
                count = 1 if mode == "forward" else 2 + (layer.depth > 0)
                total += flops * count * steps.of_inputs
            elif mode == "forward":
                total += flops * steps.of_state
            else:
                total += flops * (2 * steps.of_state + steps.later)
    return float(total)


def _plain(layer: Layer) -> Layer:
    """The layer inside of all wrappers."""
    while isinstance(layer.cell, Wrapper):
        layer = layer.inner()
    return layer


def _chains(cell: Cell, inputs: int) -> int:
    """Rows of windows along which a frequency cell goes, in one step; 0 of any other cell."""
    match cell:
        case TimeFreq():
            return 1
        case Grid():
            return len(cell.windows(inputs))
        case BidirectionalGrid():
            return 2 * len(cell.grid.windows(inputs))
        case _:
            return 0


def least_bytes(case: Case, mode: Mode) -> float:
    """Bytes that a call must read or write once at least.

    The weights, in training read and written; the inputs; the outputs, or in training the targets.
    Neither padding counts nor masks, biases and other vectors of weights, weights that nothing but
    zeros is multiplied by, weights of wrappers, features beyond the windows of a frequency cell.
    """
    size = np.dtype(case.dtype).itemsize
    weights, data = _weights(case), _data(case)
    return size * float((2 if mode == "train" else 1) * weights + data)


def working_set(case: Case) -> float:
    """Bytes that a call touches at least: those of `least_bytes`, the weights once."""
    return np.dtype(case.dtype).itemsize * float(_weights(case) + _data(case))


@lru_cache(maxsize=1024)
def _weights(case: Case) -> Fraction:
    """Weights that a call needs; of those of inputs a part, where it is of one step from zeros."""
    steps = _steps(case)
    total = Fraction(0)
    for layer in weight_layers(case):
        plain = _plain(layer)
        for p in plain.cell.products(plain.inputs, plain.hidden):
            if p.times > _chains(plain.cell, plain.inputs):
                share = 1 if steps.of_state else OF_GATES * p.hoisted
                total += p.k * p.n * share
    return total


def _data(case: Case) -> Fraction:
    """Numbers of the inputs, and as many as the outputs have."""
    first = _plain(layers(case)[0])
    # Windows, which are a quarter of the inputs, or of a part of them, may leave a rest.
    features = Fraction(case.inputs, 2 if _chains(first.cell, first.inputs) else 1)
    return _steps(case).all * (features + output_width(case))


def reached(peaks: Peaks, size: float) -> float | None:
    """Bytes/s that an implementation may reach over a working set of so many bytes.

    The best of those measured over `PART` of it or more. None where none was measured, and for less
    than the smallest measured: that may stay in registers.
    """
    if not peaks.bandwidth or size < peaks.bandwidth[0][0]:
        return None
    least = min(PART * size, peaks.bandwidth[-1][0])
    return max(rate for measured, rate in peaks.bandwidth if measured >= least)


def least_seconds(case: Case, mode: Mode, peaks: Peaks) -> float:
    """Seconds that a call takes at the least, by these peaks; 0 where they tell nothing."""
    rate = reached(peaks, working_set(case))
    return max(
        true_flops(case, mode) / peaks.flops_per_s if peaks.flops_per_s is not None else 0.0,
        least_bytes(case, mode) / rate if rate is not None else 0.0,
    )


def check(case: Case, mode: Mode, call_s: float, peaks: Peaks) -> str | None:
    """Reason why a figure cannot be of the case's work, with both rates; None if it can.

    `call_s` are seconds a call; of NaN, which no clock reads, nothing is said here. Not for kinds
    that are no networks (`bench.axes.RIDING`), which may do more or less than a case.
    """
    if math.isnan(call_s):
        return None
    if call_s <= 0:
        return f"{call_s:g} s a call: nothing takes no time"
    said = f"{digits(1e3 * call_s)} ms a call"
    flops, peak = true_flops(case, mode), peaks.flops_per_s
    if peak is not None and flops > MARGIN * peak * call_s:
        kind = case.dtype + (" with TF32" if case.tf32 == "on" else "")
        return f"{said}: {_versus(flops / call_s, 'GFLOP/s', peak)} in {kind} ({_MARGIN})"
    moved, size = least_bytes(case, mode), working_set(case)
    rate = reached(peaks, size)
    if rate is not None and moved > MARGIN * rate * call_s:
        at = f"at {digits(size / 1e6)} MB"
        return f"{said}: {_versus(moved / call_s, 'GB/s', rate)} {at} ({_MARGIN})"
    return None


def _versus(found: float, unit: str, peak: float) -> str:
    """Two rates in words; the unit is of 1e9."""
    return f"{digits(found / 1e9)} {unit}, where this host reaches {digits(peak / 1e9)}"


_MARGIN = f"margin {MARGIN:g}"
