"""Small models quantized by somebody else: by onnxruntime.quantization (1.28.0, onnx 1.23.2).

    python make.py        # writes the .onnx files beside this script

Two graphs of random weights (seed 7): `cnn` (three convolutions, one of them depthwise, and a Gemm) and `mlp` (an embedding
and three matrices). Every file leaves one layer in floating point, so that it can be quantized beside the others.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization as q
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

HERE = Path(__file__).parent
RNG = np.random.default_rng(7)


def weight(name, *shape):
    depth = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
    values = RNG.uniform(-1, 1, shape) * np.sqrt(3 / max(depth, 1))
    return numpy_helper.from_array(values.astype(np.float32), name)


def model(nodes, inputs, outputs, weights):
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def cnn():
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "depthwise", pads=[1, 1, 1, 1], group=8),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["c3"], "conv3"),
        helper.make_node("Add", ["c3", "r2"], ["s"], "add"),
        helper.make_node("GlobalAveragePool", ["s"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["y"], "head", transB=1),
    ]
    weights = [
        weight("w1", 8, 4, 3, 3), weight("b1", 8), weight("w2", 8, 1, 3, 3), weight("b2", 8),
        weight("w3", 8, 8, 1, 1), weight("b3", 8), weight("w4", 6, 8), weight("b4", 6),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6])
    return model(nodes, [x], [y], weights)


def mlp():
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], "embed"),
        helper.make_node("MatMul", ["e", "w1"], ["m1"], "up"),
        helper.make_node("Add", ["m1", "b1"], ["a1"], "bias"),
        helper.make_node("Relu", ["a1"], ["r1"], "relu"),
        helper.make_node("MatMul", ["r1", "w2"], ["m2"], "down"),
        helper.make_node("MatMul", ["m2", "w3"], ["y"], "head"),
    ]
    weights = [weight("table", 128, 16), weight("w1", 16, 48), weight("b1", 48), weight("w2", 48, 32), weight("w3", 32, 16)]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6, 16])
    return model(nodes, [ids], [y], weights)


class Reader(q.CalibrationDataReader):
    def __init__(self, make):
        self.left = [make() for _ in range(16)]

    def get_next(self):
        return self.left.pop() if self.left else None


def images():
    return {"x": RNG.uniform(-1, 1, (1, 4, 8, 8)).astype(np.float32)}


def words():
    return {"ids": RNG.integers(0, 128, (1, 6))}


def main():
    for name, made in [("cnn", cnn()), ("mlp", mlp())]:
        onnx.save(made, HERE / f"{name}.onnx")
    source = HERE / "cnn.onnx"
    u8s8 = {"activation_type": q.QuantType.QUInt8, "weight_type": q.QuantType.QInt8}
    s8s8 = {"activation_type": q.QuantType.QInt8, "weight_type": q.QuantType.QInt8}
    for name, format_, per_channel, types in [
        ("cnn_qdq", q.QuantFormat.QDQ, True, u8s8),
        ("cnn_qdq_s8", q.QuantFormat.QDQ, False, s8s8),
        ("cnn_qoperator", q.QuantFormat.QOperator, True, u8s8),
    ]:
        # `conv3` stays in floating point.
        q.quantize_static(source, HERE / f"{name}.onnx", Reader(images), quant_format=format_, per_channel=per_channel,
                          nodes_to_exclude=["conv3"], **types)
    q.quantize_static(HERE / "mlp.onnx", HERE / "mlp_qdq.onnx", Reader(words), quant_format=q.QuantFormat.QDQ,
                      nodes_to_exclude=["head"], **u8s8)
    q.quantize_dynamic(HERE / "mlp.onnx", HERE / "mlp_dynamic.onnx", nodes_to_exclude=["head"])
    q.quantize_dynamic(source, HERE / "cnn_dynamic.onnx", nodes_to_exclude=["head"])
    for name, bits in [("mlp_nbits4", 4), ("mlp_nbits8", 8)]:
        quantizer = MatMulNBitsQuantizer(onnx.load(HERE / "mlp.onnx"), bits=bits, block_size=32, is_symmetric=bits == 4,
                                         nodes_to_exclude=["head"])
        quantizer.process()
        onnx.save(quantizer.model.model, HERE / f"{name}.onnx")


if __name__ == "__main__":
    main()
