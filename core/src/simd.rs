//! The one place that chooses instructions by processor: loops written for any, compiled again for AVX2; prefetching.

/// Defines a function, a plain loop over slices, that runs with the widest vectors this processor is known to have.
///
/// The result is bit for bit the same with and without: Rust never fuses a multiplication with an addition by itself,
/// and the loops fix their own order of summation in lanes.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) $(-> $result)? {
            #[inline(always)]
            #[allow(clippy::inline_always)] // has to be compiled again inside `with_avx2`
            fn plain($($arg: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn with_avx2($($arg: $type),*) $(-> $result)? {
                    plain($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has AVX2, as checked on the line above; nothing else is asked of callers.
                    #[allow(unsafe_code)]
                    return unsafe { with_avx2($($arg),*) };
                }
            }
            plain($($arg),*)
        }
    };
}
pub(crate) use vectorised;

vectorised! {
    /// Σ aᵢ·bᵢ, in sixteen sums side by side.
    pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
        const LANES: usize = 16;
        let mut lanes = [0.0_f32; LANES];
        let ((whole_a, rest_a), (whole_b, rest_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        for (a, b) in whole_a.iter().zip(whole_b) {
            for lane in 0..LANES {
                lanes[lane] += a[lane] * b[lane];
            }
        }
        lanes.iter().sum::<f32>() + rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum::<f32>()
    }
}

/// Asks the processor to bring a line of its cache nearer while it does something else. Does nothing where that is unknown.
#[inline(always)]
#[allow(clippy::inline_always)] // one instruction
pub(crate) fn prefetch(line: &[f32; 16]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint; it reads nothing and cannot fault, and the address is that of an array besides.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
