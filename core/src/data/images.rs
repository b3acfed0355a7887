//! A folder of pictures as samples: decoded, brought to size, scaled and normalised one at a time.

use std::path::{Path, PathBuf};

use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageReader, RgbImage};

use super::folder::{file_name, files_with};
use super::{ChannelOrder, DataError, ImageOptions, Layout, Resize, Sample, convert};
use crate::limits;
use crate::port::{Dim, Port};
use crate::tensor::{Tensor, Values};

/// Extensions of the pictures that are read.
pub const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];

/// Extensions of pictures that are not read, and said to be left out.
const OTHERS: [&str; 9] = ["webp", "bmp", "gif", "tif", "tiff", "heic", "avif", "ppm", "jfif"];

/// The pictures and how each becomes the model's input.
#[derive(Debug)]
pub struct Images {
    files: Vec<PathBuf>,
    /// Class number of each picture, where sub-folders name the classes.
    pub labels: Option<Vec<i64>>,
    port: Port,
    options: ImageOptions,
    size: Option<(u32, u32)>,
    layout: Layout,
    channels: usize,
    has_batch_axis: bool,
    /// Pictures that one sample takes.
    pub batch: usize,
}

impl Images {
    /// Settles size, layout and channels from the input's dimensions and the options. `given` is the input's shape as
    /// the person said it with `--shape`, for open sizes.
    pub fn new(
        (files, labels): (Vec<PathBuf>, Option<Vec<i64>>),
        inputs: &[Port],
        options: &ImageOptions,
        given: Option<&Vec<usize>>,
    ) -> Result<Self, DataError> {
        let [port] = inputs else {
            let names: Vec<_> = inputs.iter().map(|port| port.name.as_str()).collect();
            return Err(DataError::Names {
                path: files.first().and_then(|file| file.parent()).unwrap_or(Path::new("")).to_owned(),
                arrays: "pictures".to_owned(),
                inputs: names.join(", "),
                hint: "Pictures feed models with one input; save an .npz with one array an input".to_owned(),
            });
        };
        let refuse = |why: String| DataError::Shape {
            array: "pictures".to_owned(),
            why: format!("input {:?} takes {}: {why}", port.name, port.shape_text()),
            hint: "Pictures feed inputs such as [batch, 3, height, width] or [batch, height, width, 3]".to_owned(),
        };
        let dims: Vec<Dim> = match given {
            Some(sizes) => sizes.iter().map(|&size| Dim::Fixed(size)).collect(),
            None if port.has_shape => port.shape.clone(),
            None => vec![Dim::Symbol(String::new()); 4],
        };
        let (has_batch_axis, picture) = match dims.as_slice() {
            [_, picture @ ..] if picture.len() == 3 => (true, picture),
            picture if picture.len() == 3 => (false, picture),
            _ => return Err(refuse(format!("{} axes are no picture", dims.len()))),
        };
        let fixed = |axis: usize| match picture.get(axis) {
            Some(Dim::Fixed(size)) => Some(*size),
            _ => None,
        };
        let is_channel = |axis| matches!(fixed(axis), Some(1 | 3));
        let layout =
            options.layout.unwrap_or(if !is_channel(0) && is_channel(2) { Layout::Nhwc } else { Layout::Nchw });
        let (channel_axis, height_axis) = if layout == Layout::Nchw { (0, 1) } else { (2, 0) };
        let channels = fixed(channel_axis).unwrap_or(3);
        if ![1, 3].contains(&channels) {
            return Err(refuse(format!("{channels} channels; 1 and 3 are made from pictures")));
        }
        if channels == 1 && (options.mean.len() > 1 || options.std.len() > 1) {
            return Err(refuse("three means or deviations for one channel".to_owned()));
        }
        let declared = (fixed(height_axis + 1), fixed(height_axis));
        let size = match (options.size, declared) {
            (Some((width, height)), (w, h)) => {
                let fits = |side: u32, fixed: Option<usize>| fixed.is_none_or(|fixed| fixed == side as usize);
                if !fits(width, w) || !fits(height, h) {
                    return Err(refuse(format!("size={width}x{height} does not fit")));
                }
                Some((width, height))
            }
            (None, (Some(width), Some(height))) => {
                let side = |size| u32::try_from(size).ok().filter(|side| *side > 0);
                Some(side(width).zip(side(height)).ok_or_else(|| refuse("sides out of range".to_owned()))?)
            }
            (None, (None, None)) => None,
            (None, _) => return Err(refuse("one side is open; say both with --image size=WIDTHxHEIGHT".to_owned())),
        };
        if size.is_some_and(|(w, h)| (w as usize).saturating_mul(h as usize) > limits::MAX_SAMPLE_ELEMENTS / 3) {
            return Err(refuse("that is too large for a picture".to_owned()));
        }
        let batch = match dims.first() {
            Some(Dim::Fixed(batch)) if has_batch_axis => (*batch).max(1),
            _ => 1,
        };
        let images = Self {
            files,
            labels,
            port: port.clone(),
            options: options.clone(),
            size,
            layout,
            channels,
            has_batch_axis,
            batch,
        };
        if images.files.len() < batch {
            return Err(refuse(format!("{} pictures do not fill one batch", images.files.len())));
        }
        images.sample(0)?;
        Ok(images)
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.files.len() / self.batch
    }

    /// Number of pictures.
    pub fn pictures(&self) -> usize {
        self.files.len()
    }

    /// Whether the model gets the pixels neither scaled by a mean nor a deviation: worth a note, since most want it.
    pub fn is_plain(&self) -> bool {
        let default = ImageOptions::default();
        self.options.mean == default.mean && self.options.std == default.std && self.options.scale.is_none()
    }

    /// Name of the first picture of sample `index`.
    pub fn file_name(&self, index: usize) -> String {
        file_name(self.files.get(index * self.batch))
    }

    /// Reads sample `index`.
    pub fn sample(&self, index: usize) -> Result<Sample, DataError> {
        let mut values = Vec::new();
        let mut sides = None;
        for file in self.files.iter().skip(index * self.batch).take(self.batch) {
            let picture = self.to_size(read(file)?);
            if *sides.get_or_insert(picture.dimensions()) != picture.dimensions() {
                return Err(DataError::Format {
                    place: file.display().to_string(),
                    why: "the pictures of one batch have different sizes".to_owned(),
                    hint: "Say one with --image size=WIDTHxHEIGHT".to_owned(),
                });
            }
            self.append(&picture, &mut values);
        }
        let (width, height) = sides.unwrap_or_default();
        let (width, height) = (width as usize, height as usize);
        let mut shape = match self.layout {
            Layout::Nchw => vec![self.channels, height, width],
            Layout::Nhwc => vec![height, width, self.channels],
        };
        if self.has_batch_axis {
            shape.insert(0, self.batch);
        }
        let values = self.to_type(values)?;
        Ok(Sample { feeds: vec![(self.port.name.clone(), Tensor { shape, values })] })
    }

    fn to_size(&self, picture: DynamicImage) -> RgbImage {
        let Some((width, height)) = self.size.filter(|size| *size != (picture.width(), picture.height())) else {
            return picture.into_rgb8();
        };
        // `Triangle` scales its support when it shrinks, as PIL's bilinear filter does.
        match self.options.resize {
            Resize::Stretch => picture.resize_exact(width, height, FilterType::Triangle).into_rgb8(),
            Resize::Crop => picture.resize_to_fill(width, height, FilterType::Triangle).into_rgb8(),
            Resize::Pad => {
                let small = picture.resize(width, height, FilterType::Triangle).into_rgb8();
                let mut whole = RgbImage::new(width, height);
                let (left, top) = ((width - small.width()) / 2, (height - small.height()) / 2);
                imageops::replace(&mut whole, &small, left.into(), top.into());
                whole
            }
        }
    }

    /// Appends `(pixel / 255 · scale − mean) / std` in the layout and channel order of the model.
    fn append(&self, picture: &RgbImage, values: &mut Vec<f32>) {
        let is_float = self.port.element_type.contains("float");
        let scale = self.options.scale.unwrap_or(if is_float { 1.0 } else { 255.0 }) / 255.0;
        let of = |list: &[f32], channel: usize, default: f32| {
            list.get(if list.len() > 1 { channel } else { 0 }).copied().unwrap_or(default)
        };
        let value = |pixel: &image::Rgb<u8>, channel: usize| {
            let [r, g, b] = pixel.0;
            let byte = if self.channels == 1 {
                // ITU-R 601, as PIL's mode L.
                ((299 * u32::from(r) + 587 * u32::from(g) + 114 * u32::from(b) + 500) / 1000) as f32
            } else {
                let source = if self.options.channels == ChannelOrder::Bgr { [b, g, r] } else { [r, g, b] };
                f32::from(source.get(channel).copied().unwrap_or_default())
            };
            (byte * scale - of(&self.options.mean, channel, 0.0)) / of(&self.options.std, channel, 1.0)
        };
        match self.layout {
            Layout::Nchw => {
                for channel in 0..self.channels {
                    values.extend(picture.pixels().map(|pixel| value(pixel, channel)));
                }
            }
            Layout::Nhwc => {
                for pixel in picture.pixels() {
                    values.extend((0..self.channels).map(|channel| value(pixel, channel)));
                }
            }
        }
    }

    fn to_type(&self, values: Vec<f32>) -> Result<Values, DataError> {
        let wanted = self.port.element_type.as_str();
        let values = if wanted.contains("float") {
            Values::F32(values)
        } else {
            Values::I64(values.iter().map(|value| value.round() as i64).collect())
        };
        convert::convert(values, wanted).map_err(|(_, found)| DataError::Type {
            array: "pictures".to_owned(),
            found: format!("pixels, of which {found}"),
            wanted: wanted.to_owned(),
        })
    }
}

/// Pictures of a folder, sorted by name; or of its sub-folders, which then are the classes in the order of their names
/// (or the numbers that they are called).
pub fn find(folder: &Path) -> Result<(Vec<PathBuf>, Option<Vec<i64>>), DataError> {
    let files = files_with(folder, &EXTENSIONS)?;
    if !files.is_empty() {
        return Ok((files, None));
    }
    let io = |source| DataError::Io { path: folder.to_owned(), source };
    let mut classes = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.is_dir() {
            let files = files_with(&path, &EXTENSIONS)?;
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if !files.is_empty() {
                classes.push((name, files));
            }
        }
    }
    classes.sort();
    let numbers: Option<Vec<i64>> = classes.iter().map(|(name, _)| name.parse().ok()).collect();
    let mut all = Vec::new();
    let mut labels = Vec::new();
    for (index, (_, files)) in classes.into_iter().enumerate() {
        let label = numbers.as_ref().and_then(|numbers| numbers.get(index).copied()).unwrap_or(index as i64);
        labels.resize(labels.len() + files.len(), label);
        all.extend(files);
    }
    Ok((all, Some(labels)))
}

/// How many pictures of formats that are not read lie in `folder` or, beside none that are read, in its sub-folders.
pub fn left_out(folder: &Path) -> Result<usize, DataError> {
    let mut count = files_with(folder, &OTHERS)?.len();
    if files_with(folder, &EXTENSIONS)?.is_empty() {
        let io = |source| DataError::Io { path: folder.to_owned(), source };
        for entry in std::fs::read_dir(folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.is_dir() {
                count += files_with(&path, &OTHERS)?.len();
            }
        }
    }
    Ok(count)
}

fn read(path: &Path) -> Result<DynamicImage, DataError> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let reader = ImageReader::open(path).map_err(io)?.with_guessed_format().map_err(io)?;
    reader.decode().map_err(|error| DataError::Format {
        place: path.display().to_string(),
        why: error.to_string(),
        hint: "Take the file out of the folder, or save it again as PNG or JPEG".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(element_type: &str, dims: &[usize]) -> Port {
        let dim = |&size: &usize| if size == 0 { Dim::Symbol("?".to_owned()) } else { Dim::Fixed(size) };
        Port {
            name: "x".to_owned(),
            element_type: element_type.to_owned(),
            shape: dims.iter().map(dim).collect(),
            has_shape: true,
            table_rows: None,
        }
    }

    fn open(folder: &Path, port: Port, options: &str) -> Result<Images, DataError> {
        Images::new(find(folder)?, &[port], &options.parse()?, None)
    }

    /// Two pictures of 4×2 pixels: red on the left half and blue on the right; the other grey.
    fn pictures(folder: &Path) {
        let red_blue = RgbImage::from_fn(4, 2, |x, _| image::Rgb(if x < 2 { [255, 0, 0] } else { [0, 0, 255] }));
        red_blue.save(folder.join("a.png")).expect("save");
        RgbImage::from_pixel(4, 2, image::Rgb([100; 3])).save(folder.join("b.png")).expect("save");
    }

    fn floats(sample: &Sample) -> (&[usize], &[f32]) {
        match &sample.feeds[0].1 {
            Tensor { shape, values: Values::F32(values) } => (shape, values),
            other => panic!("{}", other.values.type_name()),
        }
    }

    #[test]
    fn pixels_are_scaled_normalised_and_laid_out() {
        let folder = tempfile::tempdir().expect("folder");
        pictures(folder.path());
        let images = open(folder.path(), port("float32", &[0, 3, 2, 4]), "mean=0.5:0.25:0,std=0.5").expect("open");
        assert_eq!(images.len(), 2);
        let sample = images.sample(0).expect("sample");
        let (shape, values) = floats(&sample);
        assert_eq!(shape, [1, 3, 2, 4]);
        assert_eq!(&values[..4], [1.0, 1.0, -1.0, -1.0]);
        assert_eq!(values[8], -0.5);
        assert_eq!(&values[16..20], [0.0, 0.0, 2.0, 2.0]);
        let bgr = open(folder.path(), port("float32", &[0, 0, 0, 3]), "channels=bgr,scale=255").expect("open");
        let sample = bgr.sample(0).expect("sample");
        let (shape, values) = floats(&sample);
        assert_eq!((shape, &values[..3]), (&[1, 2, 4, 3][..], &[0.0, 0.0, 255.0][..]));
    }

    #[test]
    fn grey_bytes_crop_and_pad() {
        let folder = tempfile::tempdir().expect("folder");
        pictures(folder.path());
        let grey = open(folder.path(), port("uint8", &[1, 1, 2, 2]), "resize=crop").expect("open");
        assert_eq!(grey.sample(1).expect("sample").feeds[0].1.values, Values::U8(vec![100; 4]));
        assert_eq!(grey.sample(0).expect("sample").feeds[0].1.values, Values::U8(vec![76, 29, 76, 29]));
        let padded =
            open(folder.path(), port("float32", &[0, 3, 0, 0]), "size=4x4,resize=pad,scale=255").expect("open");
        let sample = padded.sample(1).expect("sample");
        let (_, values) = floats(&sample);
        assert_eq!(&values[..16], [[0.0; 4], [100.0; 4], [100.0; 4], [0.0; 4]].concat());
    }

    #[test]
    fn a_fixed_batch_takes_several_pictures_and_folders_are_classes() {
        let folder = tempfile::tempdir().expect("folder");
        for class in ["cat", "ant"] {
            let inner = folder.path().join(class);
            std::fs::create_dir(&inner).expect("folder");
            pictures(&inner);
        }
        let images = open(folder.path(), port("float32", &[2, 3, 2, 4]), "").expect("open");
        assert_eq!((images.len(), images.pictures()), (2, 4));
        assert_eq!(images.labels.as_deref(), Some(&[0, 0, 1, 1][..]));
        assert_eq!(floats(&images.sample(1).expect("sample")).0, [2, 3, 2, 4]);
    }

    #[test]
    fn what_pictures_cannot_feed_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        pictures(folder.path());
        for (dims, options) in
            [(&[0, 5][..], ""), (&[0, 4, 8, 8], ""), (&[0, 3, 8, 8], "size=4x4"), (&[0, 3, 8, 0], "")]
        {
            let error = open(folder.path(), port("float32", dims), options).expect_err("refused");
            assert!(error.hint().contains("Pictures"), "{error}");
        }
        std::fs::write(folder.path().join("0.png"), b"no picture").expect("write");
        let error = open(folder.path(), port("float32", &[0, 3, 2, 4]), "").expect_err("damaged");
        assert!(error.place().ends_with("0.png"));
    }
}
