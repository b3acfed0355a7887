//! What a plan does, measured on what it exports.

use crate::data::DataSet;
use crate::error::{CompareOptions, Quality, compare};
use crate::export::export;
use crate::model::Model;
use crate::plan::Plan;
use crate::runtime::{Runtime, Source};
use crate::stats::Stats;
use crate::{Control, Error};

/// Exports `plan` and compares the result, run as people run it, with the original on the samples called `indices`.
/// `labels` has one entry a row of the whole data.
#[allow(clippy::too_many_arguments)] // an export's and a comparison's
pub fn measure(
    model: &Model,
    runtime: &Runtime,
    stats: Option<&Stats>,
    plan: &Plan,
    data: &DataSet,
    indices: &[usize],
    labels: Option<&[i64]>,
    options: &CompareOptions,
    control: &Control,
) -> Result<Quality, Error> {
    let made = export(model, stats, plan, control)?;
    let quantized = Source::Proto { proto: &made.proto, folder: Some(model.file.folder()) };
    compare(runtime, Source::File(&model.file.path), quantized, data, indices, labels, options, control)
}
