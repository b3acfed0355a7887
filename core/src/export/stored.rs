//! Integer and float16 weights as a file stores them, and the nodes that the runtime folds back when it loads.

use crate::export::patch::Patch;
use crate::onnx::build;
use crate::onnx::proto::{NodeProto, tensor_proto::DataType};

/// Lowest operator set with 4-bit tensors.
pub const INT4_OPSET: i64 = 21;
/// Lowest operator set whose operators can unpack 4-bit values from bytes (BitShift).
pub const UNPACK_OPSET: i64 = 11;

/// Where stored weights go: a graph of the model being patched, with what its operator set allows.
pub struct Store<'a> {
    /// The patch.
    pub patch: &'a mut Patch,
    /// The graph.
    pub bodies: &'a [(usize, String)],
    /// The operator set.
    pub opset: i64,
}

impl Store<'_> {
    /// Adds a node that reads initializers only, and returns its output's name (fresh, close to `wanted`).
    pub fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        wanted: &str,
        attributes: Vec<crate::onnx::proto::AttributeProto>,
    ) -> String {
        let output = self.patch.fresh(wanted);
        let name = self.patch.fresh(&format!("{output}/{op}"));
        let node: NodeProto = build::node(op, "", &name, inputs, &[&output], attributes);
        self.patch.graph(self.bodies).push_front(node);
        output
    }

    /// Adds int8 values.
    pub fn int8(&mut self, wanted: &str, dims: &[i64], values: &[i8]) -> String {
        let name = self.patch.fresh(wanted);
        self.patch.graph(self.bodies).push_initializer(build::tensor_i8(&name, dims, values));
        name
    }

    /// Adds uint8 values.
    pub fn uint8(&mut self, wanted: &str, dims: &[i64], values: &[u8]) -> String {
        let name = self.patch.fresh(wanted);
        self.patch.graph(self.bodies).push_initializer(build::tensor_u8(&name, dims, values));
        name
    }

    /// Adds int32 values.
    pub fn int32(&mut self, wanted: &str, dims: &[i64], values: &[i32]) -> String {
        let name = self.patch.fresh(wanted);
        self.patch.graph(self.bodies).push_initializer(build::tensor_i32(&name, dims, values));
        name
    }

    /// Adds int64 values.
    pub fn int64(&mut self, wanted: &str, dims: &[i64], values: &[i64]) -> String {
        let name = self.patch.fresh(wanted);
        self.patch.graph(self.bodies).push_initializer(build::tensor_i64(&name, dims, values));
        name
    }

    /// Adds float32 values.
    pub fn float32(&mut self, wanted: &str, dims: &[i64], values: &[f32]) -> String {
        let name = self.patch.fresh(wanted);
        self.patch.graph(self.bodies).push_initializer(build::tensor_f32(&name, dims, values));
        name
    }

    /// A Cast of `input`.
    pub fn cast(&mut self, input: &str, to: DataType, wanted: &str) -> String {
        self.node("Cast", &[input], wanted, vec![build::attr_int("to", to as i64)])
    }

    /// 4-bit values (−8..=7) as a tensor of type `to`, stored two a byte: as INT4 where the operator set has it, else
    /// packed into bytes and unpacked by operators that the runtime folds when it loads.
    pub fn int4(&mut self, wanted: &str, dims: &[i64], values: &[i8], to: DataType) -> String {
        if self.opset >= INT4_OPSET {
            let name = self.patch.fresh(wanted);
            self.patch.graph(self.bodies).push_initializer(build::tensor_i4(&name, dims, values));
            return self.cast(&name, to, &format!("{wanted}_cast"));
        }
        // The first half in the low, the second in the high nibbles: one Concat puts them back in order.
        let half = values.len().div_ceil(2);
        let nibble = |at: usize| values.get(at).map_or(0, |&value| (value + 8) as u8 & 15);
        let packed: Vec<u8> = (0..half).map(|at| nibble(at) | nibble(half + at) << 4).collect();
        let packed = self.uint8(wanted, &[half as i64], &packed);
        let sixteen = self.uint8(&format!("{wanted}_16"), &[], &[16]);
        let four = self.uint8(&format!("{wanted}_4"), &[], &[4]);
        let low = self.node("Mod", &[&packed, &sixteen], &format!("{wanted}_low"), Vec::new());
        let high = self.node(
            "BitShift",
            &[&packed, &four],
            &format!("{wanted}_high"),
            vec![build::attr_string("direction", "RIGHT")],
        );
        let mut all =
            self.node("Concat", &[&low, &high], &format!("{wanted}_nibbles"), vec![build::attr_int("axis", 0)]);
        if values.len() % 2 == 1 {
            let start = self.int64(&format!("{wanted}_start"), &[1], &[0]);
            let end = self.int64(&format!("{wanted}_end"), &[1], &[values.len() as i64]);
            all = self.node("Slice", &[&all, &start, &end], &format!("{wanted}_even"), Vec::new());
        }
        let shape = self.int64(&format!("{wanted}_shape"), &[dims.len() as i64], dims);
        let shaped = self.node("Reshape", &[&all, &shape], &format!("{wanted}_shaped"), Vec::new());
        let float = self.cast(&shaped, DataType::Float, &format!("{wanted}_offset"));
        let eight = self.float32(&format!("{wanted}_8"), &[], &[8.0]);
        let signed = self.node("Sub", &[&float, &eight], &format!("{wanted}_signed"), Vec::new());
        if to == DataType::Float { signed } else { self.cast(&signed, to, &format!("{wanted}_cast")) }
    }

    /// Integers of `bits` bits as a tensor of type `to`.
    pub fn integers(&mut self, bits: u32, wanted: &str, dims: &[i64], values: &[i8], to: DataType) -> String {
        if bits == 4 && self.opset >= UNPACK_OPSET {
            return self.int4(wanted, dims, values, to);
        }
        let name = self.int8(wanted, dims, values);
        if to == DataType::Int8 { name } else { self.cast(&name, to, &format!("{wanted}_cast")) }
    }
}
