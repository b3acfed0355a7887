//! How a picture becomes a tensor: size, order of axes and channels, scale, mean and standard deviation.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::DataError;

/// Order of the axes of an image tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// `[batch, channels, height, width]`.
    Nchw,
    /// `[batch, height, width, channels]`.
    Nhwc,
}

/// Order of the three colour channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red, green, blue: PIL, torchvision.
    #[default]
    Rgb,
    /// Blue, green, red: OpenCV.
    Bgr,
}

/// How a picture of another shape is brought to size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// Width and height scaled on their own.
    #[default]
    Stretch,
    /// Scaled until the shorter side fits, then cut around the centre.
    Crop,
    /// Scaled until the longer side fits, then padded with black around the centre.
    Pad,
}

/// How pictures become tensors: `value = (pixel / 255 · scale − mean) / std`, channel by channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageOptions {
    /// Width and height; `None`: the input's fixed dimensions, else the picture's own.
    pub size: Option<(u32, u32)>,
    /// Subtracted, one value or one a channel in the order in which the model gets the channels, in units after
    /// scaling.
    pub mean: Vec<f32>,
    /// Divided by, as `mean`.
    pub std: Vec<f32>,
    /// `None`: from the input's dimensions.
    pub layout: Option<Layout>,
    /// Order of the channels that the model gets.
    pub channels: ChannelOrder,
    /// What white becomes before mean and standard deviation: 1 or 255 (or another positive number). `None`: 1 for
    /// floating inputs, 255 for integers.
    pub scale: Option<f32>,
    /// How other shapes are brought to size.
    pub resize: Resize,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            size: None,
            mean: vec![0.0],
            std: vec![1.0],
            layout: None,
            channels: ChannelOrder::Rgb,
            scale: None,
            resize: Resize::Stretch,
        }
    }
}

impl FromStr for ImageOptions {
    type Err = DataError;

    /// Reads
    /// `size=224x224,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,layout=nchw,channels=bgr,scale=255,resize=crop`;
    /// every key is optional.
    fn from_str(text: &str) -> Result<Self, DataError> {
        let mut options = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((key, value)) = part.split_once('=') else {
                return Err(refuse("image option", part, "KEY=VALUE, e.g. size=224x224"));
            };
            let (key, value) = (key.trim(), value.trim());
            match key {
                "size" => options.size = Some(size(value)?),
                "mean" => options.mean = numbers(key, value, |_| true)?,
                "std" => options.std = numbers(key, value, |x| x > 0.0)?,
                "scale" => {
                    let [scale] = numbers(key, value, |x| x > 0.0)?[..] else {
                        return Err(refuse(key, value, "one positive number, e.g. 1 or 255"));
                    };
                    options.scale = Some(scale);
                }
                "layout" => {
                    options.layout = Some(match value.to_ascii_lowercase().as_str() {
                        "nchw" => Layout::Nchw,
                        "nhwc" => Layout::Nhwc,
                        _ => return Err(refuse(key, value, "nchw or nhwc")),
                    });
                }
                "channels" => {
                    options.channels = match value.to_ascii_lowercase().as_str() {
                        "rgb" => ChannelOrder::Rgb,
                        "bgr" => ChannelOrder::Bgr,
                        _ => return Err(refuse(key, value, "rgb or bgr")),
                    }
                }
                "resize" => {
                    options.resize = match value.to_ascii_lowercase().as_str() {
                        "stretch" => Resize::Stretch,
                        "crop" => Resize::Crop,
                        "pad" => Resize::Pad,
                        _ => return Err(refuse(key, value, "stretch, crop or pad")),
                    }
                }
                _ => {
                    return Err(refuse("image option", key, "size, mean, std, layout, channels, scale or resize"));
                }
            }
        }
        Ok(options)
    }
}

impl fmt::Display for ImageOptions {
    /// The form that [`FromStr`] reads, without what is at its default.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = Self::default();
        let mut parts = Vec::new();
        let list = |values: &[f32]| values.iter().map(f32::to_string).collect::<Vec<_>>().join(":");
        if let Some((width, height)) = self.size {
            parts.push(format!("size={width}x{height}"));
        }
        if self.mean != default.mean {
            parts.push(format!("mean={}", list(&self.mean)));
        }
        if self.std != default.std {
            parts.push(format!("std={}", list(&self.std)));
        }
        match self.layout {
            Some(Layout::Nchw) => parts.push("layout=nchw".to_owned()),
            Some(Layout::Nhwc) => parts.push("layout=nhwc".to_owned()),
            None => {}
        }
        if self.channels == ChannelOrder::Bgr {
            parts.push("channels=bgr".to_owned());
        }
        if let Some(scale) = self.scale {
            parts.push(format!("scale={scale}"));
        }
        match self.resize {
            Resize::Stretch => {}
            Resize::Crop => parts.push("resize=crop".to_owned()),
            Resize::Pad => parts.push("resize=pad".to_owned()),
        }
        f.write_str(&parts.join(","))
    }
}

fn refuse(key: &str, value: &str, allowed: &str) -> DataError {
    DataError::Option { key: key.to_owned(), value: value.to_owned(), allowed: allowed.to_owned() }
}

/// Largest side of a picture asked for; a larger one is a typing error.
const MAX_SIDE: u32 = 1 << 14;

fn size(value: &str) -> Result<(u32, u32), DataError> {
    let (width, height) = value.split_once(['x', 'X']).unwrap_or((value, value));
    let side = |text: &str| text.trim().parse().ok().filter(|side| (1..=MAX_SIDE).contains(side));
    match (side(width), side(height)) {
        (Some(width), Some(height)) => Ok((width, height)),
        _ => Err(refuse("size", value, "WIDTHxHEIGHT in pixels, e.g. 224x224")),
    }
}

fn numbers(key: &str, value: &str, allowed: impl Fn(f32) -> bool) -> Result<Vec<f32>, DataError> {
    let parsed: Option<Vec<f32>> =
        value.split(':').map(|x| x.trim().parse().ok().filter(|x: &f32| x.is_finite() && allowed(*x))).collect();
    match parsed {
        Some(values) if [1, 3].contains(&values.len()) => Ok(values),
        _ => Err(refuse(key, value, "one number or three with ':' between, e.g. 0.485:0.456:0.406 (std above 0)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_and_written_back() {
        let text = "size=640x480,mean=0.485:0.456:0.406,std=0.5,layout=nhwc,channels=bgr,scale=255,resize=crop";
        let options: ImageOptions = text.parse().expect("valid");
        assert_eq!(options.size, Some((640, 480)));
        assert_eq!(options.mean, [0.485, 0.456, 0.406]);
        assert_eq!(options.layout, Some(Layout::Nhwc));
        assert_eq!(options.channels, ChannelOrder::Bgr);
        assert_eq!(options.scale, Some(255.0));
        assert_eq!(options.to_string(), text);
        assert_eq!("".parse::<ImageOptions>().expect("empty"), ImageOptions::default());
    }

    #[test]
    fn bad_values_name_the_key_and_what_is_allowed() {
        for bad in ["size=0x3", "size=a", "mean=1:2", "std=0", "std=nan", "layout=chw", "tint=1", "size", "scale=1:2:3"]
        {
            let error = bad.parse::<ImageOptions>().expect_err(bad);
            assert!(!error.hint().is_empty() && error.to_string().contains("allowed"), "{error}");
        }
    }
}
