//! Writes `assets/docs/support-matrix.md`: every operator under every scheme, run in ONNX Runtime on this machine.
//!
//! `cargo run --release -p nibble-core --example support_matrix [FILE]`

mod cells;
mod operators;

use std::error::Error;
use std::path::PathBuf;

use nibble_core::Control;
use nibble_core::bench::cpu_features;
use nibble_core::runtime::Runtime;

fn main() -> Result<(), Box<dyn Error>> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets/docs/support-matrix.md");
    let path = std::env::args().nth(1).map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let runtime = Runtime::start(None, &Control::new())?;
    let mut text = format!(
        "# What runs how\n\nEvery operator under every scheme, written by `core/examples/support_matrix` with ONNX Runtime {} on a CPU \
         with {}. A test runs a sample of the cells again.\n\n\
         - *difference*: the largest one between the export as it runs and our own arithmetic (weights and activations rounded by \
         Nibble, float operator): in steps of the output's scale (LSB) where the output is quantized, else relative to the largest output. Inside \
         DynamicQuantizeLSTM the recurrent state is rounded too, which our arithmetic leaves out; float16 operators round where they like.\n\
         - *latency*: quantized / original, one thread, alternated in one run, three layers in a row (one of Gather, LSTM and GRU), quantizing \
         the input included: below 1 is faster. Small shapes; another machine gives other figures.\n\n",
        runtime.version(),
        cpu_features().join(", "),
    );
    for operator in operators::operators() {
        text += &format!(
            "## {}\n\n| scheme | form | verdict | difference | latency | reason |\n|---|---|---|---|---|---|\n",
            operator.name
        );
        for &scheme in cells::SCHEMES {
            eprintln!("{}: {}", operator.name, scheme.0);
            let row = cells::cell(runtime, &operator, scheme)
                .and_then(|cell| Ok((cells::latency_ratio(runtime, &operator, scheme)?, cell)));
            text += &match row {
                Ok((ratio, cell)) => format!(
                    "| {} | `{}` | {:?} | {} | {ratio:.2} | {} |\n",
                    scheme.0,
                    cell.outcome.form,
                    cell.outcome.verdict,
                    cell.difference(),
                    cell.outcome.reason.replace('|', "/"),
                ),
                Err(error) => {
                    format!("| {} | – | refused | – | – | {} |\n", scheme.0, error.to_string().replace('|', "/"))
                }
            };
        }
        text.push('\n');
    }
    std::fs::write(&path, text)?;
    println!("{}", path.display());
    Ok(())
}
