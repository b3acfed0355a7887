//! The data as the model gets them, for a look before calibration: wrong preprocessing is the usual mistake.

use serde::{Deserialize, Serialize};

use super::{DataError, DataSet};
use crate::tensor::Tensor;

/// One sample as the model gets it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataPreview {
    /// Which sample, from 0.
    pub sample: usize,
    /// One entry an input.
    pub inputs: Vec<InputPreview>,
}

/// What one input gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputPreview {
    /// The array, file or kind that it comes from.
    pub array: String,
    /// The input.
    pub input: String,
    /// Full shape of the sample.
    pub shape: Vec<usize>,
    /// Element type.
    pub element_type: String,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Mean.
    pub mean: f64,
    /// For what looks like a picture.
    #[serde(skip)]
    pub picture: Option<Picture>,
}

/// A picture in 8-bit RGB; the sample's smallest value is black, its largest white.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Red, green, blue of each pixel, row by row.
    pub rgb: Vec<u8>,
}

impl DataSet {
    /// Sample `index` with the range of each input, and the picture where it looks like one.
    pub fn preview(&self, index: usize) -> Result<DataPreview, DataError> {
        let sample = self.sample(index)?;
        let mut inputs = Vec::with_capacity(sample.feeds.len());
        for (number, (input, tensor)) in sample.feeds.iter().enumerate() {
            let values = tensor.values.to_f32().unwrap_or_default();
            let count = values.len().max(1) as f64;
            let (min, max) =
                values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), &x| (lo.min(x), hi.max(x)));
            let (min, max) = if values.is_empty() { (0.0, 0.0) } else { (min, max) };
            inputs.push(InputPreview {
                array: self.origin(number, index),
                input: input.clone(),
                shape: tensor.shape.clone(),
                element_type: tensor.values.type_name().to_owned(),
                min: min.into(),
                max: max.into(),
                mean: values.iter().map(|&x| f64::from(x)).sum::<f64>() / count,
                picture: picture(tensor, &values, min, max),
            });
        }
        Ok(DataPreview { sample: index, inputs })
    }
}

/// `[1, {1, 3}, H, W]`, `[1, H, W, {1, 3}]` or the same without the batch axis, at least 8 pixels a side.
fn picture(tensor: &Tensor, values: &[f32], min: f32, max: f32) -> Option<Picture> {
    let (channels, height, width, first) = match *tensor.shape.as_slice() {
        [_, c @ (1 | 3), h, w] | [c @ (1 | 3), h, w] => (c, h, w, true),
        [_, h, w, c @ (1 | 3)] | [h, w, c @ (1 | 3)] => (c, h, w, false),
        _ => return None,
    };
    if height < 8 || width < 8 || !tensor.values.is_float() && tensor.values.type_name() != "uint8" {
        return None;
    }
    let scale = if max > min { 255.0 / (max - min) } else { 0.0 };
    let mut rgb = Vec::with_capacity(height * width * 3);
    for pixel in 0..height * width {
        for colour in 0..3 {
            let channel = colour.min(channels - 1);
            let at = if first { channel * height * width + pixel } else { pixel * channels + channel };
            rgb.push(((values.get(at)? - min) * scale).round() as u8);
        }
    }
    Some(Picture { width, height, rgb })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_give_the_same_picture() {
        let first: Vec<f32> = (0..3 * 64).map(|i| (i / 64) as f32).collect();
        let last: Vec<f32> = (0..3 * 64).map(|i| (i % 3) as f32).collect();
        let a = picture(&Tensor::from_f32(vec![1, 3, 8, 8], first.clone()), &first, 0.0, 2.0).expect("nchw");
        let b = picture(&Tensor::from_f32(vec![1, 8, 8, 3], last.clone()), &last, 0.0, 2.0).expect("nhwc");
        assert_eq!(a, b);
        assert_eq!(&a.rgb[..3], [0, 128, 255]);
        assert!(picture(&Tensor::from_f32(vec![1, 4], vec![0.0; 4]), &[0.0; 4], 0.0, 0.0).is_none());
    }
}
