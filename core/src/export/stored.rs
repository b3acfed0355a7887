//! Integer and float16 weights as a file stores them, and the nodes that the runtime folds back when it loads.

use crate::export::patch::Patch;
use crate::export::size::written;
use crate::model::Weight;
use crate::onnx::build;
use crate::onnx::proto::{AttributeProto, TensorProto, tensor_proto::DataType};
use crate::plan::{Choice, Precision};

/// Lowest operator set with 4-bit tensors.
pub const INT4_OPSET: i64 = 21;
/// Lowest operator set whose operators can unpack smaller values from bytes (BitShift).
pub const UNPACK_OPSET: i64 = 11;
/// Lowest operator set whose Slice takes its bounds as inputs.
const SLICE_INPUTS_OPSET: i64 = 10;

/// Bytes of the nodes that unpack a weight of this name where the operator set has no type for its bits: eight for
/// 4 bits, twelve for 2.
pub fn unpacking_bytes(weight: &Weight, choice: &Choice, opset: i64) -> u64 {
    let name = written(&weight.tensor);
    match choice.precision {
        Precision::Int4 if opset < INT4_OPSET => 13 * name + 330,
        Precision::Int2 => 22 * name + 550,
        _ => 0,
    }
}

/// Values from which a matrix is looked for among those that are stored already.
const LARGE: usize = 1 << 12;

/// The transpose of a matrix of rows of so many columns.
fn transposed(values: &[i8], columns: usize) -> Vec<i8> {
    let rows = values.len() / columns.max(1);
    let mut turned = Vec::with_capacity(values.len());
    for column in 0..columns {
        turned.extend((0..rows).map(|row| values[row * columns + column]));
    }
    turned
}

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
    /// Adds a node that reads initializers only, and returns its output's name (fresh, close to `wanted`). It has no
    /// name of its own: there are many of them, and each folds away when the file loads.
    pub fn node(&mut self, op: &str, inputs: &[&str], wanted: &str, attributes: Vec<AttributeProto>) -> String {
        let output = self.patch.fresh(wanted);
        let node = build::node(op, "", "", inputs, &[&output], attributes);
        self.patch.graph(self.bodies).push_front(node);
        output
    }

    /// Adds int8 values. A large matrix that the file holds already, as it is or transposed, is not stored again: tied
    /// embeddings are looked up by row and multiplied by as columns.
    pub fn int8(&mut self, wanted: &str, dims: &[i64], values: &[i8]) -> String {
        if let &[rows, columns] = dims
            && values.len() >= LARGE
        {
            if let Some(same) = self.patch.graph(self.bodies).int8_matrix(dims, values) {
                return same;
            }
            let turned = transposed(values, columns as usize);
            if let Some(other) = self.patch.graph(self.bodies).int8_matrix(&[columns, rows], &turned) {
                return self.node("Transpose", &[&other], &format!("{wanted}_turned"), Vec::new());
            }
        }
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

    /// Adds 4-bit values as INT4, which the operator set must have.
    fn int4(&mut self, wanted: &str, dims: &[i64], values: &[i8]) -> String {
        let name = self.patch.fresh(&format!("{wanted}_int4"));
        self.patch.graph(self.bodies).push_initializer(build::tensor_i4(&name, dims, values));
        self.patch.uses_int4 = true;
        name
    }

    /// Adds int32 values.
    pub fn int32(&mut self, wanted: &str, dims: &[i64], values: &[i32]) -> String {
        let name = self.patch.fresh(wanted);
        self.patch.graph(self.bodies).push_initializer(build::tensor_i32(&name, dims, values));
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

    /// A scalar that every weight of the graph shares.
    fn shared(&mut self, name: &str, make: impl FnOnce(&str) -> TensorProto) -> String {
        if let Some(made) = self.patch.made(self.bodies, name).and_then(|made| made.into_iter().next()) {
            return made;
        }
        let tensor = make(&self.patch.fresh(name));
        let made = tensor.name().to_owned();
        self.patch.graph(self.bodies).push_initializer(tensor);
        self.patch.remember(self.bodies, name, std::slice::from_ref(&made));
        made
    }

    /// A Reshape of `input`.
    pub fn reshape(&mut self, input: &str, dims: &[i64], wanted: &str) -> String {
        let key = format!("nibble_shape_{}", dims.iter().map(i64::to_string).collect::<Vec<_>>().join("x"));
        let shape = self.shared(&key, |name| build::tensor_i64(name, &[dims.len() as i64], dims));
        self.node("Reshape", &[input, &shape], wanted, Vec::new())
    }

    /// The first `end` entries of `input` along `axis`.
    pub fn first(&mut self, input: &str, end: usize, axis: i64, wanted: &str) -> String {
        if self.opset < SLICE_INPUTS_OPSET {
            let list = |name: &str, value: i64| build::attr_ints(name, &[value]);
            let attributes = vec![list("starts", 0), list("ends", end as i64), list("axes", axis)];
            return self.node("Slice", &[input], wanted, attributes);
        }
        let start = self.shared("nibble_start", |name| build::tensor_i64(name, &[1], &[0]));
        let end = self.shared(&format!("nibble_end_{end}"), |name| build::tensor_i64(name, &[1], &[end as i64]));
        let axis = self.shared(&format!("nibble_axis_{axis}"), |name| build::tensor_i64(name, &[1], &[axis]));
        self.node("Slice", &[input, &start, &end, &axis], wanted, Vec::new())
    }

    /// Values of 4 or 2 bits (−8..=7, −2..=1) as a float tensor of `dims`, stored 2 or 4 a byte, and what has been added
    /// to each: as INT4 where the operator set has it, else packed into bytes and unpacked by operators that fold when the
    /// file loads. INT2 takes an operator set (25) that hardly any model has, and no fewer bytes.
    fn fields(&mut self, bits: u32, wanted: &str, dims: &[i64], values: &[i8]) -> (String, i8) {
        if bits == 4 && self.opset >= INT4_OPSET {
            let name = self.int4(wanted, dims, values);
            return (self.cast(&name, DataType::Float, &format!("{wanted}_cast")), 0);
        }
        let (count, levels) = ((8 / bits) as usize, 1_u8 << bits);
        let offset = (levels / 2) as i8;
        // The first part lies in the lowest bits, the last in the highest: one Concat puts them back in order.
        let part = values.len().div_ceil(count);
        let field = |at: usize| values.get(at).map_or(0, |&value| (value + offset) as u8 & (levels - 1));
        let packed: Vec<u8> = (0..part)
            .map(|at| (0..count).fold(0, |byte, f| byte | field(f * part + at) << (bits as usize * f)))
            .collect();
        let packed = self.uint8(&format!("{wanted}_packed"), &[part as i64], &packed);
        let modulus = self.shared(&format!("nibble_{levels}"), |name| build::tensor_u8(name, &[], &[levels]));
        let mut parts = Vec::new();
        for f in 0..count {
            let mut values = packed.clone();
            if f > 0 {
                let by = bits as u8 * f as u8;
                let by = self.shared(&format!("nibble_{by}"), |name| build::tensor_u8(name, &[], &[by]));
                let right = vec![build::attr_string("direction", "RIGHT")];
                values = self.node("BitShift", &[&values, &by], &format!("{wanted}_high"), right);
            }
            if f + 1 < count {
                values = self.node("Mod", &[&values, &modulus], &format!("{wanted}_low"), Vec::new());
            }
            parts.push(values);
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let axis = vec![build::attr_int("axis", 0)];
        let mut all = self.node("Concat", &parts, &format!("{wanted}_nibbles"), axis);
        if !values.len().is_multiple_of(count) {
            all = self.first(&all, values.len(), 0, &format!("{wanted}_odd"));
        }
        let shaped = self.reshape(&all, dims, &format!("{wanted}_shaped"));
        (self.cast(&shaped, DataType::Float, &format!("{wanted}_cast")), offset)
    }

    /// Integers as an int8 tensor, however many bits the file stores.
    pub fn integers(&mut self, bits: u32, wanted: &str, dims: &[i64], values: &[i8]) -> String {
        if bits == 8 {
            return self.int8(&format!("{wanted}_int8"), dims, values);
        }
        if bits == 4 && self.opset >= INT4_OPSET {
            let name = self.int4(wanted, dims, values);
            return self.cast(&name, DataType::Int8, &format!("{wanted}_int8"));
        }
        let (float, offset) = self.fields(bits, wanted, dims, values);
        let key = if bits == 4 { "nibble_offset".to_owned() } else { format!("nibble_offset_{bits}") };
        let offset = self.shared(&key, |name| build::tensor_f32(name, &[], &[f32::from(offset)]));
        let signed = self.node("Sub", &[&float, &offset], &format!("{wanted}_signed"), Vec::new());
        self.cast(&signed, DataType::Int8, &format!("{wanted}_int8"))
    }

    /// Integers as a float tensor of `dims`, and what has been added to each.
    pub fn floats(&mut self, bits: u32, wanted: &str, dims: &[i64], values: &[i8]) -> (String, i8) {
        if bits < 8 {
            return self.fields(bits, wanted, dims, values);
        }
        let stored = self.int8(&format!("{wanted}_int8"), dims, values);
        (self.cast(&stored, DataType::Float, &format!("{wanted}_cast")), 0)
    }
}
