"""A thin layer over onnx.helper: nodes and weights get readable names, a node's output is named after the node."""
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8


class Graph:
    def __init__(self, name, input_name, input_shape):
        self.name, self.nodes, self.weights = name, [], []
        self.input = helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["batch", *input_shape])

    def weight(self, name, array):
        """Store an array as an initializer (floats as float32) and return its name."""
        array = np.asarray(array)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int64)
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, op, name, *inputs, outputs=None, **attributes):
        """Append a node; returns the name of its (last) output."""
        outputs = outputs or [name]
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, **attributes))
        return outputs[-1]

    def linear(self, name, source, weight, bias):
        """MatMul and Add, the form in which exporters write the linear layers of transformers. weight: [in, out]."""
        product = self.add("MatMul", name, source, self.weight(f"{name}.weight", weight))
        return self.add("Add", f"{name}.add", product, self.weight(f"{name}.bias", bias))

    def gemm(self, name, source, weight, bias, output=None):
        """A Gemm that stores its weight as [out, in], like PyTorch's. weight: [in, out]."""
        return self.add("Gemm", name, source, self.weight(f"{name}.weight", np.asarray(weight).T),
                        self.weight(f"{name}.bias", bias), outputs=[output or name], transB=1)

    def save(self, path, doc):
        """Check the model and write it; the output is `logits` [batch, 10]."""
        output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])
        graph = helper.make_graph(self.nodes, self.name, [self.input], [output], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                                  producer_name="nibble-sample-models", doc_string=doc)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
