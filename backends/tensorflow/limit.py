"""Reference arms on a GPU: a case's products, and as many launches as it has steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from backends.api import Case, Mode, Stage
from backends.bare import LAUNCHES, BareRunner, launches
from backends.products import LIMIT, products
from backends.tensorflow.graph import control_flow
from backends.tensorflow.network import Tensor, count_nodes

v1 = tf.compat.v1


class BareGraph(BareRunner):
    """A graph with its session; a call is one `Session` callable that feeds and fetches nothing.

    `make` gives the tensor or operation that a call computes. A session's call returns when all its
    kernels have run, so `sync` has nothing left to wait for.
    """

    def __init__(
        self, what: str, make: Callable[[], Any], stage: Stage, device: str, config: Any
    ) -> None:
        self.what = what
        self._graph = tf.Graph()
        with self._graph.as_default(), tf.device(device), control_flow(v2=False), stage("graph"):
            step = tf.group(make(), name="step")
            initialise = v1.global_variables_initializer()
        with stage("session"):
            self._session = v1.Session(graph=self._graph, config=config)
            self._session.run(initialise)
            self._step: Callable[[], Any] = self._session.make_callable(step)

    def forward(self) -> None:
        self._step()

    def sync(self, out: object) -> None:
        """Nothing is left to wait for."""

    def program_size(self) -> Mapping[str, int]:
        return count_nodes(self._graph)

    def close(self) -> None:
        self._session.close()
        del self._step, self._session, self._graph


def build_products(case: Case, mode: Mode, stage: Stage, *, device: str, config: Any) -> BareGraph:
    """The limit of a case: a node for each product, which waits for the one before.

    Nobody reads the results, which is reason enough for TensorFlow's graph optimisers to do no
    product at all: they are off. There is nothing else for them to do in this graph.
    """
    plain = v1.ConfigProto()
    plain.CopyFrom(config)
    plain.graph_options.rewrite_options.disable_meta_optimizer = True
    plain.graph_options.optimizer_options.opt_level = v1.OptimizerOptions.L0

    def make() -> Any:
        last: list[Tensor] = []
        for p in products(case, mode):
            # Variables: constants would be part of the graph, whose size is limited.
            a, b = (
                tf.Variable(tf.random.normal(shape, dtype=case.dtype)).read_value()
                for shape in ((p.m, p.k), (p.k, p.n))
            )
            for _ in range(p.count):
                with tf.control_dependencies(last):
                    last = [tf.linalg.matmul(a, b)]
        return last

    return BareGraph(LIMIT, make, stage, device, plain)


def build_launches(case: Case, mode: Mode, stage: Stage, *, device: str, config: Any) -> BareGraph:
    """The floor of a case's `while_loop`, of control flow v1, as `dynamic_rnn` has it.

    One element, whatever the case: what is asked is how long a launch takes, and not its work. It
    is a float: whole numbers are counted on the host.
    """
    count = launches(case, mode)

    def make() -> Any:
        element = tf.Variable(tf.zeros(1), name="element")
        _, result = v1.while_loop(
            lambda step, _element: step < count,
            lambda step, element: (step + 1, element + 1.0),
            (0, element.read_value()),
        )
        return element.assign(result, read_value=False)

    return BareGraph(LAUNCHES, make, stage, device, config)


BARE: Mapping[str, Callable[..., BareGraph]] = {
    "products": build_products,
    "launches": build_launches,
}
