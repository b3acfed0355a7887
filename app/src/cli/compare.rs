//! `compare`: two models layer by layer, whoever made the second.

use nibble_core::error::{CompareOptions, Comparison, MatchedBy, Quality, compare, compare_layers};
use nibble_core::model::Model;
use nibble_core::report::text;
use nibble_core::runtime::Source;
use serde_json::json;

use super::args::CompareArgs;
use super::bench::same_inputs;
use super::console::{Console, problems_text};
use super::failure::Failure;
use super::inputs::{self, RANDOM, Samples};
use super::table::Table;

/// Samples at most: what all layers make of one is in memory at a time, and more add little to a sum of squares.
const SAMPLES: usize = 32;

/// Runs the verb.
pub fn run(args: &CompareArgs, console: &Console) -> Result<(), Failure> {
    let control = console.control();
    let original = Model::load(&args.original, control)?;
    let other = Model::load(&args.quantized, control)?;
    same_inputs(&original, &other)?;
    let options = inputs::options(&args.input)?;
    let set = inputs::open(args.data.as_deref().unwrap_or(RANDOM), &original.inputs, &options, console)?;
    let mut samples = Samples::limited(set, &args.input)?;
    if args.input.samples.is_none() && samples.indices.len() > SAMPLES {
        samples.indices.truncate(SAMPLES);
        console.note(&format!("The first {SAMPLES} samples are compared; --samples N takes more"));
    }
    let runtime = console.start_runtime()?;
    let Samples { set, indices } = &samples;
    let threads = args.threads.threads;
    let compared = compare_layers(runtime, &original, &other, set, indices, threads, control)?;
    let options = CompareOptions { threads, ..CompareOptions::default() };
    let (a, b) = (Source::File(&args.original), Source::File(&args.quantized));
    let quality = compare(runtime, a, b, set, indices, None, &options, control)?;
    let problems = console.problems_with(&original.problems);
    let json = json!({
        "original": args.original,
        "quantized": args.quantized,
        "quality": quality,
        "layers": compared.layers,
        "unmatched": compared.unmatched,
        "unmatched_other": compared.unmatched_other,
        "evaluation": samples.to_json(),
        "notes": console.notes(),
        "problems": problems,
    });
    console.result(&json, &(to_text(&compared, &quality) + &problems_text(&problems)))
}

fn to_text(compared: &Comparison, quality: &Quality) -> String {
    let mut table = Table::new(&["Layer", "Operator", "Other", "Quantized to", "Matched by", "SQNR"], &[5]);
    for layer in &compared.layers {
        let matched = match layer.matched_by {
            MatchedBy::Tensor => "tensor",
            MatchedBy::Name => "name",
            MatchedBy::Order => "order",
        };
        let other = if layer.other_op == layer.op { String::new() } else { layer.other_op.clone() };
        let sqnr = text::sqnr(&json!(layer.sqnr_db));
        table.row([layer.name.clone(), layer.op.clone(), other, layer.quantized.clone(), matched.to_owned(), sqnr]);
    }
    let mut out = format!("{table}\nOutput {}: {}\n", quality.output, text::sqnr(&json!(quality.sqnr_db)));
    for (which, names) in [("original", &compared.unmatched), ("other", &compared.unmatched_other)] {
        if !names.is_empty() {
            out += &format!("Only in the {which} model: {}\n", names.join(", "));
        }
    }
    out
}
