//! A model with all that predicting and measuring take.

use std::error::Error;
use std::path::Path;

use nibble_core::Control;
use nibble_core::data::{DataOptions, DataSet};
use nibble_core::export::{Pick, pick};
use nibble_core::model::Model;
use nibble_core::plan::{Choice, Plan};
use nibble_core::predict::{Expected, LearnOptions, Reference, Sensitivity, candidates, learn};
use nibble_core::runtime::Runtime;
use nibble_core::stats::Stats;

/// Most samples that calibrate.
const CALIBRATION: usize = 64;
/// Least and most samples on which plans are measured, between them twice as many as slopes were taken on; none of them is used for
/// anything else.
const EVALUATION: (usize, usize) = (16, 128);

/// What is read from files.
pub struct Files {
    pub name: String,
    pub model: Model,
    pub data: DataSet,
    pub evaluation: DataSet,
}

impl Files {
    pub fn open(path: &Path, calibration: &str, evaluation: &str, control: &Control) -> Result<Self, Box<dyn Error>> {
        let model = Model::load(path, control)?;
        Ok(Self {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            data: DataSet::open(calibration, &model.inputs, &DataOptions::default())?,
            evaluation: DataSet::open(evaluation, &model.inputs, &DataOptions::default())?,
            model,
        })
    }

    pub fn calibration(&self) -> Vec<usize> {
        self.data.limit(CALIBRATION)
    }
}

/// A model about which everything is learnt that the command `sensitivity` learns.
pub struct Case<'a> {
    pub name: &'a str,
    pub model: &'a Model,
    pub stats: &'a Stats,
    pub known: Sensitivity,
    pub reference: Reference<'a>,
    /// Calibration samples, as many as evaluation samples where there are.
    pub calibration: Reference<'a>,
    /// Per layer of the model.
    pub candidates: Vec<Vec<Pick>>,
    pub float: Vec<Pick>,
    pub control: &'a Control,
}

impl<'a> Case<'a> {
    pub fn learn(
        files: &'a Files,
        runtime: &'a Runtime,
        stats: &'a Stats,
        control: &'a Control,
    ) -> Result<Self, Box<dyn Error>> {
        let Files { name, model, data, evaluation } = files;
        let options = LearnOptions { one_by_one: true, loudest: true, ..LearnOptions::default() };
        let mut known = learn(model, runtime, data, &files.calibration(), Some(stats), &options, control)?;
        let all: Vec<Vec<Pick>> = model.layers.iter().map(|layer| candidates(model, layer, Some(stats))).collect();
        for (layer, picks) in model.layers.iter().zip(&all) {
            known.cover(model, layer, &picks.iter().map(|pick| pick.choice).collect::<Vec<_>>());
        }
        let judged = evaluation.limit((2 * known.samples).clamp(EVALUATION.0, EVALUATION.1));
        let reference = Reference::new(model, runtime, evaluation, &judged, &known.output, 1, control)?;
        let calibration = data.limit(judged.len().min(CALIBRATION));
        let calibration = Reference::new(model, runtime, data, &calibration, &known.output, 1, control)?;
        let float = model.layers.iter().map(|layer| pick(model, layer, Choice::FLOAT, Some(stats))).collect();
        Ok(Self { name, model, stats, known, reference, calibration, candidates: all, float, control })
    }

    /// What the sum of noise powers says of `picks`; `None` where something is not known.
    pub fn expected(&self, picks: &[Pick]) -> Option<Expected> {
        self.known.expected(&self.known.parts(self.model, picks, Some(self.stats)))
    }

    /// The plan that asks for `picks`.
    pub fn plan(&self, picks: &[Pick]) -> Plan {
        let mut plan = Plan::uniform(Choice::FLOAT);
        plan.model_sha256.clone_from(&self.model.file.sha256);
        for (layer, pick) in self.model.layers.iter().zip(picks) {
            plan.set_layer(&layer.name, pick.choice);
        }
        plan
    }
}
