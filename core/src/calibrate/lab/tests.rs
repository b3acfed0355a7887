//! The lab on ranges made by hand.

use super::*;
use crate::stats::RowKey;

const SOURCE: &str = "photos";

/// A value that hardly differs between samples.
fn calm(sample: u64, tensor: u64) -> f32 {
    1.0 + (RowKey::new(1, tensor, sample, 0).0 >> 40) as f32 / 16_777_216.0 * 0.08
}

/// `count` samples of 40 tensors that agree, but for sample 5, which is four times as large in ten of them.
fn stats(count: u64, outlier: bool) -> Stats {
    let mut stats = Stats::new("model", 0);
    let names: Vec<String> = (0..40).map(|tensor| format!("t{tensor:02}")).collect();
    for sample in 0..count {
        let range = |tensor: usize| {
            let large = outlier && sample == 5 && tensor < 10;
            let high = calm(sample, tensor as u64) * if large { 4.0 } else { 1.0 };
            // Every other tensor is positive, one is cut off at 6 in all samples, one is nothing but 0.
            match tensor {
                38 => (0.0, 6.0),
                39 => (0.0, 0.0),
                _ => (if tensor.is_multiple_of(2) { 0.0 } else { -calm(sample, 100 + tensor as u64) }, high),
            }
        };
        let shown = names.iter().enumerate().map(|(tensor, name)| (name.as_str(), range(tensor)));
        stats.by_sample.add(0, SampleId::new(SOURCE, sample), shown);
    }
    stats.sources.insert(SOURCE.to_owned(), (0..count).collect());
    stats
}

#[test]
fn few_samples_are_enough_where_all_agree() {
    let lab = Lab::of(&stats(64, false), LabOptions::default());
    assert_eq!((lab.tensors.len(), lab.samples.len(), lab.seen), (39, 64, 64));
    assert_eq!(lab.enough, Some(1), "{}", lab.verdict());
    assert!(lab.verdict().starts_with("1 sample is enough: 95 % of the ranges within 10 %"), "{}", lab.verdict());
    assert_eq!((lab.outliers().count(), lab.moving().len()), (0, 0));
    let held = lab.tensors.iter().find(|tensor| tensor.name == "t38").expect("there");
    assert!(held.low.is_none() && held.high.is_some_and(|end| !end.is_set_alone()));
    assert!(
        lab.setters.iter().all(|setter| setter.effects.iter().all(|effect| lab.tensors[effect.tensor].name != "t38"))
    );
}

#[test]
fn a_sample_that_widens_ranges_alone_is_named_with_what_it_does() {
    let lab = Lab::of(&stats(64, true), LabOptions::default());
    let outliers: Vec<&Setter> = lab.outliers().collect();
    assert_eq!(outliers.iter().map(|setter| setter.sample.sample).collect::<Vec<_>>(), [5]);
    let far: Vec<&Effect> = outliers[0].far_out().collect();
    assert_eq!(far.len(), 10);
    for effect in far {
        let tensor = &lab.tensors[effect.tensor];
        assert!(effect.is_upper && tensor.high.is_some_and(|end| end == effect.end), "{effect:?}");
        let width = |high: f32| f64::from(high - tensor.low.map_or(0.0, |end| end.value));
        assert!((effect.factor - width(effect.end.value) / width(effect.end.others)).abs() < 1e-6);
        assert!(effect.end.others < 1.09 && effect.end.value > 3.9, "{effect:?}");
    }
    // A third of all resampled sets lack the sample, so that a quarter of the ranges cannot settle.
    assert_eq!((lab.enough, lab.moving().len()), (None, 10));
    assert!(
        lab.verdict().starts_with("Not enough: with all 64 samples 10 of 39 ranges still move"),
        "{}",
        lab.verdict()
    );
    assert_eq!(lab, Lab::of(&stats(64, true), LabOptions::default()), "the same draws");
}

#[test]
fn nothing_is_said_of_too_few_samples_or_none() {
    assert_eq!(Lab::of(&Stats::default(), LabOptions::default()).verdict(), "Nothing is known of single samples");
    let lab = Lab::of(&stats(3, false), LabOptions::default());
    assert_eq!(lab.enough, None);
    assert_eq!(lab.verdict(), "3 samples are too few to say how many are enough");
    let one = Lab::of(&stats(1, false), LabOptions::default());
    assert!(one.setters.iter().all(|setter| !setter.is_outlier()));
}

#[test]
fn samples_are_called_by_number_and_source() {
    let mut stats = stats(3, false);
    let id = SampleId::new(SOURCE, 2);
    assert_eq!(sample_name(id, &stats, None), "sample 2");
    stats.sources.insert("others".to_owned(), [7].into());
    assert_eq!(sample_name(id, &stats, None), "sample 2 of photos");
}
