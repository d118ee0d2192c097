"""LSTMBlockCell and GRUBlockCell: a step of a layer in one operation.

TensorFlow 2 has the operations, but neither the classes of tf.contrib.rnn (TensorFlow 1), whose
variables these here have, nor the gradients, which were registered beside the classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from backends.spec import BasicLstm, Cell, Gru, Lstm
from backends.stack import Layer
from backends.tensorflow.stepcell import Step, StepCell, Tensor, Tensors


def lstm_block(layer: Layer) -> Step:
    """LSTM: c' = s(f + forget_bias) c + s(i) tanh(g), clipped;  y = h' = s(o) tanh(c').

    i, g, f, o = [x, h] K + b; with peepholes i and f see c, and o sees c'. The gradient is that of
    no clip.
    """
    cell = layer.of(Lstm)

    def step(w: Tensors, x: Tensor, state: Tensors) -> tuple[Tensor, dict[str, Tensor]]:
        # The operation wants peepholes, and does not read them where they are off.
        absent = None if cell.peepholes else tf.zeros([layer.hidden], x.dtype)
        block = tf.raw_ops.LSTMBlockCell(
            x=x,
            cs_prev=state["c"],
            h_prev=state["h"],
            w=w["kernel"],
            wci=w.get("w_i_diag", absent),
            wcf=w.get("w_f_diag", absent),
            wco=w.get("w_o_diag", absent),
            b=w["bias"],
            forget_bias=layer.forget_bias,
            cell_clip=op_clip(cell),
            use_peephole=cell.peepholes,
        )
        return block.h, {"c": block.cs, "h": block.h}

    return step


def gru_block(_layer: Layer) -> Step:
    """GRU, reset before the product: c = tanh([x, r h] K_c + b_c);  y = h' = u h + (1 - u) c.

    r, u = s([x, h] K + b).
    """

    def step(w: Tensors, x: Tensor, state: Tensors) -> tuple[Tensor, dict[str, Tensor]]:
        new = tf.raw_ops.GRUBlockCell(
            x=x,
            h_prev=state["h"],
            w_ru=w["gates/kernel"],
            w_c=w["candidate/kernel"],
            b_ru=w["gates/bias"],
            b_c=w["candidate/bias"],
        ).h
        return new, {"h": new}

    return step


def op_clip(cell: Lstm) -> float:
    """The clip as the block operations take it, for which 0 or less is none.

    It is always given: LSTMBlockCell's and BlockLSTM's default of 3 is another function.
    """
    return -1.0 if cell.cell_clip is None else cell.cell_clip


_STEPS: dict[type[Cell], Callable[[Layer], Step]] = {
    Lstm: lstm_block,
    BasicLstm: lstm_block,
    Gru: gru_block,
}


def make_block_cell(layer: Layer, dtype: str) -> Any:
    """The block cell of a layer; its variables come when it is first called.

    For layers that `backends.tensorflow.blocksupport.block_cell_refusal` does not refuse and that
    are no wrappers.
    """
    return StepCell(layer, dtype, _STEPS[type(layer.cell)](layer))


# --- gradients ------------------------------------------------------------------------------------

# A process has one registry, and a second entry of a name is an error: these run once, on import.


@tf.RegisterGradient("LSTMBlockCell")
def _lstm_block_cell_gradient(op: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
    """Of all inputs, for those of c' and h'; the other outputs, gates, are given no gradient."""
    x, c, h, w, wci, wcf, wco, b = op.inputs
    i, new_c, f, o, ci, co, _ = op.outputs
    inner = tf.raw_ops.LSTMBlockCellGrad(
        x=x,
        cs_prev=c,
        h_prev=h,
        w=w,
        wci=wci,
        wcf=wcf,
        wco=wco,
        b=b,
        i=i,
        cs=new_c,
        f=f,
        o=o,
        ci=ci,
        co=co,
        cs_grad=gradients[1],
        h_grad=gradients[6],
        use_peephole=op.get_attr("use_peephole"),
    )
    gates = inner.dicfo  # [B, 4H], of the pre-activations
    d_x, d_h = _to_inputs(gates, w, x, h)
    return (
        d_x,
        inner.cs_prev_grad,
        d_h,
        _to_kernel(gates, x, h),
        inner.wci_grad,
        inner.wcf_grad,
        inner.wco_grad,
        _to_bias(gates),
    )


@tf.RegisterGradient("GRUBlockCell")
def _gru_block_cell_gradient(op: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
    """Of all inputs, for that of h'; the other outputs, gates, are given no gradient."""
    x, h, w_ru, w_c, b_ru, b_c = op.inputs
    r, u, c, _ = op.outputs
    inner = tf.raw_ops.GRUBlockCellGrad(
        x=x,
        h_prev=h,
        w_ru=w_ru,
        w_c=w_c,
        b_ru=b_ru,
        b_c=b_c,
        r=r,
        u=u,
        c=c,
        d_h=gradients[3],
    )
    gates, candidate = inner.d_r_bar_u_bar, inner.d_c_bar  # [B, 2H], [B, H]
    return (
        inner.d_x,
        inner.d_h_prev,
        _to_kernel(gates, x, h),
        _to_kernel(candidate, x, r * h),
        _to_bias(gates),
        _to_bias(candidate),
    )


def _to_inputs(gates: Tensor, kernel: Tensor, x: Tensor, h: Tensor) -> list[Tensor]:
    """Gradients [B, I] and [B, H] of x and h from those at gates that are [x, h] K + b."""
    both = tf.matmul(gates, kernel, transpose_b=True)
    return tf.split(both, [x.shape[1], h.shape[1]], axis=1)


def _to_kernel(gates: Tensor, x: Tensor, h: Tensor) -> Tensor:
    """The gradient of K."""
    return tf.matmul(tf.concat([x, h], axis=1), gates, transpose_a=True)


def _to_bias(gates: Tensor) -> Tensor:
    """The gradient of b."""
    return tf.reduce_sum(gates, axis=0)
