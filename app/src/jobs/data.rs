//! A look at the data before anything is computed from it, and the float model's own accuracy.

use nibble_core::data::{DataError, DataSet};
use nibble_core::error::evaluate;
use nibble_core::model::Model;
use nibble_core::runtime::{Runtime, Source};
use nibble_core::stats::SampleId;
use nibble_core::{Control, Error};

use super::{Failure, Message, Preview, Score};
use crate::views::calibrate::DataRequest;

/// Most pictures shown.
const PICTURES: usize = 6;

/// The first samples as the model gets them.
pub fn preview(model: &Model, request: &DataRequest) -> Message {
    let look = || -> Result<Box<Preview>, Error> {
        let data = DataSet::open(&request.spec, &model.inputs, &request.options)?;
        let first = data.preview(0)?;
        let mut pictures: Vec<_> = first.inputs.iter().filter_map(|input| input.picture.clone()).collect();
        if !pictures.is_empty() {
            for index in data.limit(PICTURES).into_iter().filter(|index| *index != 0) {
                pictures.extend(data.preview(index)?.inputs.into_iter().filter_map(|input| input.picture));
                if pictures.len() >= PICTURES {
                    break;
                }
            }
        }
        Ok(Box::new(Preview {
            description: data.describe(),
            first,
            pictures,
            textures: Vec::new(),
            problems: data.problems().to_vec(),
        }))
    };
    Message::Previewed(look().map_err(Failure::from))
}

/// The samples to calibrate with and those to evaluate with, each with its source.
pub struct Samples {
    /// Source of calibration samples.
    pub data: DataSet,
    /// Which of them calibrate.
    pub calibration: Vec<usize>,
    /// Source of evaluation samples where it is another one.
    pub eval: Option<DataSet>,
    /// Which samples evaluate.
    pub evaluation: Vec<usize>,
    /// Labels of the whole evaluation source.
    pub labels: Option<Vec<i64>>,
}

impl Samples {
    /// Opens what the request names. Without evaluation data a third of the calibration data is held back.
    pub fn open(model: &Model, request: &DataRequest) -> Result<Self, Error> {
        let data = DataSet::open(&request.spec, &model.inputs, &request.options)?;
        let eval = match &request.eval {
            Some(spec) => Some(DataSet::open(spec, &model.inputs, &request.options)?),
            None => None,
        };
        let (mut calibration, mut evaluation) = match &eval {
            Some(eval) => (data.limit(request.samples), eval.limit(request.eval_samples)),
            None => data.split(None),
        };
        calibration.truncate(request.samples);
        calibration.retain(|&index| !request.left_out.contains(&SampleId::new(data.spec(), index as u64)));
        if calibration.is_empty() {
            let why = "all samples that would calibrate are left out".to_owned();
            return Err(DataError::Source { spec: data.spec().to_owned(), why }.into());
        }
        evaluation.truncate(request.eval_samples);
        let judged = eval.as_ref().unwrap_or(&data);
        let labels = match &request.labels {
            Some(spec) => Some(judged.labels(spec)?),
            None => judged.folder_labels().map(<[i64]>::to_vec),
        };
        Ok(Self { data, calibration, eval, evaluation, labels })
    }

    /// The source that evaluates.
    pub fn judged(&self) -> &DataSet {
        self.eval.as_ref().unwrap_or(&self.data)
    }
}

/// The float model's own accuracy: wrong preprocessing shows here before it spoils everything after.
pub fn score(model: &Model, runtime: &Runtime, request: &DataRequest, control: &Control) -> Message {
    let measure = || -> Result<Score, Error> {
        let samples = Samples::open(model, request)?;
        let labels = samples.labels.clone().unwrap_or_default();
        let source = Source::File(&model.file.path);
        let scored = evaluate(runtime, source, samples.judged(), &samples.evaluation, &labels, 1, control)?;
        Ok(Score { accuracy: scored.accuracy, samples: scored.samples })
    };
    Message::Scored(measure().map_err(Failure::from))
}
