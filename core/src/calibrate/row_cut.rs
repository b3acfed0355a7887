//! Rows of a layer's input, each one dot product long, by number.

use crate::model::{RowCut, SamePadding, Window};

/// All rows of one input tensor.
pub(crate) struct Rows<'a> {
    values: &'a [f32],
    shape: &'a [usize],
    count: usize,
    width: usize,
    way: Way<'a>,
}

enum Way<'a> {
    /// Row `i` lies at `i · width`.
    Together,
    /// Row `i` is column `i % columns` of matrix `i / columns`.
    Columns(usize),
    /// Row `i` is a patch: the window, output sizes, padding before each axis.
    Patches(&'a Window, Vec<usize>, Vec<usize>),
}

impl<'a> Rows<'a> {
    /// The rows that `cut` makes of a tensor; `None` when it cannot be cut so or has none.
    pub(crate) fn new(cut: &'a RowCut, shape: &'a [usize], values: &'a [f32]) -> Option<Self> {
        let (width, way) = match cut {
            RowCut::None => return None,
            RowCut::LastAxis => (*shape.last()?, Way::Together),
            RowCut::FirstAxis => (*shape.first()?, Way::Columns(product(shape.get(1..)?)?)),
            RowCut::ChannelAxis => (*shape.get(1)?, Way::Columns(product(shape.get(2..)?)?)),
            RowCut::Patches(window) => {
                let (sizes, pads) = outputs(window, shape.get(2..)?)?;
                (product(&window.kernel)?.checked_mul(*shape.get(1)?)?, Way::Patches(window, sizes, pads))
            }
        };
        if width == 0 || values.is_empty() || product(shape)? != values.len() {
            return None;
        }
        let count = match &way {
            Way::Together | Way::Columns(_) => values.len() / width,
            Way::Patches(_, sizes, _) => product(sizes)?.checked_mul(shape[0])?,
        };
        (count > 0).then_some(Self { values, shape, count, width, way })
    }

    /// Number of rows.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Values in a row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Copies row `i` (below [`Self::count`]) into `row`.
    pub(crate) fn copy(&self, i: usize, row: &mut Vec<f32>) {
        row.clear();
        match &self.way {
            Way::Together => row.extend_from_slice(&self.values[i * self.width..][..self.width]),
            Way::Columns(columns) => {
                let start = i / columns * columns * self.width + i % columns;
                row.extend(self.values[start..].iter().step_by(*columns).take(self.width));
            }
            Way::Patches(window, sizes, pads) => self.patch(i, window, sizes, pads, row),
        }
    }

    fn patch(&self, i: usize, window: &Window, sizes: &[usize], pads: &[usize], row: &mut Vec<f32>) {
        let image: usize = self.shape[2..].iter().product();
        let channels = self.shape[1];
        // Where the patch begins on each axis; the last axis runs fastest.
        let mut rest = i;
        let mut corner = vec![0_isize; sizes.len()];
        for axis in (0..sizes.len()).rev() {
            corner[axis] = (rest % sizes[axis] * window.strides[axis]) as isize - pads[axis] as isize;
            rest /= sizes[axis];
        }
        // Where each element of the kernel lies in a channel's plane; all channels share that.
        let kernel: usize = window.kernel.iter().product();
        let mut places = Vec::with_capacity(kernel);
        for element in 0..kernel {
            let (mut left, mut stride, mut at, mut inside) = (element, 1, 0_usize, true);
            for axis in (0..sizes.len()).rev() {
                let size = self.shape[axis + 2];
                let offset = left % window.kernel[axis] * window.dilations[axis];
                left /= window.kernel[axis];
                let place = corner[axis] + offset as isize;
                inside &= (0..size as isize).contains(&place);
                at = at.wrapping_add((place as usize).wrapping_mul(stride));
                stride *= size;
            }
            places.push(inside.then_some(at));
        }
        let planes = &self.values[rest * channels * image..][..channels * image];
        match places.as_slice() {
            [Some(at)] => row.extend(planes[*at..].iter().step_by(image)),
            places => {
                for plane in planes.chunks_exact(image) {
                    row.extend(places.iter().map(|at| at.map_or(0.0, |at| plane[at])));
                }
            }
        }
    }
}

/// Output size and padding before, for each spatial axis (ONNX's formulae for Conv).
fn outputs(window: &Window, spatial: &[usize]) -> Option<(Vec<usize>, Vec<usize>)> {
    let axes = spatial.len();
    let fits = [window.kernel.len(), window.strides.len(), window.dilations.len()] == [axes; 3];
    if !fits || (window.same.is_none() && window.pads.len() != 2 * axes) {
        return None;
    }
    let mut sizes = Vec::with_capacity(axes);
    let mut before = Vec::with_capacity(axes);
    for (axis, &size) in spatial.iter().enumerate() {
        let stride = window.strides[axis];
        let reach = window.kernel[axis].checked_sub(1)?.checked_mul(window.dilations[axis])?.checked_add(1)?;
        if stride == 0 {
            return None;
        }
        let (output, pad) = match window.same {
            Some(same) => {
                let output = size.div_ceil(stride);
                let padding = (output.checked_sub(1)? * stride).checked_add(reach)?.saturating_sub(size);
                (output, if same == SamePadding::Upper { padding / 2 } else { padding.div_ceil(2) })
            }
            None => {
                let (begin, end) = (window.pads[axis], window.pads[axis + axes]);
                let padded = size.checked_add(begin)?.checked_add(end)?;
                (padded.checked_sub(reach)? / stride + 1, begin)
            }
        };
        sizes.push(output);
        before.push(pad);
    }
    Some((sizes, before))
}

fn product(sizes: &[usize]) -> Option<usize> {
    sizes.iter().try_fold(1_usize, |product, &size| product.checked_mul(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(cut: &RowCut, shape: &[usize]) -> Option<Vec<Vec<f32>>> {
        let values: Vec<f32> = (1..=shape.iter().product::<usize>()).map(|x| x as f32).collect();
        let rows = Rows::new(cut, shape, &values)?;
        let mut row = Vec::new();
        let all = (0..rows.count()).map(|i| {
            rows.copy(i, &mut row);
            row.clone()
        });
        Some(all.collect())
    }

    fn window(kernel: &[usize], strides: &[usize], dilations: &[usize], pads: &[usize]) -> Window {
        let [kernel, strides, dilations, pads] = [kernel, strides, dilations, pads].map(<[usize]>::to_vec);
        Window { kernel, strides, dilations, pads, same: None }
    }

    #[test]
    fn vectors_come_from_the_axis_named() {
        assert_eq!(rows(&RowCut::LastAxis, &[1, 2, 2]), Some(vec![vec![1.0, 2.0], vec![3.0, 4.0]]));
        assert_eq!(rows(&RowCut::FirstAxis, &[2, 2]), Some(vec![vec![1.0, 3.0], vec![2.0, 4.0]]));
        let channels = rows(&RowCut::ChannelAxis, &[2, 2, 2]).expect("rows");
        assert_eq!(channels, [vec![1.0, 3.0], vec![2.0, 4.0], vec![5.0, 7.0], vec![6.0, 8.0]]);
    }

    #[test]
    fn patches_follow_strides_padding_and_dilation() {
        let cut = RowCut::Patches(window(&[2, 2], &[2, 2], &[1, 1], &[0, 1, 0, 0]));
        let patches = rows(&cut, &[1, 1, 2, 3]).expect("rows");
        assert_eq!(patches, [vec![0.0, 1.0, 0.0, 4.0], vec![2.0, 3.0, 5.0, 6.0]]);
        let dilated = RowCut::Patches(window(&[2], &[1], &[2], &[0, 0]));
        let patches = rows(&dilated, &[1, 2, 3]).expect("rows");
        assert_eq!(patches, [vec![1.0, 3.0, 4.0, 6.0]]);
        let upper = RowCut::Patches(Window { same: Some(SamePadding::Upper), ..window(&[2], &[1], &[1], &[]) });
        assert_eq!(rows(&upper, &[1, 1, 2]), Some(vec![vec![1.0, 2.0], vec![2.0, 0.0]]));
        let lower = RowCut::Patches(Window { same: Some(SamePadding::Lower), ..window(&[2], &[1], &[1], &[]) });
        assert_eq!(rows(&lower, &[1, 1, 2]), Some(vec![vec![0.0, 1.0], vec![1.0, 2.0]]));
    }

    #[test]
    fn what_does_not_fit_has_no_rows() {
        let cut = RowCut::Patches(window(&[5], &[1], &[1], &[0, 0]));
        assert_eq!(rows(&cut, &[1, 1, 3]), None);
        assert_eq!(rows(&cut, &[1, 1]), None);
        assert_eq!(rows(&RowCut::Patches(window(&[1], &[0], &[1], &[0, 0])), &[1, 1, 3]), None);
        assert_eq!(rows(&RowCut::LastAxis, &[]), None);
        assert_eq!(rows(&RowCut::LastAxis, &[3, 0]), None);
        assert!(Rows::new(&RowCut::LastAxis, &[2, 2], &[1.0]).is_none());
    }
}
