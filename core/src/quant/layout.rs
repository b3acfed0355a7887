//! Where the weights of one output channel lie in a tensor.

use std::borrow::Cow;

use rayon::prelude::*;

/// A weight tensor seen as `outer × channels × inner`: element `k` (of [`Self::depth`]) of channel `c` lies at
/// `((k / inner) · channels + c) · inner + k % inner`.
///
/// Conv `[O, I/g, kh, kw]`: outer 1, channels O, inner the rest. MatMul `[K, N]`: outer K, channels N, inner 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightLayout {
    /// Product of the dimensions before the channel axis.
    pub outer: usize,
    /// Size of the channel axis.
    pub channels: usize,
    /// Product of the dimensions after the channel axis.
    pub inner: usize,
}

/// Edge of the tiles in which a matrix is turned: two cache lines of float32.
const TILE: usize = 32;

impl WeightLayout {
    /// The layout of a tensor of `shape` whose channels lie along `axis`; `None` when there is no such axis.
    pub fn along(shape: &[usize], axis: usize) -> Option<Self> {
        let product = |dims: &[usize]| dims.iter().fold(1_usize, |a, &b| a.saturating_mul(b));
        let channels = *shape.get(axis)?;
        Some(Self { outer: product(&shape[..axis]), channels, inner: product(&shape[axis + 1..]) })
    }

    /// Weights of one channel.
    pub fn depth(&self) -> usize {
        self.outer.saturating_mul(self.inner)
    }

    /// Weights in all.
    pub fn len(&self) -> usize {
        self.depth().saturating_mul(self.channels)
    }

    /// Whether there is no weight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Flat index of element `k` of channel `c`.
    pub fn index(&self, c: usize, k: usize) -> usize {
        ((k / self.inner) * self.channels + c) * self.inner + k % self.inner
    }

    /// The values channel by channel: element `k` of channel `c` at `c · depth + k`. Borrowed where it is so already.
    /// `values` holds [`Self::len`] values.
    pub fn to_channel_major<'a, T: Copy + Default + Send + Sync>(&self, values: &'a [T]) -> Cow<'a, [T]> {
        if self.outer == 1 || self.channels == 1 || self.is_empty() {
            return Cow::Borrowed(values);
        }
        Cow::Owned(turn(values, self.outer, self.channels, self.inner))
    }

    /// Back from [`Self::to_channel_major`] to the tensor's own order.
    pub fn from_channel_major<T: Copy + Default + Send + Sync>(&self, values: Vec<T>) -> Vec<T> {
        if self.outer == 1 || self.channels == 1 || self.is_empty() {
            return values;
        }
        turn(&values, self.channels, self.outer, self.inner)
    }
}

/// Transposes a matrix of `rows × columns` cells of `cell` values each.
fn turn<T: Copy + Default + Send + Sync>(values: &[T], rows: usize, columns: usize, cell: usize) -> Vec<T> {
    let mut out = vec![T::default(); values.len()];
    out.par_chunks_mut(TILE * rows * cell).enumerate().for_each(|(panel, out)| {
        let from = panel * TILE;
        let width = TILE.min(columns - from);
        let mut tile = [T::default(); TILE * TILE];
        for top in (0..rows).step_by(TILE) {
            let height = TILE.min(rows - top);
            if cell == 1 {
                // Through a small tile, so that every cache line is read and written whole, once.
                for (r, line) in values[top * columns..].chunks(columns).take(height).enumerate() {
                    for (c, &x) in line[from..from + width].iter().enumerate() {
                        tile[c * TILE + r] = x;
                    }
                }
                for (c, line) in out.chunks_mut(rows).enumerate() {
                    line[top..top + height].copy_from_slice(&tile[c * TILE..][..height]);
                }
            } else {
                for (r, line) in values[top * columns * cell..].chunks(columns * cell).take(height).enumerate() {
                    for (c, source) in line[from * cell..].chunks(cell).take(width).enumerate() {
                        out[(c * rows + top + r) * cell..][..cell].copy_from_slice(source);
                    }
                }
            }
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_major_follows_the_formula_and_comes_back() {
        for layout in [
            WeightLayout { outer: 1, channels: 5, inner: 9 },
            WeightLayout { outer: 131, channels: 70, inner: 1 },
            WeightLayout { outer: 3, channels: 67, inner: 4 },
            WeightLayout { outer: 2, channels: 1, inner: 4 },
            WeightLayout { outer: 0, channels: 3, inner: 4 },
        ] {
            let values: Vec<u32> = (0..layout.len() as u32).collect();
            let turned = layout.to_channel_major(&values);
            for c in 0..layout.channels {
                for k in 0..layout.depth() {
                    assert_eq!(turned[c * layout.depth() + k], values[layout.index(c, k)], "{layout:?}");
                }
            }
            assert_eq!(layout.from_channel_major(turned.into_owned()), values, "{layout:?}");
        }
    }

    #[test]
    fn shapes_give_the_layouts_of_conv_and_matmul() {
        assert_eq!(WeightLayout::along(&[8, 3, 3, 3], 0), Some(WeightLayout { outer: 1, channels: 8, inner: 27 }));
        let matmul = WeightLayout::along(&[384, 1536], 1).expect("axis");
        assert_eq!((matmul.index(0, 0), matmul.index(1, 0), matmul.index(0, 2)), (0, 1, 3072));
        assert_eq!(WeightLayout::along(&[2], 1), None);
    }
}
