//! What Nibble remembers between runs: recent files, theme, where ONNX Runtime is.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Most recent files kept.
const MAX_RECENT: usize = 12;

/// Settings, saved as JSON in the user's configuration folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Models opened, the latest first.
    pub recent: Vec<PathBuf>,
    /// Light, dark or as the system says.
    pub theme: Theme,
    /// The ONNX Runtime library to load; found by itself when unset.
    pub library: Option<PathBuf>,
    /// Calibration data last used, by model path.
    pub data: std::collections::BTreeMap<PathBuf, String>,
    /// Evaluation data last used, by model path.
    pub eval: std::collections::BTreeMap<PathBuf, String>,
    /// Labels of the evaluation data last used, by model path.
    pub labels: std::collections::BTreeMap<PathBuf, String>,
    /// Fields of a newer version, kept as they are.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
    /// The file these settings are saved in; `None` keeps them in memory only.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// Why the saved settings could not be read; they are replaced by the next change.
    #[serde(skip)]
    pub problem: Option<String>,
}

/// Which colours the window uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Theme {
    /// As the system says.
    #[default]
    System,
    /// Light.
    Light,
    /// Dark.
    Dark,
}

impl Settings {
    /// The settings file of this user; `None` where the system has no such folder.
    pub fn default_file() -> Option<PathBuf> {
        let folders = directories::ProjectDirs::from("", "", "nibble")?;
        Some(folders.config_dir().join("settings.json"))
    }

    /// Reads this user's settings. A missing file gives the defaults, a broken one too, with [`Settings::problem`] set.
    pub fn load() -> Self {
        Self::default_file().map(|file| Self::load_from(&file)).unwrap_or_default()
    }

    /// Reads the settings in `file`, as [`Settings::load`] does.
    pub fn load_from(file: &Path) -> Self {
        let read = || -> anyhow::Result<Self> {
            match std::fs::read(file) {
                Ok(text) => serde_json::from_slice(&text).context("the settings file is damaged"),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
                Err(error) => Err(anyhow::Error::new(error).context("cannot read the settings")),
            }
        };
        let file = Some(file.to_owned());
        match read() {
            Ok(settings) => Self { file, ..settings },
            Err(error) => Self { file, problem: Some(format!("{error:#}")), ..Self::default() },
        }
    }

    /// Writes the settings: temporary file, flush to disk, rename.
    pub fn save(&self) -> anyhow::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let folder = file.parent().context("the settings file has no folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let temporary = file.with_extension(format!("json.{}.tmp", std::process::id()));
        let write = || -> anyhow::Result<()> {
            let mut out = std::fs::File::create(&temporary)?;
            out.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            out.sync_all()?;
            std::fs::rename(&temporary, file)?;
            Ok(())
        };
        write().inspect_err(|_| drop(std::fs::remove_file(&temporary))).context("cannot write the settings")
    }

    /// Puts `path` first among the recent files.
    pub fn remember(&mut self, path: &Path) {
        self.recent.retain(|known| known != path);
        self.recent.insert(0, path.to_owned());
        self.recent.truncate(MAX_RECENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_a_round_trip_and_keep_unknown_fields() {
        let folder = std::env::temp_dir().join(format!("nibble-settings-{}", std::process::id()));
        let file = folder.join("deep/settings.json");
        let mut settings = Settings::load_from(&file);
        assert!(settings.problem.is_none());
        settings.remember(Path::new("a.onnx"));
        settings.remember(Path::new("b.onnx"));
        settings.remember(Path::new("a.onnx"));
        settings.unknown.insert("later".to_owned(), Value::from(1));
        settings.save().expect("saved");
        let again = Settings::load_from(&file);
        assert_eq!(again, settings);
        assert_eq!(again.recent, [Path::new("a.onnx"), Path::new("b.onnx")]);
        std::fs::write(&file, "{").expect("written");
        let damaged = Settings::load_from(&file);
        assert!(damaged.problem.is_some() && damaged.recent.is_empty());
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
