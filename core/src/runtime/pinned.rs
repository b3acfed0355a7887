//! The one release of ONNX Runtime that Nibble fetches, with the hash of every file.
//!
//! Not a newer one: builds for Linux and macOS from 1.29 on send telemetry unless told not to; 1.28.0 has none.

/// The version fetched.
pub const VERSION: &str = "1.28.0";

/// One platform's Python wheel and the library inside it. The wheel is plain zip; no Python is needed to use the library.
pub(super) struct Pin {
    os: &'static str,
    arch: &'static str,
    /// The wheel's platform tag.
    pub(super) tag: &'static str,
    /// SHA-256 of the wheel.
    pub(super) wheel: &'static str,
    /// Path of the library in the wheel.
    pub(super) member: &'static str,
    /// SHA-256 of the library.
    pub(super) library: &'static str,
}

const PINS: [Pin; 5] = [
    Pin {
        os: "linux",
        arch: "x86_64",
        tag: "manylinux_2_28_x86_64",
        wheel: "a166b78ee04f3a37fa1ef82034b6a3ce96d9684e582d4d30b296de83e9998bb5",
        member: "onnxruntime/capi/libonnxruntime.so.1.28.0",
        library: "aa4079d18f4ea7a5f3a94d80cd4bbe0f2740436626622d64d793803a20381083",
    },
    Pin {
        os: "linux",
        arch: "aarch64",
        tag: "manylinux_2_28_aarch64",
        wheel: "8d66f9ceb29909c70839e4e4fb3435c7b490050d8f162bd5f3aba4ca01ee517f",
        member: "onnxruntime/capi/libonnxruntime.so.1.28.0",
        library: "23a37c2994bc273e1d59a4f49af6cba5bf1cfbc29f04907ec27df375aba50a7d",
    },
    Pin {
        os: "macos",
        arch: "aarch64",
        tag: "macosx_14_0_arm64",
        wheel: "f5c5daabd28aad610f83fdcf32acec8fb57e6adc6c6a39fe2a3c755db957b410",
        member: "onnxruntime/capi/libonnxruntime.1.28.0.dylib",
        library: "99909e99214e31fe2296c9f7fae5abc2eaf0145342efe8b0a6ed82e9ddb0a0a0",
    },
    Pin {
        os: "windows",
        arch: "x86_64",
        tag: "win_amd64",
        wheel: "0d650aeee29368414367b65529e90afe4bf1bab76254789063b8b2f7ea3013c8",
        member: "onnxruntime/capi/onnxruntime.dll",
        library: "14e186627f109a15f28f0b36f6e8ea07c79eac666818e63c39a9792f415bf649",
    },
    Pin {
        os: "windows",
        arch: "aarch64",
        tag: "win_arm64",
        wheel: "0faf85fb447a663c9cdadc39bd6b19bdf7bedded6699e45731b9b36c46fd993d",
        member: "onnxruntime/capi/onnxruntime.dll",
        library: "a3c722907fb82ae7aa999d90bc81b8dc6358f1260125078485b392d53eea716c",
    },
];

/// The pin for this machine; `None` where there is no such wheel.
pub(super) fn pin() -> Option<&'static Pin> {
    PINS.iter().find(|pin| pin.os == std::env::consts::OS && pin.arch == std::env::consts::ARCH)
}

impl Pin {
    /// The library's file name.
    pub(super) fn file_name(&self) -> &'static str {
        self.member.rsplit('/').next().unwrap_or(self.member)
    }
}
