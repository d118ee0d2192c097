"""Reference arms beside implementations: the limit, and the floor of launches. No networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backends.api import Batch, Case, Mode, Output, Unsupported, Weights
from backends.devices import is_gpu
from backends.stack import layers


class BareRunner:
    """A program of some kernels that takes no weights and no batch, and leaves nothing to fetch.

    Its kernels are those of one forward pass or of one training step, by the mode that it was built
    for. `what` begins the reason for which it has no results.
    """

    what: str

    def load(self, weights: Weights) -> None:
        """It takes no particular weights: its time does not depend on the values."""

    def bind(self, batch: Batch) -> None:
        """See `load`."""

    def feed(self, batch: Batch) -> None:
        """See `load`."""

    def rotate(self, batches: Sequence[Batch]) -> None:
        """See `load`."""

    def advance(self) -> None:
        """See `load`."""

    def forward(self) -> Any:
        """Enqueue all kernels, one after the other."""
        raise NotImplementedError

    def train(self) -> Any:
        return self.forward()

    def sync(self, out: Any) -> None:
        """See `Runner`."""
        raise NotImplementedError

    def fetch(self, out: object) -> Output:
        raise Unsupported(f"{self.what} has no outputs")

    def fetch_loss(self, out: object) -> float:
        raise Unsupported(f"{self.what} has no loss")

    def weights(self) -> Weights:
        raise Unsupported(f"{self.what} has no weights")

    def program_size(self) -> Mapping[str, int]:
        return {}

    def close(self) -> None:
        """See `Runner`."""
        raise NotImplementedError


#: What begins the reason for which there are no results of a chain of launches.
LAUNCHES = "launches: the floor"


def launches(case: Case, mode: Mode) -> int:
    """Dependent kernels that a loop over the steps of a case launches at the very least.

    One for each step of each layer and direction, and in training another one on the way back.
    (A step of most cells is several kernels in every framework: what a loop cannot do without is
    one.) Padding counts, as it does for the products.
    """
    steps = case.seq_len * len(layers(case))
    return 2 * steps if mode == "train" else steps


def refused_launches(case: Case) -> str | None:
    """Reason why the floor of launches is not measured for a case, or None."""
    if is_gpu(case.device):
        return None
    return f"device {case.device}: launches are a floor on GPUs only; on a CPU a call is no launch"


def refused_products(case: Case) -> str | None:
    """Reason why a framework's GPU-only products are not measured, or None."""
    if is_gpu(case.device):
        return None
    return f"device {case.device}: the products there are NumPy's and PyTorch's"
