//! What a set of predictions is worth against what was measured.

/// One prediction beside its truth, in dB.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    pub predicted: f64,
    pub measured: f64,
    /// Half the width of the interval that was given with the prediction; `None` for single layers.
    pub half_width: Option<f64>,
}

/// One row of the document.
pub struct Row {
    pub model: String,
    pub what: String,
    pub pairs: usize,
    pub spearman: f64,
    /// Mean of predicted − measured.
    pub bias: f64,
    /// Root of the mean square of predicted − measured, nothing taken out of it.
    pub rmse: f64,
    /// Share of pairs that are at most 1 dB apart.
    pub within_one: f64,
    /// Share of pairs whose truth lies in the interval given, and half its mean width.
    pub covered: Option<(f64, f64)>,
}

impl Row {
    pub fn of(model: &str, what: &str, pairs: &[Pair]) -> Self {
        let errors: Vec<f64> = pairs.iter().map(|pair| pair.predicted - pair.measured).collect();
        let count = errors.len().max(1) as f64;
        let share = |of: &dyn Fn(&Pair) -> bool| pairs.iter().filter(|pair| of(pair)).count() as f64 / count;
        let error = |pair: &Pair| (pair.predicted - pair.measured).abs();
        let widths: Vec<f64> = pairs.iter().filter_map(|pair| pair.half_width).collect();
        let covered = share(&|pair| pair.half_width.is_some_and(|half| error(pair) <= half));
        Self {
            model: model.to_owned(),
            what: what.to_owned(),
            pairs: pairs.len(),
            spearman: spearman(pairs),
            bias: errors.iter().sum::<f64>() / count,
            rmse: (errors.iter().map(|error| error * error).sum::<f64>() / count).sqrt(),
            within_one: share(&|pair| error(pair) <= 1.0),
            covered: (!widths.is_empty()).then(|| (covered, widths.iter().sum::<f64>() / widths.len() as f64)),
        }
    }

    /// As the document has it.
    pub fn line(&self) -> String {
        let covered = self
            .covered
            .map_or_else(|| "–".to_owned(), |(share, width)| format!("{:.0} % in ±{width:.1} dB", share * 100.0));
        format!(
            "| {} | {} | {} | {:.3} | {:+.2} | {:.2} | {:.0} % | {covered} |",
            self.model,
            self.what,
            self.pairs,
            self.spearman,
            self.bias,
            self.rmse,
            self.within_one * 100.0
        )
    }
}

/// Correlation of the ranks; equal values share their mean rank.
fn spearman(pairs: &[Pair]) -> f64 {
    let a = ranks(&pairs.iter().map(|pair| pair.predicted).collect::<Vec<_>>());
    let b = ranks(&pairs.iter().map(|pair| pair.measured).collect::<Vec<_>>());
    let centre = (pairs.len() as f64 - 1.0) / 2.0;
    let product = |x: &[f64], y: &[f64]| -> f64 { x.iter().zip(y).map(|(x, y)| (x - centre) * (y - centre)).sum() };
    product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt()
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let below = |value: f64| values.iter().filter(|other| **other < value).count() as f64;
    let same = |value: f64| values.iter().filter(|other| **other == value).count() as f64;
    values.iter().map(|&value| below(value) + (same(value) - 1.0) / 2.0).collect()
}
