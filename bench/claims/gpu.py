"""The tests of claims that only a GPU decides. They decide themselves where a run has one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from backends.api import Case
from backends.devices import is_gpu
from bench import kernels
from bench.claims.question import Fact, Question, lacking, planned, where
from bench.claims.reading import Groups, steady_question
from bench.claims.threads import MINUTES_S, ROUGHLY, lasts, steady_pairs
from bench.longest import Search
from bench.record import TO_FIRST


def on_gpu(case: Case) -> bool:
    """Whether a case is one of the GPU's."""
    return is_gpu(case.device)


#: dynamic_rnn is more than twice as slow as static_rnn.
i1 = steady_pairs(
    "tensorflow/dynamic",
    "tensorflow/static",
    "at least",
    2.0,
    lambda c: on_gpu(c) and c.seq_len >= 100 and c.hidden >= 512,
)


def i3(groups: Groups) -> Iterator[Question]:
    """Within the same memory, training with swapping reaches a length at which static runs out."""
    a, b = "tensorflow/dynamic-swap", "tensorflow/static"
    for group in groups:
        if not on_gpu(group.case) or group.mode != "train" or not planned(group, "capacity", a, b):
            continue
        jobs = [group.get(name, "capacity") for name in (a, b)]
        question = Question(run=group.run, where=where(group, "tensorflow"), rows=(a, b))
        swap, static = map(Search.of, jobs)
        holds = _reaches_further(swap, static)
        if holds is None:
            yield lacking(question, jobs, "a search ended before memory did")
            continue
        said = f"longest T that trains: {a} {swap.words}, {b} {static.words}"
        found = Fact(holds=holds, statement=said, effect=swap.largest, unit="steps")
        yield replace(question, fact=found)


def _reaches_further(swap: Search, static: Search) -> bool | None:
    """Whether one trains a length at which the other is out of memory; None: not known.

    What ended a search but memory, such as the time that building an unrolled graph takes, says
    nothing of longer sequences.
    """
    if swap.largest >= static.failed:
        return True
    if swap.ends and (static.ends or static.largest >= swap.failed):
        return False
    return None


def i7(groups: Groups) -> Iterator[Question]:
    """On a GPU, XLA takes minutes to compile 240 steps unrolled, and runs the loop 2 times slower.

    The XLA programs of both kinds that this project has are JAX's.
    """
    for group in groups:
        if on_gpu(group.case) and group.case.seq_len >= 240:
            yield from lasts(group, "jax/static", MINUTES_S, *TO_FIRST)
            if planned(group, "steady", "jax/dynamic", "jax/static"):
                place = where(group, "jax", quantity="time a call")
                yield steady_question(group, place, "jax/dynamic", "jax/static", "at least", 2.0)


def i8(groups: Groups) -> Iterator[Question]:
    """On a GPU, over 10 steps, scan takes 16 times as long as unrolled, and fori 6 times."""
    for a, times in (("jax/dynamic", 1.76 / 0.11), ("jax/fori", 0.63 / 0.11)):
        test = steady_pairs(
            a, "jax/static", "at least", times / ROUGHLY, lambda c: on_gpu(c) and c.seq_len == 10
        )
        for question in test(groups):
            place = {**question.where, "loop": a.split("/")[1]}
            yield replace(question, where=place)


def _of_cudnn(name: str, questions: Iterable[Question], groups: Groups) -> Iterator[Question]:
    """Questions about cuDNN's RNN; no answer where another kernel is on record in its place."""
    others = {
        (group.run, group.case, group.mode)
        for group in groups
        for record in group.get(name, "steady").records
        if isinstance(ran := kernels.read(record.worker.get("kernels")), kernels.Ran)
        and not set(ran.libraries) & kernels.CUDNN_RNN
    }
    places = {
        (group.run, tuple(where(group, name.partition("/")[0]).items()))
        for group in groups
        if (group.run, group.case, group.mode) in others
    }
    for question in questions:
        if (question.run, question.place) in places:
            yield lacking(replace(question, test=None), [], f"{name} did not run cuDNN's RNN")
        else:
            yield question


def i12(groups: Groups) -> Iterator[Question]:
    """CuDNN's LSTM in JAX is about 5 times as fast as scan."""
    test = steady_pairs("jax/dynamic", "jax/fused", "at least", 5 / ROUGHLY, on_gpu)
    return _of_cudnn("jax/fused", test(groups), groups)


def i17(groups: Groups) -> Iterator[Question]:
    """nn.LSTM with its own dropout gives other bits in another process, from the same seed."""
    name = "torch/fused"
    for group in groups:
        if not on_gpu(group.case) or not planned(group, "behaviour", name):
            continue
        job = group.get(name, "behaviour")
        question = Question(run=group.run, where=where(group, "torch"), rows=(name,))
        digests = list(job.values("dropped_digest").values())
        if len(set(job.values("undropped_digest").values())) > 1:
            yield lacking(question, [], "without dropout they differ too")
            continue
        if len(digests) < 2:
            yield lacking(question, [job], "less than two processes have drawn it")
            continue
        different = len(set(digests))
        said = f"{name}: {different} different results of {len(digests)} processes, claimed above 1"
        found = Fact(holds=different > 1, statement=said, effect=different, unit="results")
        yield replace(question, fact=found)


def i18(groups: Groups) -> Iterator[Question]:
    """On tiny forward passes cuDNN is slower than its rivals."""
    for rival in ("torch/dynamic", "jax/dynamic"):
        test = steady_pairs(
            "torch/fused",
            rival,
            "slower",
            1.0,
            lambda c: on_gpu(c) and c.hidden <= 64 and c.batch == 1,
            "forward",
        )
        for question in _of_cudnn("torch/fused", test(groups), groups):
            yield replace(question, where={**question.where, "rival": rival})
