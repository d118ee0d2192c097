"""nn.LSTM, its parameters packed by hand: the order of the gates, and which of two biases.

Not by the layouts of the adapter: those are how this project packs them, and what is asked here is
whether torch reads them so.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backends.api import Array, Batch, Case, LayerWeights, Native, Weights
from backends.layout import biased
from backends.native import TENSORFLOW_ORDER, TORCH_ORDER, plain_lstm, side_by_side
from backends.stack import Layer
from backends.torch.runner import from_host, to_host

#: Of the outputs between two layers so many are dropped.
_DROPPED = 0.5


def native(
    case: Case, strategy: str, weights: Weights, batch: Batch, device: torch.device
) -> Native | None:
    """See `backends.api.Backend.native`."""
    layer = plain_lstm(case)
    if layer is None or strategy != "fused":
        return None
    blocks = biased(layer, weights[layer.weights])
    x = from_host(batch.x).to(device)
    return Native(
        own_order=_outputs(layer, x, blocks, TORCH_ORDER, "bias_ih_l0"),
        other_order=_outputs(layer, x, blocks, TENSORFLOW_ORDER, "bias_ih_l0"),
        moved_bias=_outputs(layer, x, blocks, TORCH_ORDER, "bias_hh_l0"),
        dropped=_dropped(case, x, _DROPPED),
        undropped=_dropped(case, x, 0.0),
    )


def _dropped(case: Case, x: Tensor, share: float) -> Array:
    """Outputs [B, T, H] of two layers that are trained with dropout, all from the case's seed."""
    torch.manual_seed(case.seed)  # of every device
    options = {"num_layers": 2, "dropout": share, "batch_first": True}
    lstm = torch.nn.LSTM(case.inputs, case.hidden, dtype=x.dtype, **options).to(x.device)
    outputs, _ = lstm(x)
    return to_host(outputs)


def _outputs(
    layer: Layer, x: Tensor, blocks: LayerWeights, gates: tuple[str, ...], biased: str
) -> Array:
    """Outputs with the gates in an order and all of the bias in one of both vectors."""
    lstm = torch.nn.LSTM(layer.inputs, layer.hidden, batch_first=True, dtype=x.dtype).to(x.device)
    values = {
        "weight_ih_l0": side_by_side("W", blocks, gates).T,
        "weight_hh_l0": side_by_side("U", blocks, gates).T,
        biased: side_by_side("b", blocks, gates),
    }
    with torch.inference_mode():
        for name, parameter in lstm.named_parameters():
            parameter.copy_(from_host(values[name])) if name in values else parameter.zero_()
        outputs, _ = lstm(x)
        return to_host(outputs)
