//! What the processor has that fast kernels use: without it int8 may not be faster.

/// Names, in ONNX Runtime's and Linux' spelling, of the instruction sets that int8, float16 and wide float kernels use.
pub fn cpu_features() -> Vec<String> {
    #[allow(unused_mut)]
    let mut found: Vec<(&str, bool)> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        found.extend([
            ("avx", has!("avx")),
            ("avx2", has!("avx2")),
            ("fma", has!("fma")),
            ("f16c", has!("f16c")),
            ("avx512f", has!("avx512f")),
            ("avx512bw", has!("avx512bw")),
            ("avx512_vnni", has!("avx512vnni")),
            ("avx512_bf16", has!("avx512bf16")),
            ("avx512_fp16", has!("avx512fp16")),
            ("avx_vnni", has!("avxvnni")),
        ]);
        // The standard library does not yet detect these: leaf 7 of CPUID, EDX bits 24 and 25.
        let leaf = std::arch::x86_64::__cpuid(0);
        let edx = if leaf.eax >= 7 { std::arch::x86_64::__cpuid_count(7, 0).edx } else { 0 };
        found.extend([("amx_tile", edx >> 24 & 1 == 1), ("amx_int8", edx >> 25 & 1 == 1)]);
    }
    #[cfg(target_arch = "aarch64")]
    {
        use std::arch::is_aarch64_feature_detected as has;
        found.extend([
            ("neon", has!("neon")),
            ("dotprod", has!("dotprod")),
            ("i8mm", has!("i8mm")),
            ("fp16", has!("fp16")),
            ("bf16", has!("bf16")),
            ("sve", has!("sve")),
        ]);
    }
    found.into_iter().filter(|(_, present)| *present).map(|(name, _)| name.to_owned()).collect()
}

/// Whether one instruction multiplies and adds int8 (VNNI, AMX, dotprod): without one, int8 kernels gain little.
pub fn has_int8_dot(features: &[String]) -> bool {
    ["avx512_vnni", "avx_vnni", "amx_int8", "dotprod", "i8mm"].iter().any(|name| features.iter().any(|f| f == name))
}
