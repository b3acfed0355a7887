//! Every layer's candidates in one table: what each does to the model's output by itself.

use nibble_core::plan::auto::Market;
use nibble_core::plan::{Choice, Clip, Granularity, Mode, Precision, Symmetry};

/// One candidate of one layer.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// The choice.
    pub choice: Choice,
    /// Noise power at the output with only this layer so.
    pub noise: f64,
    /// How much of it comes from the weights.
    pub of_weights: f64,
    /// Divergence of the distribution of classes with only this layer so, in nats; `None` where there are no classes.
    pub divergence: Option<f64>,
}

/// The table.
#[derive(Clone, Debug, Default)]
pub struct Heat {
    /// A choice of each column, and its heading in two short lines.
    pub columns: Vec<(Choice, [String; 2])>,
    /// For every layer of the model a cell a column, where it has such a candidate.
    pub rows: Vec<Vec<Option<Cell>>>,
}

impl Heat {
    /// The table of all candidates, with the divergence of each by layer and candidate. Those with the same heading differ only in what does nothing for them.
    pub fn of(market: &Market, divergences: &[Vec<Option<f64>>]) -> Self {
        let quantized = |choice: &&Choice| choice.precision != Precision::Float32;
        let mut columns: Vec<(Choice, [String; 2])> = Vec::new();
        for choice in market.choices.iter().flatten().filter(quantized) {
            let heading = heading(choice);
            if !columns.iter().any(|(_, known)| *known == heading) {
                columns.push((*choice, heading));
            }
        }
        columns.sort_by_key(|(choice, _)| (choice.precision, choice.mode, choice.granularity, choice.symmetry));
        let row = |layer: usize| {
            let mut cells = vec![None; columns.len()];
            let choices = market.choices.get(layer).into_iter().flatten();
            let noises = market.offers.get(layer).into_iter().flatten().map(|offer| offer.noise);
            let of_weights = market.of_weights.get(layer).into_iter().flatten();
            let divergences = divergences.get(layer).into_iter().flatten();
            for (((choice, noise), of_weights), divergence) in choices.zip(noises).zip(of_weights).zip(divergences) {
                let heading = heading(choice);
                let column = columns.iter().position(|(_, known)| *known == heading);
                if let Some(slot @ None) = column.and_then(|column| cells.get_mut(column)) {
                    *slot = Some(Cell { choice: *choice, noise, of_weights: *of_weights, divergence: *divergence });
                }
            }
            cells
        };
        let rows = (0..market.choices.len()).map(row).collect();
        Self { columns, rows }
    }

    /// The cell of a layer in a column.
    pub fn cell(&self, layer: usize, column: usize) -> Option<Cell> {
        *self.rows.get(layer)?.get(column)?
    }

    /// Whether the output gives classes, so that candidates may be told apart by divergence.
    pub fn diverges(&self) -> bool {
        self.rows.iter().flatten().flatten().any(|cell| cell.divergence.is_some())
    }

    /// Whether the layer has any candidate.
    pub fn has(&self, layer: usize) -> bool {
        self.rows.get(layer).is_some_and(|cells| cells.iter().any(Option::is_some))
    }
}

/// A candidate in two short lines.
fn heading(choice: &Choice) -> [String; 2] {
    if choice.precision == Precision::Float16 {
        return ["float16".to_owned(), String::new()];
    }
    let mode = match choice.mode {
        Mode::Static => "static",
        Mode::Dynamic => "dynamic",
        Mode::WeightOnly => "weights",
    };
    let granularity = match choice.granularity {
        Granularity::PerTensor => "tensor".to_owned(),
        Granularity::PerChannel => "channel".to_owned(),
        Granularity::Block(size) => format!("block {size}"),
    };
    let symmetry = match choice.symmetry {
        Symmetry::Symmetric => "",
        Symmetry::Asymmetric => " asym",
    };
    let clip = match (choice.mode, choice.activation_clip) {
        (Mode::Static, Clip::Mse) => " mse",
        _ => "",
    };
    [format!("{} {mode}", choice.precision), format!("{granularity}{symmetry}{clip}")]
}
