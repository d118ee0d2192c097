"""Reference arms on a GPU: a case's products, and as many launches as it has steps.

Both are one compiled program each, whose loops have a number of steps that XLA knows: those of
`lax.scan` have too, and XLA's GPU runtime then launches all steps without waiting. For a number
that is given at run time it copies the loop's condition to the host in each step, and waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from backends.api import Array, Case, Mode, Stage, Unavailable
from backends.bare import LAUNCHES, BareRunner, launches
from backends.jax import hlo
from backends.products import LIMIT, Product, products

#: What XLA makes of a product: a `dot`, alone or in a fusion, a library's call, or, where there is
#: but one column to multiply by one row, or a vector, the multiplication of elements.
PRODUCT = r" (dot|custom-call|multiply)\("

#: Arrays that a program takes over and gives back, and those that it only reads.
Arrays = tuple[Any, Any]

#: Why a compiled program is not what was asked for, or None.
Fault = Callable[[str], str | None]


class BareProgram(BareRunner):
    """A program compiled for its arrays. It is given what the last call left, in the same memory.

    Raises `Unavailable` where XLA made something else of the program than what is to be timed.
    """

    def __init__(
        self, what: str, program: Any, arrays: Arrays, fault: Fault, device: Any, stage: Stage
    ) -> None:
        self.what = what
        self._carried, self._fixed = jax.block_until_ready(jax.device_put(arrays, device))
        with stage("trace"):
            traced = jax.jit(program, donate_argnums=0).trace(self._carried, self._fixed)
        with stage("lower"):
            lowered = traced.lower()
        with stage("compile"):
            self._compiled = lowered.compile()
        reason = fault(self._compiled.as_text())
        if reason is not None:
            raise Unavailable(f"{what} cannot be measured: {reason}")

    def forward(self) -> None:
        """See `BareRunner`. The handle is empty: `sync` waits for what the last call left."""
        self._carried = self._compiled(self._carried, self._fixed)

    def sync(self, out: object) -> None:
        jax.block_until_ready(self._carried)

    def program_size(self) -> Mapping[str, int]:
        """Numbers of loop iterations and of products, by what XLA made of the program."""
        text = self._compiled.as_text()
        return {"loop_steps": sum(hlo.loops(text)), "products": hlo.executed(text, PRODUCT)}

    def close(self) -> None:
        del self._compiled, self._carried, self._fixed


def multiply(needed: Sequence[Product]) -> Any:
    """The program that does these products, the same one in a loop.

    Nothing in a step depends on the one before, and XLA would do the product once. So the factor
    passes, with what was multiplied, a barrier that XLA sees nothing through: it cannot know it to
    be the same in the next step. The barrier itself is no kernel.
    """

    def program(carried: Any, fixed: Any) -> list[Any]:
        return [
            lax.fori_loop(0, product.count, _step(b), factor_and_result)
            for product, factor_and_result, b in zip(needed, carried, fixed, strict=True)
        ]

    return program


def _step(b: Any) -> Any:
    def step(_number: Any, factor_and_result: tuple[Any, Any]) -> Any:
        a, _result = factor_and_result
        return lax.optimization_barrier((a, lax.dot(a, b)))

    return step


def build_products(case: Case, mode: Mode, device: Any, stage: Stage) -> BareProgram:
    """The limit of a case."""
    needed = products(case, mode)
    random = np.random.default_rng(0)

    def array(*shape: int) -> Array:
        return random.standard_normal(shape, np.float32).astype(jax.numpy.dtype(case.dtype))

    carried = [(array(p.m, p.k), array(p.m, p.n)) for p in needed]
    fixed = [array(p.k, p.n) for p in needed]
    asked = sum(p.count for p in needed)

    def fault(program: str) -> str | None:
        done = hlo.executed(program, PRODUCT)
        return None if done >= asked else f"of {asked} products XLA left {done}"

    return BareProgram(LIMIT, multiply(needed), (carried, fixed), fault, device, stage)


def add(count: int) -> Any:
    """The program that adds 1 to one element so many times, each in a kernel of its own.

    One element, whatever the case: what is asked is how long a launch takes, and not its work.
    """

    def program(element: Any, _fixed: None) -> Any:
        return lax.fori_loop(0, count, lambda _number, x: x + 1, element)

    return program


def build_launches(case: Case, mode: Mode, device: Any, stage: Stage) -> BareProgram:
    """The floor of a case's loop."""
    count = launches(case, mode)

    def fault(program: str) -> str | None:
        # Of what is unrolled, XLA makes one kernel.
        found = hlo.loops(program)
        return None if found == [count] or count == 1 else f"of {count} steps XLA left {found}"

    arrays = np.zeros(1, np.float32), None
    return BareProgram(LAUNCHES, add(count), arrays, fault, device, stage)


BARE: Mapping[str, Callable[[Case, Mode, Any, Stage], BareProgram]] = {
    "products": build_products,
    "launches": build_launches,
}
