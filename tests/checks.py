"""What every implementation must satisfy, as functions: each raises `AssertionError` if it doesn't.

They take a function that builds runners, so that the same check judges the registry's
implementations and the faulty ones of `tests.faulty`, which it must reject.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from backends.api import Array, Batch, Case, Mode, Output, Runner, Weights
from backends.data import make_batch
from backends.reference.network import expected
from bench.outputs import (
    check_forward,
    check_train,
    other_dtype,
    other_weights_dtype,
    probe_gradients,
    probe_rotated,
    tolerance,
)
from tests.support import data

Build = Callable[[Case, Mode], Runner]
Check = Callable[[Build, Case], None]

#: Calls of each length in `work_grows_with_time`.
CALLS = 15


@contextmanager
def ready(build: Build, case: Case, mode: Mode, weights: Weights, batch: Batch) -> Iterator[Runner]:
    """A runner with weights and a batch, closed at the end."""
    runner = build(case, mode)
    try:
        runner.load(weights)
        runner.bind(batch)
        yield runner
    finally:
        runner.close()


def forward_is_the_oracles(build: Build, case: Case) -> None:
    weights, batch = data(case)
    with ready(build, case, "forward", weights, batch) as runner:
        _assert_forward(case, _call(runner), weights, batch)


def training_is_the_oracles(build: Build, case: Case) -> None:
    """Loss and gradients, by what one step of the compiled program does to the weights."""
    weights, batch = data(case)
    with ready(build, case, "train", weights, batch) as runner:
        _assert_gradients(case, runner, weights, batch, expected_of=batch)


def fetch_survives_rebind(build: Build, case: Case) -> None:
    """Forward on A, then bind and load B: the handle still holds the results on A."""
    weights, batch = data(case)
    other_weights, other_batch = data(replace(case, seed=case.seed + 1))
    with ready(build, case, "forward", weights, batch) as runner:
        out = runner.forward()
        runner.bind(other_batch)
        runner.load(other_weights)
        runner.sync(out)
        _assert_forward(case, runner.fetch(out), weights, batch)


def nothing_is_constant(build: Build, case: Case) -> None:
    """Weights, inputs, lengths and initial state that come after a first call count in the next."""
    weights, batch = data(case)
    other_weights, other_batch = data(replace(case, seed=case.seed + 1))
    with ready(build, case, "forward", weights, batch) as runner:
        _call(runner)
        runner.load(other_weights)
        _assert_forward(case, _call(runner), other_weights, batch)
        runner.bind(other_batch)
        _assert_forward(case, _call(runner), other_weights, other_batch)


def nothing_is_constant_in_training(build: Build, case: Case) -> None:
    """The same of a training step, targets and learning rate included."""
    weights, batch = data(case)
    other_weights, other_batch = data(replace(case, seed=case.seed + 1))
    with ready(build, case, "train", weights, batch) as runner:
        runner.sync(runner.train())
        _assert_gradients(case, runner, other_weights, other_batch, expected_of=other_batch)


def a_state_carries_on(build: Build, case: Case) -> None:
    """A sequence in two calls, the second from the state that the first left, is the sequence."""
    t = case.seq_len
    longer = replace(case, seq_len=2 * t)
    weights, batch = data(longer)
    whole = expected(longer, weights, batch)
    with ready(build, case, "forward", weights, _part(batch, 0, t)) as runner:
        first = _call(runner)
        runner.bind(replace(_part(batch, t, 2 * t), initial_state=first.state))
        second = _call(runner)
    outputs = np.concatenate([first.outputs, second.outputs], axis=1)
    fault = check_forward(longer, Output(outputs=outputs, state=second.state), whole).fault
    assert fault is None, fault


def _part(batch: Batch, start: int, end: int) -> Batch:
    """Steps of a batch; of what is left of each sequence there."""
    lengths = batch.lengths
    return replace(
        batch,
        x=batch.x[:, start:end],
        targets=batch.targets[:, start:end],
        lengths=None if lengths is None else np.clip(lengths - start, 0, end - start),
    )


def a_rotation_goes_round_its_batches(build: Build, case: Case) -> None:
    """Each call reads the next batch; a second rotation replaces the first, and `bind` ends it."""
    weights, batch = data(case)
    others = [replace(batch, x=make_batch(case, number).x) for number in range(1, 5)]
    with ready(build, case, "forward", weights, batch) as runner:
        given = [replace(other, x=other.x.copy()) for other in others[:2]]
        runner.rotate(given)
        for other in given:
            other.x[...] = np.nan  # the caller's arrays are its own again
        _assert_forward(case, _call(runner), weights, batch)
        for other in (*others[:2], *others[:2]):
            runner.advance()
            _assert_forward(case, _call(runner), weights, other)
        runner.rotate(others[2:])
        _assert_forward(case, _call(runner), weights, batch)
        runner.load(weights)
        for other in others[2:]:
            runner.advance()
            _assert_forward(case, _call(runner), weights, other)
        runner.bind(others[0])
        runner.advance()
        _assert_forward(case, _call(runner), weights, others[0])


def a_rotation_goes_round_its_batches_in_training(build: Build, case: Case) -> None:
    """Targets too: the loss and the gradients of each step are those of its batch."""
    weights, batch = data(case)
    drawn = [make_batch(case, number) for number in (1, 2)]
    others = [replace(batch, x=d.x, targets=d.targets) for d in drawn]
    with ready(build, case, "train", weights, batch) as runner:
        for other, (loss, gradients) in zip(
            others, probe_rotated(runner, weights, others), strict=True
        ):
            fault = check_train(case, loss, gradients, expected(case, weights, other)).fault
            assert fault is None, fault


def work_grows_with_time(build: Build, case: Case) -> None:
    """A forward call with T=128 takes more than twice as long as one with T=8.

    Of one layer, of sizes at which the steps outweigh the call. Time is the process's own on a CPU,
    since a busy host makes calls wait; and calls take turns.
    """
    seconds: dict[int, list[float]] = {8: [], 128: []}
    sized = replace(case, batch=16, inputs=32, hidden=64, layers=1, lengths="full")
    shorter, longer = (replace(sized, seq_len=t) for t in seconds)
    with (
        ready(build, shorter, "forward", *data(shorter)) as short,
        ready(build, longer, "forward", *data(longer)) as long,
    ):
        _call(short)
        _call(long)
        for _ in range(CALLS):
            for runner, samples in zip((short, long), seconds.values(), strict=True):
                start = time.process_time()
                runner.sync(runner.forward())
                samples.append(time.process_time() - start)
    ratio = statistics.median(seconds[128]) / statistics.median(seconds[8])
    assert ratio > 2, f"T=128 takes {ratio:.2f} times as long as T=8"


def two_steps_are_the_oracles(build: Build, case: Case) -> None:
    """Two steps on different batches at different rates leave the weights where SGD does."""
    weights, first = data(case)
    _, second = data(replace(case, seed=case.seed + 1))
    limit = tolerance(case)
    moved = weights
    with ready(build, case, "train", weights, first) as runner:
        for batch in (replace(first, learning_rate=0.5), replace(second, learning_rate=0.25)):
            runner.bind(batch)
            out = runner.train()
            runner.sync(out)
            truth = expected(case, moved, batch)
            moved = _descend(moved, truth.gradients, batch.learning_rate)
            np.testing.assert_allclose(runner.fetch_loss(out), truth.loss, rtol=limit.gradient)
        after = runner.weights()
    fault = other_weights_dtype(case, after)
    assert fault is None, fault
    for layer, start, want in zip(after, weights, moved, strict=True):
        for name in want:
            step = np.abs(want[name] - start[name]).max()
            assert step > 20 * limit.forward, f"{name} moves by {step:.1g}: too little to see"
            np.testing.assert_allclose(layer[name], want[name], rtol=0, atol=limit.forward)


def padding_is_ignored(build: Build, case: Case) -> None:
    """Other numbers in the padding of x change no result, and outputs there are 0.

    Large numbers, not NaN: masked gradients of NaN are NaN in every framework.
    """
    weights, batch = data(case)
    noisy, padding = _with_noise(case, batch)
    with ready(build, case, "forward", weights, noisy) as runner:
        output = _call(runner)
        _assert_forward(case, output, weights, batch)
        assert not output.outputs[padding].any(), "outputs past a length are not zero"


def padding_is_ignored_in_training(build: Build, case: Case) -> None:
    """The same of loss and gradients."""
    weights, batch = data(case)
    noisy, _ = _with_noise(case, batch)
    with ready(build, case, "train", weights, noisy) as runner:
        _assert_gradients(case, runner, weights, noisy, expected_of=batch)


def _with_noise(case: Case, batch: Batch) -> tuple[Batch, Array]:
    """The batch with other numbers in its padding, and where that is: [B, T]."""
    assert batch.lengths is not None, "only a ragged batch has padding"
    padding = np.arange(case.seq_len) >= batch.lengths[:, None]
    return replace(batch, x=np.where(padding[:, :, None], 100 * batch.x - 50, batch.x)), padding


def _call(runner: Runner) -> Output:
    out = runner.forward()
    runner.sync(out)
    return runner.fetch(out)


def _assert_forward(case: Case, output: Output, weights: Weights, batch: Batch) -> None:
    fault = other_dtype(case, output)
    fault = fault or check_forward(case, output, expected(case, weights, batch)).fault
    assert fault is None, fault


def _assert_gradients(
    case: Case, runner: Runner, weights: Weights, batch: Batch, expected_of: Batch
) -> None:
    loss, gradients = probe_gradients(runner, weights, batch)
    fault = check_train(case, loss, gradients, expected(case, weights, expected_of)).fault
    assert fault is None, fault


def _descend(weights: Weights, gradients: Weights, rate: float) -> Weights:
    return tuple(
        {name: np.asarray(layer[name], np.float64) - rate * grad[name] for name in layer}
        for layer, grad in zip(weights, gradients, strict=True)
    )
