//! The one place that chooses vector instructions: loops written for any processor, compiled again for AVX2.

/// Runs `body`, which must be a plain loop over slices, with the widest vectors that this processor is known to have.
///
/// The result is bit for bit the same with and without: Rust never fuses a multiplication with an addition by itself,
/// and the loops fix their own order of summation in lanes.
#[inline]
pub(crate) fn widest<R>(body: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn with_avx2<R>(body: impl FnOnce() -> R) -> R {
            body()
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2, as checked on the line above, and nothing else is asked of the caller.
            #[allow(unsafe_code)]
            return unsafe { with_avx2(body) };
        }
    }
    body()
}
