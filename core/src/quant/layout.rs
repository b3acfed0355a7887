//! How the weights of one output channel lie in a tensor.

/// Maps (channel, element) to a flat index: `((k / inner) · channels + c) · inner + k % inner`.
///
/// Conv `[O, I/g, kh, kw]` has `outer = 1, channels = O, inner = I/g·kh·kw`; MatMul `[K, N]` has `outer = K, channels = N, inner = 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightLayout {
    /// Product of the dimensions before the channel axis.
    pub outer: usize,
    /// Number of output channels.
    pub channels: usize,
    /// Product of the dimensions after the channel axis.
    pub inner: usize,
}

impl WeightLayout {
    /// The layout of a tensor of `shape` whose channels lie along `axis`; `None` when there is no such axis.
    pub fn along(shape: &[usize], axis: usize) -> Option<Self> {
        let channels = *shape.get(axis)?;
        Some(Self { outer: shape[..axis].iter().product(), channels, inner: shape[axis + 1..].iter().product() })
    }

    /// Weights of one channel.
    pub fn depth(&self) -> usize {
        self.outer * self.inner
    }

    /// Weights in all.
    pub fn len(&self) -> usize {
        self.depth() * self.channels
    }

    /// Whether there is no weight at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Flat index of element `k` (in `0..depth()`) of channel `c`.
    pub fn index(&self, c: usize, k: usize) -> usize {
        ((k / self.inner) * self.channels + c) * self.inner + k % self.inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_follows_row_major_order() {
        let matmul = WeightLayout::along(&[3, 2], 1).expect("axis");
        assert_eq!((matmul.index(0, 0), matmul.index(1, 0), matmul.index(0, 2)), (0, 1, 4));
        let conv = WeightLayout::along(&[2, 3, 2], 0).expect("axis");
        assert_eq!((conv.index(1, 0), conv.index(1, 5)), (6, 11));
        assert!(WeightLayout::along(&[2], 1).is_none());
    }
}
