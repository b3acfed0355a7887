//! Small integers in bytes, as ONNX and ONNX Runtime store them: low bits first.

use super::weight::QuantizedWeight;
use crate::plan::Granularity;

/// ONNX INT4 or UINT4: two a byte, low nibble first, the last byte padded with 0.
pub fn pack_4bit(values: &[i8]) -> Vec<u8> {
    values.chunks(2).map(|pair| pair.iter().rev().fold(0, |byte, &q| byte << 4 | (q as u8 & 15))).collect()
}

/// ONNX INT2 or UINT2: four a byte, low bits first, the last byte padded with 0.
pub fn pack_2bit(values: &[i8]) -> Vec<u8> {
    values.chunks(4).map(|four| four.iter().rev().fold(0, |byte, &q| byte << 2 | (q as u8 & 3))).collect()
}

/// The first `count` values of packed INT4 (−8..7); missing bytes give fewer values.
pub fn unpack_4bit(bytes: &[u8], count: usize) -> Vec<i8> {
    let nibbles = bytes.iter().flat_map(|&byte| [(byte << 4) as i8 >> 4, byte as i8 >> 4]);
    nibbles.take(count).collect()
}

/// Inputs of ONNX Runtime's `com.microsoft.MatMulNBits` for a weight `[K, N]`.
#[derive(Clone, Debug, PartialEq)]
pub struct NBits {
    /// Bits of one weight: 2, 4 or 8.
    pub bits: u32,
    /// Block size along K.
    pub block: usize,
    /// uint8 `[N, ceil(K / block), block · bits / 8]`: column by column, offset to unsigned, low bits first.
    pub packed: Vec<u8>,
    /// float32 `[N · ceil(K / block)]`.
    pub scales: Vec<f32>,
    /// Packed along the blocks of a column, each column padded to a byte; `None` when all are the default (the middle).
    pub zero_points: Option<Vec<u8>>,
}

/// Packs a weight for MatMulNBits; its channels are the columns. One scale a channel or a tensor is repeated for blocks
/// of `block`, which must be a power of two from 16; a blockwise weight keeps its own block.
pub fn matmul_nbits(weight: &QuantizedWeight, block: usize) -> NBits {
    let (bits, layout) = (weight.bits, weight.layout);
    let block = if let Granularity::Block(own) = weight.granularity { own as usize } else { block }.max(1);
    let depth = layout.depth();
    let blocks = depth.div_ceil(block);
    let middle = 1_i16 << (bits - 1);
    let unsigned = |q: i8| (i16::from(q) + middle) as i8;
    let group = |c: usize, b: usize| match weight.granularity {
        Granularity::PerTensor => 0,
        Granularity::PerChannel => c,
        Granularity::Block(_) => c * blocks + b,
    };
    let groups = || (0..layout.channels).flat_map(move |c| (0..blocks).map(move |b| group(c, b)));
    let pack = |values: &[i8]| match bits {
        8 => values.iter().map(|&q| q as u8).collect(),
        4 => pack_4bit(values),
        _ => pack_2bit(values),
    };

    let turned = layout.to_channel_major(&weight.values);
    let mut packed = Vec::with_capacity(layout.channels * blocks * block * bits as usize / 8);
    let mut column = Vec::with_capacity(blocks * block);
    for channel in turned.chunks(depth.max(1)) {
        column.clear();
        column.extend(channel.iter().map(|&q| unsigned(q)));
        column.resize(blocks * block, 0);
        packed.extend(pack(&column));
    }
    let at = |values: &[f32], i: usize| values.get(i).copied().unwrap_or(1.0);
    let scales = groups().map(|g| at(&weight.scales, g)).collect();
    let zero_points = weight.zero_points.iter().any(|&z| z != 0).then(|| {
        let all: Vec<i8> = groups().map(|g| unsigned(weight.zero_points.get(g).copied().unwrap_or(0))).collect();
        all.chunks(blocks.max(1)).flat_map(pack).collect()
    });
    NBits { bits, block, packed, scales, zero_points }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::WeightLayout;

    #[test]
    fn nibbles_and_pairs_are_packed_low_first() {
        assert_eq!(pack_4bit(&[1, 2, 3, 4, 5]), [0x21, 0x43, 0x05]);
        assert_eq!(pack_4bit(&[-8, 7, -1, 0]), [0x78, 0x0f]);
        assert_eq!(pack_4bit(&[1, 15, 3]), [0xf1, 0x03]);
        assert_eq!(pack_2bit(&[1, -2, -1, 0, 1]), [0x39, 0x01]);
        assert_eq!(unpack_4bit(&[0x78, 0x0f], 3), [-8, 7, -1]);
    }

    /// The worked examples of MatMulNBits measured against the runtime: blocks, scales, odd rows of zero points.
    #[test]
    fn nbits_matches_the_layout_of_the_runtime() {
        let layout = WeightLayout { outer: 32, channels: 2, inner: 1 };
        let mut weight = QuantizedWeight {
            bits: 4,
            layout,
            granularity: Granularity::Block(16),
            values: (0..64).map(|i| (i / 2 % 16 - 8) as i8).collect(),
            scales: vec![0.5, 2.0, 1.0, 4.0],
            zero_points: vec![0; 4],
            non_finite: 0,
        };
        let packed = matmul_nbits(&weight, 32);
        assert_eq!(packed.packed[..8], [0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe]);
        assert_eq!(packed.packed.len(), 32);
        assert_eq!((packed.scales, packed.zero_points), (vec![0.5, 2.0, 1.0, 4.0], None));

        weight.layout = WeightLayout { outer: 80, channels: 2, inner: 1 };
        weight.values = vec![0; 160];
        weight.scales = vec![1.0; 10];
        weight.zero_points = [7, 5, 6, 6, 8, 7, 5, 8, 6, 4].map(|z| z - 8).to_vec();
        let packed = matmul_nbits(&weight, 32);
        assert_eq!(packed.zero_points, Some(vec![0x57, 0x66, 0x08, 0x57, 0x68, 0x04]));

        weight.bits = 8;
        weight.values[0] = 41;
        weight.zero_points[0] = -11;
        let packed = matmul_nbits(&weight, 32);
        assert_eq!((packed.packed[0], packed.zero_points.map(|z| z[0])), (169, Some(117)));
    }
}
