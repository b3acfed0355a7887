//! Calibration and evaluation inputs: `.npz`, `.npy`, folders of either `.npz` files or images, and random numbers.
//! One sample is in memory at a time, whatever the size of the file.

mod arrays;
mod convert;
mod data_error;
mod dtype;
mod fit;
mod folder;
mod image_options;
mod images;
mod labels;
mod npy;
mod npz;
mod preview;
mod random;
mod set;
mod shapes;

pub(crate) use convert::convert;
pub use data_error::DataError;
pub use image_options::{ChannelOrder, ImageOptions, Layout, Resize};
pub use labels::labels;
pub use preview::{DataPreview, InputPreview, Picture};
pub use set::{DataKind, DataOptions, DataSet};

use crate::tensor::Tensor;

/// What one run of the model is fed with: input name and tensor, in the order of the model's inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// One tensor an input, with the full shape that the model gets (batch axis included).
    pub feeds: Vec<(String, Tensor)>,
}

impl Sample {
    /// The tensor of the input called `name`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.feeds.iter().find(|(feed, _)| feed == name).map(|(_, tensor)| tensor)
    }
}
