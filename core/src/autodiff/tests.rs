//! Every rule against differences of real runs: for random directions d, Σ g·d has to be what ONNX Runtime's own outputs
//! at x ± ε·d differ by.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::ArrayD;

use super::call::Call;
use super::rules::{self, Kind};
use super::{Data, Event, Program, Tracer, Value};
use crate::Control;
use crate::data::Sample;
use crate::model::Model;
use crate::onnx::build::{self, attr_float, attr_int, attr_ints, attr_string, node, tensor_f32, tensor_i64};
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{AttributeProto, GraphProto, ModelProto, OperatorSetIdProto, TensorProto};
use crate::onnx::save;
use crate::runtime::{Level, Runtime, Session, SessionOptions, Source};
use crate::tensor::Tensor;

/// One operator on float inputs `a`, `b`, … of these shapes, then constants.
struct Case {
    op: &'static str,
    opset: i64,
    shapes: Vec<Vec<usize>>,
    constants: Vec<TensorProto>,
    outputs: usize,
    attributes: Vec<AttributeProto>,
    /// Values lie around this centre, so that roots and logarithms have some to work on.
    centre: f32,
    /// Half the width of the values.
    spread: f32,
}

fn case(op: &'static str, shapes: &[&[usize]]) -> Case {
    Case {
        op,
        opset: 17,
        shapes: shapes.iter().map(|shape| shape.to_vec()).collect(),
        constants: Vec::new(),
        outputs: 1,
        attributes: Vec::new(),
        centre: 0.0,
        spread: 1.0,
    }
}

impl Case {
    fn with(mut self, attribute: AttributeProto) -> Self {
        self.attributes.push(attribute);
        self
    }

    fn ints(mut self, values: &[i64]) -> Self {
        let name = format!("c{}", self.constants.len());
        self.constants.push(tensor_i64(&name, &[values.len() as i64], values));
        self
    }

    fn floats(mut self, dims: &[i64], values: &[f32]) -> Self {
        let name = format!("c{}", self.constants.len());
        self.constants.push(tensor_f32(&name, dims, values));
        self
    }

    /// An optional input left out.
    fn without(mut self) -> Self {
        self.constants.push(TensorProto::default());
        self
    }

    fn around(mut self, centre: f32, spread: f32) -> Self {
        (self.centre, self.spread) = (centre, spread);
        self
    }

    fn opset(mut self, opset: i64) -> Self {
        self.opset = opset;
        self
    }

    fn outputs(mut self, outputs: usize) -> Self {
        self.outputs = outputs;
        self
    }

    fn proto(&self) -> ModelProto {
        let names: Vec<String> = (0..self.shapes.len()).map(|i| format!("x{i}")).collect();
        let mut inputs = names.clone();
        inputs.extend(self.constants.iter().map(|tensor| tensor.name().to_owned()));
        let parts: Vec<String> = (0..self.outputs).map(|i| format!("part{i}")).collect();
        let mut nodes = vec![node(self.op, "", "it", &inputs, &parts, self.attributes.clone())];
        // Several outputs are weighed against each other, so that each one's place matters.
        let mut result = parts[0].clone();
        for (at, part) in parts.iter().enumerate().skip(1) {
            let sum = format!("sum{at}");
            nodes.push(node("Sub", "", &sum, &[part.as_str(), result.as_str()], &[sum.as_str()], vec![]));
            result = sum;
        }
        let port = |name: &str, dims: &[i64]| build::value_info_typed(name, DataType::Float, dims);
        let dims = |shape: &[usize]| shape.iter().map(|&size| size as i64).collect::<Vec<_>>();
        ModelProto {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(self.opset) }],
            graph: Some(GraphProto {
                name: Some("g".to_owned()),
                node: nodes,
                initializer: self.constants.iter().filter(|tensor| !tensor.name().is_empty()).cloned().collect(),
                input: names.iter().zip(&self.shapes).map(|(name, shape)| port(name, &dims(shape))).collect(),
                output: vec![build::value_info(&result)],
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        }
    }

    /// The largest difference between the two slopes, relative to their size, over some directions.
    fn check(&self) {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("model.onnx");
        save(&self.proto(), None, &path).expect("saved");
        let control = Control::new();
        let model = Model::load(&path, &control).expect("loads");
        let runtime = Runtime::start(None, &control).expect("ONNX Runtime");
        let sources: BTreeSet<String> = model.inputs.iter().map(|port| port.name.clone()).collect();
        let output = model.outputs[0].name.clone();
        let program = Program::new(&model, &output, &sources, &BTreeMap::new()).expect("program");
        assert!(program.blocked.is_empty(), "{}: {:?}", self.op, program.blocked);
        let mut rng = fastrand::Rng::with_seed(3);
        let mut random = |count: usize| -> Vec<f32> { (0..count).map(|_| rng.f32() * 2.0 - 1.0).collect() };
        let mut order = fastrand::Rng::with_seed(5);
        let feeds: Vec<(String, Vec<usize>, Vec<f32>)> = self
            .shapes
            .iter()
            .enumerate()
            .map(|(i, shape)| {
                // Evenly spread and shuffled: no two so close that a step makes another one the largest, none at a kink.
                let count = shape.iter().product::<usize>();
                let mut values: Vec<f32> = (0..count).map(|i| (i as f32 + 0.37) / count as f32 * 2.0 - 1.0).collect();
                order.shuffle(&mut values);
                (format!("x{i}"), shape.clone(), values.iter().map(|v| self.centre + self.spread * v).collect())
            })
            .collect();
        let sample = |shift: Option<(&[Vec<f32>], f32)>| Sample {
            feeds: feeds
                .iter()
                .enumerate()
                .map(|(i, (name, shape, values))| {
                    let mut values = values.clone();
                    if let Some((directions, by)) = shift {
                        values.iter_mut().zip(&directions[i]).for_each(|(v, d)| *v += by * d);
                    }
                    (name.clone(), Tensor::from_f32(shape.clone(), values))
                })
                .collect(),
        };
        let mut tracer = Tracer::new(&model, &program, runtime, 1).expect("opens");
        let values = tracer.trace(&sample(None), &control).expect("runs");
        let shape = values[&output].shape.clone();
        let seed = random(shape.iter().product());
        let mut gradients: BTreeMap<String, ArrayD<f32>> = BTreeMap::new();
        let array = ArrayD::from_shape_vec(shape, seed.clone()).expect("shape");
        let mut report = |event: Event<'_>| {
            if let Event::Activation { tensor, edges, .. } = event {
                gradients.insert(
                    tensor.to_owned(),
                    edges.iter().fold(edges[0].gradient.clone() * 0.0, |s, e| s + &e.gradient),
                );
            }
        };
        program.backward(&values, array, &sources, &mut report).expect(self.op);

        let options = SessionOptions { level: Level::Disable, ..SessionOptions::default() };
        let mut session = Session::open(runtime, Source::File(&path), &options).expect("opens");
        let mut loss = |sample: &Sample| -> f64 {
            let outputs = session.run(sample, &control).expect("runs");
            let values = outputs[0].value.as_ref().and_then(|tensor| tensor.values.to_f32()).expect("floats");
            values.iter().zip(&seed).map(|(&y, &s)| f64::from(y) * f64::from(s)).sum()
        };
        let step = 2e-3 * self.spread;
        for _ in 0..4 {
            let directions: Vec<Vec<f32>> = feeds.iter().map(|(_, _, values)| random(values.len())).collect();
            let (up, down) = (loss(&sample(Some((&directions, step)))), loss(&sample(Some((&directions, -step)))));
            let measured = (up - down) / (2.0 * f64::from(step));
            let (mut slope, mut size) = (0.0, 0.0);
            for ((name, ..), direction) in feeds.iter().zip(&directions) {
                let Some(gradient) = gradients.get(name) else { panic!("{}: no gradient for {name}", self.op) };
                for (&g, &d) in gradient.iter().zip(direction) {
                    slope += f64::from(g) * f64::from(d);
                    size += (f64::from(g) * f64::from(d)).powi(2);
                }
            }
            let close = (slope - measured).abs() <= 2e-2 * size.sqrt() + 1e-3;
            assert!(close, "{} (opset {}): {slope} by rule, {measured} by differences", self.op, self.opset);
        }
    }
}

#[test]
fn values_one_by_one() {
    for op in ["Relu", "Sigmoid", "Tanh", "Erf", "Exp", "Neg", "Abs", "Sin", "Cos", "Softplus", "Softsign", "Identity"]
    {
        case(op, &[&[3, 5]]).check();
    }
    for op in ["LeakyRelu", "Elu", "Selu", "Celu", "HardSigmoid", "HardSwish"] {
        case(op, &[&[3, 5]]).around(0.0, 2.0).check();
    }
    for op in ["Log", "Sqrt", "Reciprocal"] {
        case(op, &[&[3, 5]]).around(1.5, 0.5).check();
    }
    case("Gelu", &[&[4, 6]]).opset(20).around(0.0, 3.0).check();
    case("Gelu", &[&[4, 6]]).opset(20).around(0.0, 3.0).with(attr_string("approximate", "tanh")).check();
    case("Mish", &[&[4, 6]]).opset(18).around(0.0, 3.0).check();
    case("Clip", &[&[4, 5]]).floats(&[], &[-0.3]).floats(&[], &[0.4]).check();
    case("Clip", &[&[4, 5]]).opset(10).with(attr_float("min", -0.3)).with(attr_float("max", 0.4)).check();
    case("ThresholdedRelu", &[&[4, 5]]).with(attr_float("alpha", 0.3)).check();
}

#[test]
fn no_slope_is_infinite() {
    for (op, y) in [("Log", f32::NEG_INFINITY), ("Sqrt", 0.0), ("Reciprocal", f32::INFINITY)] {
        let node = node(op, "", "", &["x"], &["y"], vec![]);
        let value = |values: Vec<f32>| Value { shape: vec![values.len()], data: Data::F32(values.into()) };
        let (x, y) = (value(vec![0.0, 4.0]), value(vec![y, 2.0]));
        let call = Call { node: &node, opset: 17, inputs: vec![Some(&x)], outputs: vec![Some(&y)], wants: &[true] };
        let Kind::Rule(rule) = rules::kind(&node) else { panic!("{op} has a rule") };
        let back = rule(&call, vec![Some(ArrayD::from_elem(vec![2], 1.0))]).expect("passes");
        let back: Vec<f32> = back[0].iter().flatten().copied().collect();
        assert!(back.iter().all(|slope| slope.is_finite()) && back[0].abs() > 50.0, "{op}: {back:?}");
    }
}

#[test]
fn two_operands_that_broadcast() {
    for op in ["Add", "Sub", "Mul", "Div"] {
        case(op, &[&[2, 3, 4], &[3, 1]]).around(1.5, 0.5).check();
        case(op, &[&[4], &[2, 3, 4]]).around(1.5, 0.5).check();
        case(op, &[&[2, 4], &[2, 4]]).around(1.5, 0.5).check();
    }
    for op in ["Max", "Min", "Sum", "Mean"] {
        case(op, &[&[2, 3, 4], &[3, 1], &[4]]).check();
    }
    case("Pow", &[&[3, 4]]).floats(&[], &[2.0]).check();
    case("Pow", &[&[3, 4]]).floats(&[4], &[2.0, 3.0, 0.5, 1.0]).around(1.5, 0.5).check();
    case("PRelu", &[&[2, 3, 4]]).floats(&[3, 1], &[0.1, 0.2, 0.3]).check();
}

#[test]
fn matrix_products() {
    case("MatMul", &[&[3, 4], &[4, 5]]).check();
    case("MatMul", &[&[2, 3, 4], &[4, 5]]).check();
    case("MatMul", &[&[2, 1, 3, 4], &[3, 4, 5]]).check();
    case("MatMul", &[&[4], &[2, 4, 3]]).check();
    case("MatMul", &[&[3, 4], &[4]]).check();
    for (turn_a, turn_b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let a: &[usize] = if turn_a == 1 { &[4, 3] } else { &[3, 4] };
        let b: &[usize] = if turn_b == 1 { &[5, 4] } else { &[4, 5] };
        let gemm = case("Gemm", &[a, b, &[5]]).with(attr_int("transA", turn_a)).with(attr_int("transB", turn_b));
        gemm.with(attr_float("alpha", 0.7)).with(attr_float("beta", 1.3)).check();
    }
}

#[test]
fn convolutions() {
    let pads = |pads: &[i64]| attr_ints("pads", pads);
    case("Conv", &[&[2, 4, 5, 6], &[6, 4, 1, 1], &[6]]).check();
    case("Conv", &[&[2, 4, 5, 6], &[6, 4, 3, 3]]).with(pads(&[1, 1, 1, 1])).check();
    case("Conv", &[&[1, 4, 7, 8], &[6, 2, 3, 2]])
        .with(attr_int("group", 2))
        .with(attr_ints("strides", &[2, 3]))
        .check();
    case("Conv", &[&[1, 3, 9, 9], &[2, 3, 3, 3]])
        .with(pads(&[2, 0, 1, 3]))
        .with(attr_ints("dilations", &[2, 3]))
        .with(attr_ints("strides", &[2, 1]))
        .check();
    for strides in [1, 2] {
        let depthwise = case("Conv", &[&[2, 4, 6, 7], &[4, 1, 3, 3]]).with(attr_int("group", 4));
        depthwise.with(pads(&[1, 1, 1, 1])).with(attr_ints("strides", &[strides, strides])).check();
    }
    for auto in ["SAME_UPPER", "SAME_LOWER", "VALID"] {
        let strides = attr_ints("strides", &[2, 2]);
        case("Conv", &[&[1, 3, 6, 7], &[2, 3, 3, 2]]).with(attr_string("auto_pad", auto)).with(strides).check();
    }
    case("Conv", &[&[2, 3, 9], &[4, 3, 3]]).with(pads(&[1, 1])).with(attr_ints("strides", &[2])).check();
    case("ConvTranspose", &[&[2, 4, 3, 4], &[4, 3, 2, 2]]).with(attr_ints("strides", &[2, 2])).check();
    case("ConvTranspose", &[&[1, 4, 3, 4], &[4, 2, 3, 3]])
        .with(attr_int("group", 2))
        .with(pads(&[1, 1, 1, 1]))
        .with(attr_ints("output_padding", &[1, 1]))
        .with(attr_ints("strides", &[2, 2]))
        .check();
}

#[test]
fn normalisations_and_softmaxes() {
    for op in ["Softmax", "LogSoftmax"] {
        case(op, &[&[3, 4, 5]]).check();
        case(op, &[&[3, 4, 5]]).with(attr_int("axis", 1)).check();
        case(op, &[&[3, 2, 5]]).opset(11).check();
    }
    let scale = [0.5, 1.0, 1.5, 2.0];
    case("LayerNormalization", &[&[3, 4]]).floats(&[4], &scale).floats(&[4], &scale).check();
    case("LayerNormalization", &[&[3, 2, 2]])
        .floats(&[2, 2], &scale)
        .with(attr_int("axis", 1))
        .with(attr_float("epsilon", 0.1))
        .check();
    case("InstanceNormalization", &[&[2, 4, 5]]).floats(&[4], &scale).floats(&[4], &scale).check();
    case("BatchNormalization", &[&[2, 4, 5]])
        .floats(&[4], &scale)
        .floats(&[4], &scale)
        .floats(&[4], &scale)
        .floats(&[4], &scale)
        .check();
    let groups = case("GroupNormalization", &[&[2, 4, 5]]).opset(21).with(attr_int("num_groups", 2));
    groups.floats(&[4], &scale).floats(&[4], &scale).check();
}

#[test]
fn reductions_and_pools() {
    for op in ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare"] {
        let old = |shape: &'static [usize]| case(op, &[shape]).opset(12);
        old(&[3, 4, 5]).with(attr_ints("axes", &[1])).check();
        old(&[3, 4, 5]).with(attr_ints("axes", &[-1, 0])).with(attr_int("keepdims", 0)).check();
        case(op, &[&[3, 4, 5]]).opset(18).ints(&[1, 2]).check();
    }
    case("ReduceLogSumExp", &[&[3, 4]]).opset(18).ints(&[1]).check();
    case("GlobalAveragePool", &[&[2, 3, 4, 5]]).check();
    case("GlobalMaxPool", &[&[2, 3, 4, 5]]).check();
    for op in ["MaxPool", "AveragePool"] {
        let pool = || case(op, &[&[1, 2, 7, 8]]).with(attr_ints("kernel_shape", &[3, 2]));
        pool().check();
        pool().with(attr_ints("strides", &[2, 2])).with(attr_ints("pads", &[1, 0, 1, 1])).check();
        pool().with(attr_ints("strides", &[2, 3])).with(attr_int("ceil_mode", 1)).check();
        pool().with(attr_string("auto_pad", "SAME_UPPER")).with(attr_ints("strides", &[2, 2])).check();
        case(op, &[&[2, 3, 9]]).with(attr_ints("kernel_shape", &[3])).check();
    }
    case("AveragePool", &[&[1, 2, 6, 6]])
        .with(attr_ints("kernel_shape", &[3, 3]))
        .with(attr_ints("pads", &[1, 1, 1, 1]))
        .with(attr_int("count_include_pad", 1))
        .check();
    case("MaxPool", &[&[1, 2, 9]]).with(attr_ints("kernel_shape", &[3])).with(attr_ints("dilations", &[2])).check();
}

#[test]
fn values_that_are_moved() {
    case("Reshape", &[&[3, 4]]).ints(&[2, 6]).check();
    case("Flatten", &[&[2, 3, 4]]).check();
    case("Transpose", &[&[2, 3, 4]]).with(attr_ints("perm", &[2, 0, 1])).check();
    case("Transpose", &[&[2, 3]]).check();
    case("Squeeze", &[&[2, 1, 4]]).ints(&[1]).check();
    case("Unsqueeze", &[&[2, 4]]).ints(&[1]).check();
    case("Slice", &[&[5, 6]]).ints(&[1, -1]).ints(&[4, -6]).ints(&[0, 1]).ints(&[2, -2]).check();
    case("Slice", &[&[5, 6]]).opset(9).with(attr_ints("starts", &[1])).with(attr_ints("ends", &[9000])).check();
    case("Expand", &[&[3, 1]]).ints(&[2, 3, 4]).check();
    case("Tile", &[&[2, 3]]).ints(&[2, 2]).check();
    case("Gather", &[&[4, 3]]).ints(&[2, 0, 2, -1]).check();
    case("Gather", &[&[4, 3]]).ints(&[2, 0]).with(attr_int("axis", 1)).check();
    let mut elements = case("GatherElements", &[&[3, 2]]).with(attr_int("axis", 0));
    elements.constants.push(tensor_i64("c0", &[2, 2], &[2, 0, 2, -2]));
    elements.check();
    let mut points = case("GatherND", &[&[3, 2, 4]]);
    points.constants.push(tensor_i64("c0", &[3, 2], &[2, 0, 1, 1, 2, 0]));
    points.check();
    case("Pad", &[&[3, 4]]).ints(&[1, 0, 2, -1]).check();
    for mode in ["edge", "reflect"] {
        case("Pad", &[&[3, 4]]).ints(&[1, 2, 2, 1]).with(attr_string("mode", mode)).check();
    }
    for mode in ["DCR", "CRD"] {
        case("DepthToSpace", &[&[1, 8, 2, 3]]).with(attr_int("blocksize", 2)).with(attr_string("mode", mode)).check();
    }
    case("SpaceToDepth", &[&[1, 2, 4, 6]]).with(attr_int("blocksize", 2)).check();
    case("Concat", &[&[2, 3], &[2, 2]]).with(attr_int("axis", -1)).check();
    case("Split", &[&[2, 6]]).with(attr_int("axis", 1)).outputs(3).check();
    let mut choose = case("Where", &[&[2, 3], &[3]]);
    choose.constants.clear();
    choose.check_where();
}

impl Case {
    /// Where takes its condition first, so it cannot be written as the others are.
    fn check_where(&self) {
        let mut proto = self.proto();
        let graph = proto.graph.as_mut().expect("graph");
        graph.node[0].input.insert(0, "condition".to_owned());
        let bytes = vec![1, 0, 1, 0, 0, 1];
        graph.initializer.push(build::tensor_raw("condition", DataType::Bool, &[2, 3], bytes));
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("model.onnx");
        save(&proto, None, &path).expect("saved");
        let control = Control::new();
        let model = Model::load(&path, &control).expect("loads");
        let sources: BTreeSet<String> = model.inputs.iter().map(|port| port.name.clone()).collect();
        let program = Program::new(&model, &model.outputs[0].name, &sources, &BTreeMap::new()).expect("program");
        let runtime = Runtime::start(None, &control).expect("ONNX Runtime");
        let feeds = vec![
            ("x0".to_owned(), Tensor::from_f32(vec![2, 3], vec![1.0; 6])),
            ("x1".to_owned(), Tensor::from_f32(vec![3], vec![2.0; 3])),
        ];
        let mut tracer = Tracer::new(&model, &program, runtime, 1).expect("opens");
        let values = tracer.trace(&Sample { feeds }, &control).expect("runs");
        let seed = ArrayD::from_shape_vec(vec![2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).expect("shape");
        let mut seen = BTreeMap::new();
        let mut report = |event: Event<'_>| {
            if let Event::Activation { tensor, edges, .. } = event {
                seen.insert(tensor.to_owned(), edges[0].gradient.iter().copied().collect::<Vec<_>>());
            }
        };
        program.backward(&values, seed, &sources, &mut report).expect("goes back");
        assert_eq!(seen["x0"], [1.0, 0.0, 3.0, 0.0, 0.0, 6.0]);
        assert_eq!(seen["x1"], [4.0, 7.0, 0.0]);
    }
}

#[test]
fn resizing() {
    for (mode, transform) in [
        ("nearest", "asymmetric"),
        ("nearest", "half_pixel"),
        ("linear", "half_pixel"),
        ("linear", "align_corners"),
        ("linear", "pytorch_half_pixel"),
        ("linear", "asymmetric"),
    ] {
        for sizes in [[1, 2, 6, 7], [1, 2, 2, 9]] {
            let resize = case("Resize", &[&[1, 2, 3, 4]]).without().without().ints(&sizes);
            let transform = attr_string("coordinate_transformation_mode", transform);
            resize.with(attr_string("mode", mode)).with(transform).check();
        }
    }
    let mut scaled = case("Resize", &[&[1, 1, 3, 4]]).without().floats(&[4], &[1.0, 1.0, 2.0, 1.5]);
    scaled = scaled.with(attr_string("mode", "nearest")).with(attr_string("nearest_mode", "floor"));
    scaled.with(attr_string("coordinate_transformation_mode", "asymmetric")).check();
    let upsample = case("Upsample", &[&[1, 2, 3, 4]]).opset(9).floats(&[4], &[1.0, 1.0, 2.0, 2.0]);
    upsample.with(attr_string("mode", "nearest")).check();
}

#[test]
fn what_has_no_backward_is_named_and_spoils_only_what_lies_before_it() {
    // x → Cumulated → Add(w) → y: CumSum has no rule.
    let nodes = vec![
        node("Mul", "", "first", &["x", "scale"], &["scaled"], vec![]),
        node("CumSum", "", "sum", &["scaled", "axis"], &["summed"], vec![]),
        node("Add", "", "last", &["summed", "shift"], &["y"], vec![]),
    ];
    let proto = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(17) }],
        graph: Some(GraphProto {
            name: Some("g".to_owned()),
            node: nodes,
            initializer: vec![
                tensor_f32("scale", &[3], &[1.0, 2.0, 3.0]),
                tensor_f32("shift", &[3], &[1.0, 2.0, 3.0]),
                tensor_i64("axis", &[], &[1]),
            ],
            input: vec![build::value_info_typed("x", DataType::Float, &[1, 3])],
            output: vec![build::value_info("y")],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    };
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("model.onnx");
    save(&proto, None, &path).expect("saved");
    let model = Model::load(&path, &Control::new()).expect("loads");
    let sources: BTreeSet<String> = ["x", "scale", "shift", "summed"].map(str::to_owned).into();
    let program = Program::new(&model, "y", &sources, &BTreeMap::new()).expect("program");
    let blocked: Vec<_> = program.blocked.iter().map(|blocked| blocked.op.as_str()).collect();
    assert_eq!(blocked, ["CumSum"]);
    for (tensor, complete) in [("shift", true), ("summed", true), ("scale", false), ("scaled", false), ("gone", false)]
    {
        assert_eq!(program.is_complete(tensor), complete, "{tensor}");
    }
}
