//! Speed of the numerics beside the memory they read: `cargo bench -p nibble-core --bench numerics`.
//!
//! Prints the best of several runs, in processor time of all threads where the system tells it (so that other load
//! counts little), else in wall time. The first line is a plain pass over the same memory, to judge the others by.

#[path = "shared/cpu_time.rs"]
mod cpu_time;

use std::hint::black_box;

use nibble_core::plan::{Choice, Clip, Granularity, Precision, Symmetry};
use nibble_core::quant::{self, WeightLayout};
use nibble_core::stats::{RowKey, TensorStats};

use self::cpu_time::seconds;

/// Seconds of the fastest of `runs` measurements, each of as many repetitions as take 50 ms.
fn best<R>(runs: usize, mut body: impl FnMut() -> R) -> f64 {
    let mut measure = |repetitions: u32| {
        let start = seconds();
        for _ in 0..repetitions {
            black_box(body());
        }
        (seconds() - start) / f64::from(repetitions)
    };
    let once = measure(1).max(1e-7);
    let repetitions = (0.05 / once).clamp(1.0, 1e5) as u32;
    (0..runs).map(|_| measure(repetitions)).fold(f64::INFINITY, f64::min)
}

fn rate(name: &str, values: usize, seconds: f64) {
    println!("{name:44} {:8.2} GB/s  {:9.3} ms", values as f64 * 4.0 / seconds / 1e9, seconds * 1e3);
}

/// Sums of uniform numbers: bell-shaped, deterministic.
fn bell(count: usize) -> Vec<f32> {
    let uniform = |i: u64| (RowKey::new(1, 2, 3, i).0 >> 40) as f32 / 8_388_608.0 - 1.0;
    (0..count as u64).map(|i| (0..4).map(|j| uniform(4 * i + j)).sum()).collect()
}

fn main() {
    let values = bell(16 << 20);
    let relu: Vec<f32> = values.iter().map(|x| x.max(0.0)).collect();
    let sum = |values: &[f32]| {
        values.as_chunks::<32>().0.iter().fold([0.0_f32; 32], |s, c| std::array::from_fn(|i| s[i] + c[i]))
    };
    rate("plain sum", values.len(), best(5, || sum(&values)));
    for (name, values) in [("observe, bell-shaped", &values), ("observe, half zeros", &relu)] {
        rate(name, values.len(), best(5, || TensorStats::default().observe(values)));
    }
    let small = &values[..4096];
    let mut stats = TensorStats::default();
    rate("observe 4096 values at a time", 4096 * 1000, best(5, || (0..1000).for_each(|_| _ = stats.observe(small))));

    let mut stats = TensorStats::default();
    stats.observe(&values);
    for symmetry in [Symmetry::Symmetric, Symmetry::Asymmetric] {
        let seconds = best(20, || quant::clip_range(&stats, Clip::Mse, symmetry, 8));
        println!("clip range by mse, {symmetry:25} {:9.3} ms", seconds * 1e3);
    }
    let params = quant::activation_params(-3.0, 3.0, Symmetry::Asymmetric);
    println!("expected error of one range {:26.4} ms", best(20, || quant::histogram_sqnr(&stats, &params)) * 1e3);
    let mut copy = values.clone();
    rate("fake quantization", copy.len(), best(5, || params.fake_slice(&mut copy)));

    let layout = WeightLayout { outer: 4096, channels: 4096, inner: 1 };
    for (precision, symmetry, granularity) in [
        (Precision::Int8, Symmetry::Symmetric, Granularity::PerChannel),
        (Precision::Int8, Symmetry::Asymmetric, Granularity::PerTensor),
        (Precision::Int4, Symmetry::Symmetric, Granularity::Block(32)),
        (Precision::Int4, Symmetry::Asymmetric, Granularity::Block(32)),
    ] {
        for clip in [Clip::MinMax, Clip::Mse] {
            let choice = Choice { precision, symmetry, granularity, clip, ..Choice::FLOAT };
            let seconds = best(2, || quant::quantize_weight(&values, layout, &choice));
            rate(&format!("{precision} {symmetry} {granularity} {clip}"), values.len(), seconds);
        }
    }
}
