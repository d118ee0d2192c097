"""TensorFlow's own LSTM classes, their kernels packed by hand: the order of the gates.

Not by `backends.tensorflow.layout`: that is how this project packs them, and what is asked here is
whether the framework reads them so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from backends.api import Array, Batch, Case, LayerWeights, Native, Weights
from backends.layout import biased
from backends.native import TENSORFLOW_ORDER, TORCH_ORDER, plain_lstm, side_by_side
from backends.spec import BasicLstm
from backends.stack import Layer
from backends.tensorflow.cells import legacy_warnings_ignored, rnn_cell

v1 = tf.compat.v1

#: (layer, dtype, x [B, T, D], canonical blocks, the order of the gates) -> outputs [B, T, H].
_Run = Callable[[Layer, str, Array, LayerWeights, tuple[str, ...]], Array]


def native(case: Case, strategy: str, weights: Weights, batch: Batch) -> Native | None:
    """See `backends.api.Backend.native`; of `dynamic_rnn` and of the looped Keras layer."""
    layer, found = plain_lstm(case), _CLASSES.get(strategy)
    if layer is None or found is None:
        return None
    run, own, other = found
    given = layer, case.dtype, batch.x, weights[layer.weights]
    return Native(own_order=run(*given, own), other_order=run(*given, other))


def _rnn_cell(
    layer: Layer, dtype: str, x: Array, blocks: LayerWeights, gates: tuple[str, ...]
) -> Array:
    """BasicLSTMCell or LSTMCell under `dynamic_rnn`, in a graph; the forget bias is the cell's."""
    make = rnn_cell.BasicLSTMCell if isinstance(layer.cell, BasicLstm) else rnn_cell.LSTMCell
    kernel, recurrent, bias = (side_by_side(kind, blocks, gates) for kind in ("W", "U", "b"))
    with tf.Graph().as_default(), legacy_warnings_ignored():
        given = v1.placeholder(dtype, x.shape)
        cell = make(layer.hidden, forget_bias=layer.forget_bias, dtype=dtype)
        outputs, _ = v1.nn.dynamic_rnn(cell, given, dtype=dtype)
        variables = cell.trainable_weights
        values = [np.concatenate([kernel, recurrent]), bias]
        filled = [variable.assign(value) for variable, value in zip(variables, values, strict=True)]
        with v1.Session() as session:
            session.run(filled)
            return np.array(session.run(outputs, {given: x}))


def _keras_lstm(
    layer: Layer, dtype: str, x: Array, blocks: LayerWeights, gates: tuple[str, ...]
) -> Array:
    """keras.layers.LSTM, which has no forget bias beside its bias."""
    lstm: Any = keras.layers.LSTM(layer.hidden, return_sequences=True, use_cudnn=False, dtype=dtype)
    lstm.build(x.shape)
    given = biased(layer, blocks)
    lstm.set_weights([side_by_side(kind, given, gates) for kind in ("W", "U", "b")])
    return np.array(lstm(x))


#: By strategy: what runs its class, the class's own order of gates, and another framework's.
_CLASSES: Mapping[str, tuple[_Run, tuple[str, ...], tuple[str, ...]]] = {
    "dynamic": (_rnn_cell, TENSORFLOW_ORDER, TORCH_ORDER),
    "keras": (_keras_lstm, TORCH_ORDER, TENSORFLOW_ORDER),
}
