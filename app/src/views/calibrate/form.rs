//! The calibration form: source, how many, sizes of open dimensions, how pictures become tensors, evaluation data.

use std::collections::{BTreeMap, BTreeSet};

use eframe::egui::{self, DragValue, RichText, Ui};
use nibble_core::data::{ChannelOrder, DataOptions, ImageOptions, Layout, Resize};
use nibble_core::port::{Dim, Port};
use nibble_core::stats::SampleId;

use crate::cli::sample::Sample;
use crate::document::Document;
use crate::edit::{Action, Edit, Purpose};
use crate::theme;
use crate::widgets::field::{self, Entry};

/// Where samples come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// A file or folder.
    #[default]
    Path,
    /// Random numbers.
    Random,
}

/// What is typed into the form.
#[derive(Clone, Debug)]
pub struct Form {
    /// Where samples come from.
    pub source: Source,
    /// File or folder of calibration data.
    pub path: String,
    /// Most samples used to calibrate.
    pub samples: usize,
    /// Most samples used to evaluate.
    pub eval_samples: usize,
    /// Evaluation data; empty holds a third of the calibration data back.
    pub eval: String,
    /// Labels of the evaluation data.
    pub labels: String,
    /// Seed of random inputs and of what is held back.
    pub seed: u64,
    /// Sizes of open dimensions, by symbol, or by input and axis where the symbol says nothing.
    sizes: BTreeMap<String, usize>,
    image: Image,
}

#[derive(Clone, Debug)]
struct Image {
    width: u32,
    height: u32,
    mean: String,
    std: String,
    layout: Option<Layout>,
    channels: ChannelOrder,
    resize: Resize,
    scale: Option<f32>,
}

/// What jobs need to open the data.
#[derive(Clone, Debug, PartialEq)]
pub struct DataRequest {
    /// Source of calibration samples.
    pub spec: String,
    /// Source of evaluation samples; `None` holds a third of `spec` back.
    pub eval: Option<String>,
    /// Labels of the evaluation samples.
    pub labels: Option<String>,
    /// How sources are read.
    pub options: DataOptions,
    /// Most samples used to calibrate.
    pub samples: usize,
    /// Most samples used to evaluate.
    pub eval_samples: usize,
    /// Samples left out of calibration.
    pub left_out: BTreeSet<SampleId>,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            source: Source::Path,
            path: String::new(),
            samples: 128,
            eval_samples: 256,
            eval: String::new(),
            labels: String::new(),
            seed: 0,
            sizes: BTreeMap::new(),
            image: Image {
                width: 0,
                height: 0,
                mean: String::new(),
                std: String::new(),
                layout: None,
                channels: ChannelOrder::default(),
                resize: Resize::default(),
                scale: None,
            },
        }
    }
}

impl Form {
    /// Why nothing can be read yet; empty when it can.
    pub fn refusal(&self) -> String {
        match self.source {
            Source::Path if self.path.trim().is_empty() => "Choose calibration data first".to_owned(),
            _ if numbers(&self.image.mean).is_none() => "Mean must be numbers with commas between".to_owned(),
            _ if numbers(&self.image.std).is_none() => "Deviation must be numbers with commas between".to_owned(),
            _ => String::new(),
        }
    }

    /// Takes this file or folder as the source.
    pub fn use_path(&mut self, path: &std::path::Path) {
        self.source = Source::Path;
        self.path = path.display().to_string();
    }

    /// Takes the data that come with the sample model.
    pub fn use_sample(&mut self, sample: &Sample) {
        self.use_path(&sample.data);
        self.eval = sample.eval.display().to_string();
        self.labels = sample.labels.display().to_string();
    }

    /// Takes random numbers as the source: for when there is nothing better.
    pub fn use_random(&mut self) {
        *self = Self {
            source: Source::Random,
            samples: self.samples.min(16),
            sizes: self.sizes.clone(),
            ..Self::default()
        };
    }

    /// Forgets what belonged to another model.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// What jobs need, without the samples `left_out` of calibration.
    pub fn request(&self, inputs: &[Port], left_out: &BTreeSet<SampleId>) -> DataRequest {
        let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let image = &self.image;
        let options = DataOptions {
            image: ImageOptions {
                size: (image.width > 0 && image.height > 0).then_some((image.width, image.height)),
                mean: list(&image.mean, 0.0),
                std: list(&image.std, 1.0),
                layout: image.layout,
                channels: image.channels,
                resize: image.resize,
                scale: image.scale,
            },
            shapes: self.shapes(inputs),
            seed: self.seed,
        };
        let spec = match self.source {
            Source::Path => super::super::expanded(&self.path).display().to_string(),
            Source::Random => format!("random:{}", self.samples),
        };
        DataRequest {
            spec,
            eval: given(&self.eval).map(|text| super::super::expanded(&text).display().to_string()),
            labels: given(&self.labels).map(|text| super::super::expanded(&text).display().to_string()),
            options,
            samples: self.samples,
            eval_samples: self.eval_samples,
            left_out: left_out.clone(),
        }
    }

    /// Concrete shapes of the inputs with open dimensions; only random numbers need them.
    fn shapes(&self, inputs: &[Port]) -> BTreeMap<String, Vec<usize>> {
        if self.source != Source::Random {
            return BTreeMap::new();
        }
        inputs
            .iter()
            .filter(|port| port.shape.iter().any(|dim| matches!(dim, Dim::Symbol(_))))
            .map(|port| {
                let size = |(axis, dim): (usize, &Dim)| match dim {
                    Dim::Fixed(size) => *size,
                    Dim::Symbol(symbol) => self.sizes.get(&key(port, axis, symbol)).copied().unwrap_or(1),
                };
                (port.name.clone(), port.shape.iter().enumerate().map(size).collect())
            })
            .collect()
    }

    /// Draws the form.
    pub fn ui(&mut self, ui: &mut Ui, document: &Document, actions: &mut Vec<Action>) {
        field::row(ui, "Source", |ui| {
            for (source, text) in [(Source::Path, "File or folder"), (Source::Random, "Random numbers")] {
                if ui.selectable_label(self.source == source, text).clicked() {
                    self.source = source;
                }
            }
        });
        match self.source {
            Source::Path => self.path_ui(ui, actions),
            Source::Random => self.sizes_ui(ui, &document.model.inputs),
        }
        field::row(ui, "Samples", |ui| {
            ui.add(DragValue::new(&mut self.samples).range(1..=1_000_000)).accessible_name("Number of samples");
            ui.label(RichText::new("at most").weak());
            ui.add_space(theme::SECTION);
            ui.label(RichText::new("Seed").weak());
            ui.add(DragValue::new(&mut self.seed)).accessible_name("Seed");
        });
        ui.add_space(theme::GAP);
        ui.label(theme::caption("Evaluation"));
        field::row(ui, "Data", |ui| {
            let width = ui.available_width() - 90.0;
            field::text(
                ui,
                "Evaluation data",
                "empty: a third of the calibration data is held back",
                &mut self.eval,
                width,
            );
            if ui.button("Browse…").clicked() {
                actions.push(Edit::Browse(Purpose::Eval).into());
            }
        });
        field::row(ui, "Labels", |ui| {
            let width = ui.available_width() - 90.0;
            field::text(ui, "Labels", ".npy, CSV, or a key of the .npz", &mut self.labels, width);
            if ui.button("Browse…").accessible_name("Browse for labels").clicked() {
                actions.push(Edit::Browse(Purpose::Labels).into());
            }
        });
        field::row(ui, "Samples", |ui| {
            ui.add(DragValue::new(&mut self.eval_samples).range(1..=1_000_000))
                .accessible_name("Number of evaluation samples");
            ui.label(RichText::new("at most").weak());
        });
        if self.source == Source::Path {
            self.image_ui(ui);
        }
    }

    fn path_ui(&mut self, ui: &mut Ui, actions: &mut Vec<Action>) {
        field::row(ui, "Data", |ui| {
            let width = ui.available_width() - 165.0;
            let hint = ".npz, .npy, or a folder of .npz or images";
            let response = field::text(ui, "Calibration data", hint, &mut self.path, width);
            if response.lost_focus() && !self.path.trim().is_empty() {
                actions.push(Edit::Preview.into());
            }
            if ui.button("File…").accessible_name("Browse for a data file").clicked() {
                actions.push(Edit::Browse(Purpose::Data).into());
            }
            if ui.button("Folder…").accessible_name("Browse for a data folder").clicked() {
                actions.push(Edit::Browse(Purpose::DataFolder).into());
            }
        });
    }

    fn sizes_ui(&mut self, ui: &mut Ui, inputs: &[Port]) {
        ui.label(
            RichText::new("Ranges found with random numbers say little about real inputs: for a first try only")
                .color(theme::palette(ui).warning),
        );
        for port in inputs {
            for (axis, dim) in port.shape.iter().enumerate() {
                let Dim::Symbol(symbol) = dim else { continue };
                let key = key(port, axis, symbol);
                let first = inputs
                    .iter()
                    .flat_map(|p| p.shape.iter().enumerate().map(move |(a, d)| (p, a, d)))
                    .find(|(p, a, d)| matches!(d, Dim::Symbol(s) if self::key(p, *a, s) == key));
                // A symbol shared by several inputs is asked for once.
                if first.is_none_or(|(p, a, _)| p.name != port.name || a != axis) {
                    continue;
                }
                field::row(ui, &key, |ui| {
                    let size = self.sizes.entry(key.clone()).or_insert(1);
                    ui.add(DragValue::new(size).range(1..=1_000_000)).accessible_name(format!("Size of {key}"));
                    ui.label(RichText::new(format!("axis {axis} of {} {}", port.name, port.shape_text())).weak());
                });
            }
        }
    }

    fn image_ui(&mut self, ui: &mut Ui) {
        egui::CollapsingHeader::new("How pictures become tensors").id_salt("image options").show(ui, |ui| {
            let image = &mut self.image;
            field::row(ui, "Size", |ui| {
                ui.add(DragValue::new(&mut image.width).range(0..=65_536)).accessible_name("Picture width");
                ui.label("×");
                ui.add(DragValue::new(&mut image.height).range(0..=65_536)).accessible_name("Picture height");
                ui.label(RichText::new("0: as the model says").weak());
            });
            field::row(ui, "Mean", |ui| field::text(ui, "Picture mean", "0.485, 0.456, 0.406", &mut image.mean, 180.0));
            field::row(ui, "Deviation", |ui| {
                field::text(ui, "Picture deviation", "0.229, 0.224, 0.225", &mut image.std, 180.0)
            });
            field::row(ui, "Layout", |ui| {
                let current = image.layout.map_or("as the model says", layout_word);
                let entries = || {
                    let entry = |value, text: &str| Entry { value, text: text.to_owned(), refusal: String::new() };
                    let mut entries = vec![entry(None, "as the model says")];
                    entries.extend([Layout::Nchw, Layout::Nhwc].map(|layout| entry(Some(layout), layout_word(layout))));
                    entries
                };
                if let Some(layout) = field::combo(ui, "Picture layout", current, "", entries) {
                    image.layout = layout;
                }
            });
            field::row(ui, "Other shapes", |ui| {
                for (resize, text) in [(Resize::Stretch, "Stretch"), (Resize::Crop, "Crop"), (Resize::Pad, "Pad")] {
                    if ui.selectable_label(image.resize == resize, text).clicked() {
                        image.resize = resize;
                    }
                }
            });
            field::row(ui, "White is", |ui| {
                for (scale, text) in [(None, "as the input's type"), (Some(1.0), "1"), (Some(255.0), "255")] {
                    if ui.selectable_label(image.scale == scale, text).clicked() {
                        image.scale = scale;
                    }
                }
            });
            field::row(ui, "Channels", |ui| {
                for (order, text) in [(ChannelOrder::Rgb, "RGB"), (ChannelOrder::Bgr, "BGR")] {
                    if ui.selectable_label(image.channels == order, text).clicked() {
                        image.channels = order;
                    }
                }
            });
        });
    }
}

fn layout_word(layout: Layout) -> &'static str {
    match layout {
        Layout::Nchw => "NCHW",
        Layout::Nhwc => "NHWC",
    }
}

/// A symbol that is a name is shared by all inputs; "?", "-1" and the like mean one axis of one input.
fn key(port: &Port, axis: usize, symbol: &str) -> String {
    if symbol.chars().next().is_some_and(char::is_alphabetic) {
        symbol.to_owned()
    } else {
        format!("{}[{axis}]", port.name)
    }
}

/// Numbers with commas or spaces between; `None` when one is none.
fn numbers(text: &str) -> Option<Vec<f32>> {
    text.split([',', ' '])
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().ok().filter(|x: &f32| x.is_finite()))
        .collect()
}

/// As [`numbers`]; what is empty or wrong is `otherwise`.
fn list(text: &str, otherwise: f32) -> Vec<f32> {
    numbers(text).filter(|list| !list.is_empty()).unwrap_or_else(|| vec![otherwise])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, shape: &[&str]) -> Port {
        let dim = |text: &&str| text.parse().map_or_else(|_| Dim::Symbol((*text).to_owned()), Dim::Fixed);
        Port {
            name: name.to_owned(),
            element_type: "float32".to_owned(),
            shape: shape.iter().map(dim).collect(),
            has_shape: true,
            table_rows: None,
        }
    }

    #[test]
    fn a_shared_symbol_is_one_size_and_unnamed_ones_are_not() {
        let inputs = [port("a", &["batch", "?", "8"]), port("b", &["batch", "?"]), port("c", &["2"])];
        let mut form = Form { source: Source::Random, samples: 5, ..Form::default() };
        form.sizes.insert("batch".to_owned(), 2);
        form.sizes.insert("b[1]".to_owned(), 7);
        let request = form.request(&inputs, &BTreeSet::new());
        assert_eq!(request.spec, "random:5");
        assert_eq!(request.options.shapes["a"], [2, 1, 8]);
        assert_eq!(request.options.shapes["b"], [2, 7]);
        assert!(!request.options.shapes.contains_key("c"));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        assert_eq!(numbers("0.5, 1 2"), Some(vec![0.5, 1.0, 2.0]));
        assert_eq!(numbers(""), Some(Vec::new()));
        assert_eq!(numbers("a"), None);
        assert!(Form::default().refusal().contains("data"));
    }
}
