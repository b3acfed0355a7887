//! The operators of the matrix, each a stack of equal layers on random weights.

use nibble_core::onnx::build;
use nibble_core::onnx::proto::tensor_proto::DataType;
use nibble_core::onnx::proto::{AttributeProto, GraphProto, ModelProto, OperatorSetIdProto};

/// An operator with its shapes.
pub struct Operator {
    pub name: &'static str,
    op: &'static str,
    /// Shape of the input; of a lookup, of the indices.
    input: Vec<i64>,
    /// Shapes of the weights, the main one first.
    weights: Vec<Vec<i64>>,
    /// Entries of the bias; 0 for none.
    bias: i64,
    attributes: Vec<(&'static str, Vec<i64>)>,
    /// How many of them stand in a row where they are timed.
    pub depth: usize,
}

/// All operators, in the order of the document.
pub fn operators() -> Vec<Operator> {
    let conv = |name, op, input: &[i64], weight: &[i64], group: i64| {
        let pads = weight.iter().skip(2).map(|kernel| kernel / 2).collect::<Vec<_>>().repeat(2);
        let attributes = vec![("pads", pads), ("group", vec![group])];
        let weights = vec![weight.to_vec()];
        Operator { name, op, input: input.to_vec(), weights, bias: input[1], attributes, depth: 3 }
    };
    let matrix = |name, op, input: &[i64], weight: &[i64], attributes: Vec<(&'static str, Vec<i64>)>| {
        let bias = if op == "Gemm" { 384 } else { 0 };
        let depth = if op == "Gather" { 1 } else { 3 };
        Operator { name, op, input: input.to_vec(), weights: vec![weight.to_vec()], bias, attributes, depth }
    };
    let recurrent = |name, op, gates: i64, hidden: i64| Operator {
        name,
        op,
        input: vec![32, 1, hidden],
        weights: vec![vec![1, gates * hidden, hidden]; 2],
        bias: 0,
        attributes: vec![("hidden_size", vec![hidden])],
        depth: 1,
    };
    vec![
        conv("Conv 1-D, 32 channels", "Conv", &[1, 32, 256], &[32, 32, 3], 1),
        conv("Conv 3×3, 64 channels", "Conv", &[1, 64, 28, 28], &[64, 64, 3, 3], 1),
        conv("Conv 1×1, 128 channels", "Conv", &[1, 128, 28, 28], &[128, 128, 1, 1], 1),
        conv("Conv 3×3, 4 groups of 16", "Conv", &[1, 64, 28, 28], &[64, 16, 3, 3], 4),
        conv("Conv 3×3, 4 groups of 32", "Conv", &[1, 128, 28, 28], &[128, 32, 3, 3], 4),
        conv("Conv 3×3, depthwise", "Conv", &[1, 64, 28, 28], &[64, 1, 3, 3], 64),
        conv("Conv 3-D, 16 channels", "Conv", &[1, 16, 8, 14, 14], &[16, 16, 3, 3, 3], 1),
        conv("ConvTranspose 3×3, 32 channels", "ConvTranspose", &[1, 32, 28, 28], &[32, 32, 3, 3], 1),
        matrix("Gemm, 32 rows", "Gemm", &[32, 384], &[384, 384], Vec::new()),
        matrix("Gemm transB, 32 rows", "Gemm", &[32, 384], &[384, 384], vec![("transB", vec![1])]),
        matrix("MatMul, 1 row", "MatMul", &[1, 384], &[384, 384], Vec::new()),
        matrix("MatMul, 32 rows", "MatMul", &[32, 384], &[384, 384], Vec::new()),
        matrix("MatMul, 1 × 32 rows", "MatMul", &[1, 32, 384], &[384, 384], Vec::new()),
        matrix("MatMul, a matrix an entry", "MatMul", &[4, 16, 96], &[4, 96, 96], Vec::new()),
        matrix("Gather, 4000 × 96", "Gather", &[1, 64], &[4000, 96], Vec::new()),
        recurrent("LSTM, 64 units", "LSTM", 4, 64),
        recurrent("LSTM, 128 units", "LSTM", 4, 128),
        recurrent("LSTM, 256 units", "LSTM", 4, 256),
        recurrent("GRU, 64 units", "GRU", 3, 64),
    ]
}

impl Operator {
    /// A model of `depth` such layers in a row, from `x` to `y`.
    pub fn model(&self, depth: usize) -> ModelProto {
        let mut rng = fastrand::Rng::with_seed(11);
        let input_type = if self.op == "Gather" { DataType::Int64 } else { DataType::Float };
        let mut graph = GraphProto {
            name: Some("g".to_owned()),
            input: vec![build::value_info_typed("x", input_type, &self.input)],
            output: vec![build::value_info("y")],
            ..GraphProto::default()
        };
        for layer in 0..depth {
            let mut inputs = vec![if layer == 0 { "x".to_owned() } else { format!("t{layer}") }];
            for (slot, shape) in self.weights.iter().enumerate() {
                let name = format!("w{layer}_{slot}");
                graph.initializer.push(random(&mut rng, &name, shape, self.fan_in(shape)));
                inputs.push(name);
            }
            if self.bias > 0 {
                let name = format!("b{layer}");
                graph.initializer.push(random(&mut rng, &name, &[self.bias], 3.0));
                inputs.push(name);
            }
            if self.op == "Gather" {
                inputs.reverse();
            }
            let output = if layer + 1 == depth { "y".to_owned() } else { format!("t{}", layer + 1) };
            let attributes: Vec<AttributeProto> = self
                .attributes
                .iter()
                .map(|(name, values)| match values[..] {
                    [value] if *name != "pads" => build::attr_int(name, value),
                    _ => build::attr_ints(name, values),
                })
                .collect();
            let name = format!("layer{layer}");
            graph.node.push(build::node(self.op, "", &name, &inputs, &[output], attributes));
        }
        ModelProto {
            ir_version: Some(10),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(21) }],
            graph: Some(graph),
            ..ModelProto::default()
        }
    }

    /// Products in a sum.
    fn fan_in(&self, shape: &[i64]) -> f32 {
        let count = match self.op {
            "Conv" => shape.iter().skip(1).product(),
            "ConvTranspose" => shape[0] * shape.iter().skip(2).product::<i64>(),
            "Gather" => 3,
            _ => shape[shape.len() - 2],
        };
        count as f32
    }
}

/// Uniform values that keep the size of what passes through.
fn random(rng: &mut fastrand::Rng, name: &str, shape: &[i64], fan_in: f32) -> nibble_core::onnx::proto::TensorProto {
    let size = (3.0 / fan_in).sqrt();
    let values: Vec<f32> = (0..shape.iter().product()).map(|_: i64| (rng.f32() * 2.0 - 1.0) * size).collect();
    build::tensor_f32(name, shape, &values)
}
