"""The operators that a graph may contain.

This table is the list: an operator that it lacks is refused. It has no loops, branches or other
subgraphs, no functions, no random numbers, and no operator whose output has a shape that depends on
the graph's inputs. ``docs/bundle-format.md`` prints it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tlrec_edge.graph import arithmetic, layout, products
from tlrec_edge.graph.call import BOOL, COPY, INT32, SLOW, SORT, Rule, Steps


class Operator(NamedTuple):
    """An operator that a graph may contain."""

    rule: Rule
    steps: Steps
    omits: bool = False
    """Whether an input may have an empty name. For others, onnxruntime may read such an input."""


def _per_output(steps: int) -> Steps:
    return lambda call, outputs: steps * sum(output.size for output in outputs)


def _per_input(steps: int) -> Steps:
    return lambda call, outputs: steps * call[0].size


def _table(steps: Steps, **rules: Rule) -> dict[str, Operator]:
    return {name: Operator(rule, steps) for name, rule in rules.items()}


_ARITHMETIC = _table(
    _per_output(COPY),
    Abs=arithmetic.entrywise(1, np.abs),
    Add=arithmetic.entrywise(2, np.add),
    And=arithmetic.entrywise(2, np.logical_and, BOOL),
    Cast=arithmetic.cast,
    Ceil=arithmetic.entrywise(),
    CumSum=arithmetic.running_sum,
    Div=arithmetic.divide(arithmetic.truncated),
    Equal=arithmetic.entrywise(2, np.equal, BOOL),
    Floor=arithmetic.entrywise(),
    Greater=arithmetic.entrywise(2, np.greater, BOOL),
    GreaterOrEqual=arithmetic.entrywise(2, np.greater_equal, BOOL),
    HardSigmoid=arithmetic.entrywise(),
    HardSwish=arithmetic.entrywise(),
    Identity=arithmetic.identity,
    IsInf=arithmetic.entrywise(1, None, BOOL),
    IsNaN=arithmetic.entrywise(1, None, BOOL),
    LeakyRelu=arithmetic.entrywise(),
    Less=arithmetic.entrywise(2, np.less, BOOL),
    LessOrEqual=arithmetic.entrywise(2, np.less_equal, BOOL),
    Max=arithmetic.entrywise(None, arithmetic.largest),
    Mean=arithmetic.entrywise(None),
    Min=arithmetic.entrywise(None, arithmetic.smallest),
    Mul=arithmetic.entrywise(2, np.multiply),
    Neg=arithmetic.entrywise(1, np.negative),
    Not=arithmetic.entrywise(1, np.logical_not, BOOL),
    Or=arithmetic.entrywise(2, np.logical_or, BOOL),
    PRelu=arithmetic.like_first(2),
    Reciprocal=arithmetic.entrywise(),
    Relu=arithmetic.entrywise(),
    Round=arithmetic.entrywise(),
    Sign=arithmetic.entrywise(),
    Sqrt=arithmetic.entrywise(),
    Sub=arithmetic.entrywise(2, np.subtract),
    Sum=arithmetic.entrywise(None, arithmetic.total),
    Where=layout.where,
    Xor=arithmetic.entrywise(2, np.logical_xor, BOOL),
)
_FUNCTIONS = _table(
    _per_output(SLOW),
    BatchNormalization=arithmetic.batch_norm,
    Celu=arithmetic.entrywise(),
    Cos=arithmetic.entrywise(),
    DequantizeLinear=arithmetic.dequantize,
    DynamicQuantizeLinear=arithmetic.quantize_dynamically,
    Elu=arithmetic.entrywise(),
    Erf=arithmetic.entrywise(),
    Exp=arithmetic.entrywise(),
    Gelu=arithmetic.entrywise(),
    LayerNormalization=arithmetic.layer_norm,
    Log=arithmetic.entrywise(),
    LogSoftmax=arithmetic.along_axis(-1),
    LpNormalization=arithmetic.along_axis(-1),
    Mish=arithmetic.entrywise(),
    Mod=arithmetic.modulo,
    Pow=arithmetic.power,
    QuantizeLinear=arithmetic.quantize,
    Selu=arithmetic.entrywise(),
    Sigmoid=arithmetic.entrywise(),
    Sin=arithmetic.entrywise(),
    Softmax=arithmetic.along_axis(-1),
    Softplus=arithmetic.entrywise(),
    Softsign=arithmetic.entrywise(),
    Tanh=arithmetic.entrywise(),
)
_LAYOUT = _table(
    _per_output(COPY),
    Concat=layout.concat,
    Constant=layout.constant,
    ConstantOfShape=layout.constant_of_shape,
    Expand=layout.expand,
    Flatten=layout.flatten,
    OneHot=layout.one_hot,
    Range=layout.range_,
    Reshape=layout.reshape,
    Shape=layout.shape_of,
    Size=layout.size_of,
    Split=layout.split,
    Squeeze=layout.squeeze,
    Tile=layout.tile,
    Trilu=arithmetic.triangle,
    Unsqueeze=layout.unsqueeze,
)
_SCATTERED = _table(
    _per_output(SLOW),
    Gather=layout.gather,
    GatherElements=layout.gather_elements,
    GatherND=layout.gather_nd,
    ScatterElements=layout.scatter_elements,
    ScatterND=layout.scatter_nd,
    Transpose=layout.transpose,
)
_REDUCTIONS = _table(
    _per_input(COPY),
    ArgMax=arithmetic.arg_reduce,
    ArgMin=arithmetic.arg_reduce,
    GlobalAveragePool=products.global_pool,
    GlobalMaxPool=products.global_pool,
    ReduceL1=arithmetic.reduce(),
    ReduceL2=arithmetic.reduce(),
    ReduceMax=arithmetic.reduce(np.max),
    ReduceMean=arithmetic.reduce(),
    ReduceMin=arithmetic.reduce(np.min),
    ReduceProd=arithmetic.reduce(arithmetic.while_exact(np.prod)),
    ReduceSum=arithmetic.reduce(arithmetic.while_exact(np.sum)),
    ReduceSumSquare=arithmetic.reduce(),
)
_SLOW_REDUCTIONS = _table(
    _per_input(SLOW),
    ReduceLogSum=arithmetic.reduce(),
    ReduceLogSumExp=arithmetic.reduce(),
)
_OTHERS = {
    "AveragePool": Operator(products.pool, products.pool_steps),
    "Clip": Operator(arithmetic.like_first(3), _per_output(COPY), omits=True),
    "Conv": Operator(products.conv(), products.conv_steps()),
    "ConvInteger": Operator(products.conv(result=INT32), products.conv_steps()),
    "Einsum": Operator(products.einsum, products.einsum_steps),
    "Gemm": Operator(products.gemm, products.gemm_steps),
    "GRU": Operator(products.recurrent(3), products.recurrent_steps, omits=True),
    "LSTM": Operator(products.recurrent(4), products.recurrent_steps, omits=True),
    "MatMul": Operator(products.matmul(), products.matmul_steps),
    "MatMulInteger": Operator(products.matmul(result=INT32), products.matmul_steps),
    "MaxPool": Operator(products.pool, products.pool_steps),
    "QLinearConv": Operator(products.conv(3, 7), products.conv_steps(3)),
    "QLinearMatMul": Operator(products.matmul(3, 7), products.matmul_steps),
    "Pad": Operator(layout.pad, _per_output(COPY), omits=True),
    "RNN": Operator(products.recurrent(1), products.recurrent_steps, omits=True),
    "Slice": Operator(layout.slice_, _per_output(COPY), omits=True),
    "TopK": Operator(arithmetic.top_k, _per_input(SORT)),
}
OPERATORS = {
    **_ARITHMETIC,
    **_FUNCTIONS,
    **_LAYOUT,
    **_SCATTERED,
    **_REDUCTIONS,
    **_SLOW_REDUCTIONS,
    **_OTHERS,
}
"""Name -> how its outputs follow from its inputs. Operators of other domains are never allowed."""
