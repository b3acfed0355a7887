//! Running the program, and the models and data it is run on.

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use ndarray::ArrayD;
use ndarray_npy::WriteNpyExt;
use nibble_core::onnx::proto::ModelProto;
use prost::Message;
use serde_json::Value;

/// A folder that a test works in; it disappears with it.
pub struct Place {
    folder: tempfile::TempDir,
    display: Option<&'static str>,
}

/// What a run left behind.
pub struct Outcome {
    /// Exit code.
    pub code: i32,
    /// The JSON object on stdout; null when there is none.
    pub json: Value,
    /// stdout.
    pub stdout: String,
    /// stderr.
    pub stderr: String,
}

impl Place {
    /// An empty folder.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder"), display: None }
    }

    /// The same with a display named that nobody serves.
    pub fn with_dead_display() -> Self {
        Self { display: Some(":4294"), ..Self::new() }
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The names of everything in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).expect("the folder").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Runs the program in the folder.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nibble-under-test"));
        command.current_dir(self.folder.path()).args(arguments);
        // No window may open in a test, whatever machine it runs on.
        command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY").env_remove("WAYLAND_SOCKET");
        if let Some(display) = &self.display {
            command.env("DISPLAY", display);
        }
        Outcome::of(&command.output().expect("the program starts"))
    }

    /// Runs the program with an empty cache and no pip to be found.
    pub fn run_without_runtime<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nibble-under-test"));
        command.current_dir(self.folder.path()).args(arguments);
        command.env_remove("ORT_DYLIB_PATH").env("NIBBLE_CACHE", self.path("cache")).env("PATH", self.path("none"));
        Outcome::of(&command.output().expect("the program starts"))
    }

    /// Starts the program in the folder and leaves it running.
    pub fn start<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> std::process::Child {
        use std::process::Stdio;
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nibble-under-test"));
        command.current_dir(self.folder.path()).args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the program starts")
    }

    /// Starts the program, interrupts it once it is at work, and gives its exit code and stdout.
    #[cfg(unix)]
    pub fn interrupted<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> (Option<i32>, String) {
        use std::process::Stdio;
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nibble-under-test"));
        command.current_dir(self.folder.path()).args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn().expect("the program starts");
        std::thread::sleep(std::time::Duration::from_millis(1500));
        let signal = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(signal.expect("kill").success());
        let output = child.wait_with_output().expect("the program ends");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs the program with `--json` and expects it to succeed.
    pub fn json<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Value {
        let arguments = arguments.into_iter().map(|a| a.as_ref().to_owned()).chain(["--json".into()]);
        let outcome = self.run(arguments);
        assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
        outcome.json
    }

    /// Runs the program with `--json` and expects it to fail with this exit code and all three parts of an error: gives
    /// them as one text.
    pub fn fails<S: AsRef<std::ffi::OsStr>>(&self, code: i32, arguments: impl IntoIterator<Item = S>) -> String {
        let arguments = arguments.into_iter().map(|a| a.as_ref().to_owned()).chain(["--json".into()]);
        let outcome = self.run(arguments);
        assert_eq!(outcome.code, code, "{}{}", outcome.stdout, outcome.stderr);
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
        let part =
            |key: &str| outcome.json["error"][key].as_str().unwrap_or_else(|| panic!("no {key}: {}", outcome.stdout));
        assert!(!part("message").is_empty() && !part("hint").is_empty(), "{}", outcome.stdout);
        format!("{} | {} | {}", part("message"), part("where"), part("hint"))
    }
}

impl Outcome {
    fn of(output: &Output) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let json = serde_json::from_str(&stdout).unwrap_or(Value::Null);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: output.status.code().unwrap_or(-1), json, stdout, stderr }
    }
}

/// A file of the bundled samples.
pub fn sample(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sample-models").join(name);
    assert!(path.is_file(), "{} is missing", path.display());
    path
}

/// The bundled convolutional network.
pub fn cnn() -> PathBuf {
    sample("digits_cnn.onnx")
}

/// The bundled network's input: 28 by 28 pixels from 0 to 1.
pub fn images(count: usize) -> ArrayD<f32> {
    let values = (0..count * 784).map(|i| ((i * 37 + i / 784 * 11) % 101) as f32 / 100.0).collect();
    ArrayD::from_shape_vec(vec![count, 1, 28, 28], values).expect("shape")
}

/// Writes arrays as an `.npz`.
pub fn npz(path: &Path, arrays: &[(&str, ArrayD<f32>)]) {
    let mut writer = zip::ZipWriter::new(std::fs::File::create(path).expect("create"));
    for (name, array) in arrays {
        writer.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).expect("member");
        array.write_npy(&mut writer).expect("array");
    }
    writer.finish().expect("finish");
}

/// The bundled network after `change`.
pub fn changed(path: &Path, change: impl FnOnce(&mut ModelProto)) {
    let mut model = ModelProto::decode(std::fs::read(cnn()).expect("model").as_slice()).expect("protobuf");
    change(&mut model);
    std::fs::write(path, model.encode_to_vec()).expect("write");
}
