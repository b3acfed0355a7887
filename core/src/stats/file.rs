//! The statistics file: one compact, versioned, checksummed binary, written atomically.

mod bytes;

use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use self::bytes::{Reader, Writer};
use super::Stats;
use crate::{Error, limits};

/// Why statistics could not be read or joined.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// The file is something else.
    #[error("not a statistics file")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer build.
    #[error("the statistics have version {version}, this build reads up to {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The file is cut short or changed.
    #[error("the statistics file is damaged: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        why: &'static str,
    },
    /// The statistics were gathered from another model.
    #[error("the statistics belong to another model (SHA-256 {found}, this one has {expected})")]
    OtherModel {
        /// Hash of the model at hand.
        expected: String,
        /// Hash that the statistics carry.
        found: String,
    },
}

impl StatsError {
    /// The file concerned; empty when it is not about a file.
    pub fn place(&self) -> String {
        match self {
            Self::Foreign { path } | Self::Version { path, .. } | Self::Damaged { path, .. } => {
                path.display().to_string()
            }
            Self::OtherModel { .. } => String::new(),
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Foreign { .. } => "Give a file that `nibble calibrate -o` wrote".to_owned(),
            Self::Version { .. } => "Use the newer build, or calibrate again".to_owned(),
            Self::Damaged { .. } | Self::OtherModel { .. } => "Calibrate this model again".to_owned(),
        }
    }
}

const MAGIC: &[u8; 8] = b"NIBSTATS";
/// 2 added channels, 3 the ranges of single samples.
const VERSION: u32 = 3;
/// Magic, version, SHA-256 of the rest.
const HEADER: usize = 8 + 4 + 32;

impl Stats {
    /// Writes the statistics: a temporary file beside `path`, flushed to disk, then renamed. The same statistics make
    /// the same bytes.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let payload = self.to_bytes();
        let io = |source| Error::Io { action: "write the statistics", path: path.to_owned(), source };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask, as any new file
        let mut file = builder.prefix(".nibble-stats-").tempfile_in(folder).map_err(io)?;
        file.write_all(MAGIC).map_err(io)?;
        file.write_all(&VERSION.to_le_bytes()).map_err(io)?;
        file.write_all(&Sha256::digest(&payload)).map_err(io)?;
        file.write_all(&payload).map_err(io)?;
        file.as_file().sync_all().map_err(io)?;
        file.persist(path).map_err(|error| io(error.error))?;
        Ok(())
    }

    /// Reads statistics that [`Self::save`] wrote.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { action: "read the statistics", path: path.to_owned(), source };
        let path = || path.to_owned();
        if std::fs::metadata(path()).map_err(io)?.len() > limits::MAX_STATS_BYTES {
            return Err(
                StatsError::Damaged { path: path(), why: "it is larger than any that this build writes" }.into()
            );
        }
        let bytes = std::fs::read(path()).map_err(io)?;
        if !bytes.starts_with(MAGIC) {
            return Err(StatsError::Foreign { path: path() }.into());
        }
        let damaged = |why| StatsError::Damaged { path: path(), why };
        let header = bytes.get(..HEADER).ok_or_else(|| damaged("it ends in its header"))?;
        let version = header[8..12].iter().rev().fold(0, |v: u32, &b| v << 8 | u32::from(b));
        if version > VERSION {
            return Err(StatsError::Version { path: path(), version }.into());
        }
        let payload = &bytes[HEADER..];
        if Sha256::digest(payload)[..] != header[12..] {
            return Err(damaged("its checksum does not fit; it was cut short or changed").into());
        }
        Ok(Self::from_bytes(payload, version).ok_or_else(|| damaged("its contents do not fit together"))?)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.text(&self.model_sha256);
        out.number(self.seed);
        out.number(self.sources.len() as u64);
        for (data, seen) in &self.sources {
            out.text(data);
            out.number(seen.len() as u64);
            // Gaps are small where the samples are consecutive.
            seen.iter().fold(0, |next, &sample| {
                out.number(sample.wrapping_sub(next));
                sample.wrapping_add(1)
            });
        }
        out.number(self.tensors.len() as u64);
        for (name, stats) in &self.tensors {
            out.text(name);
            out.tensor(stats);
        }
        out.number(self.rows.len() as u64);
        for (name, rows) in &self.rows {
            out.text(name);
            out.reservoir(rows);
        }
        out.number(self.channels.len() as u64);
        for (name, channels) in &self.channels {
            out.text(name);
            out.channels(channels);
        }
        out.sample_ranges(&self.by_sample);
        out.0
    }

    fn from_bytes(bytes: &[u8], version: u32) -> Option<Self> {
        let mut input = Reader(bytes);
        let mut stats = Self::new(input.text()?, input.number()?);
        for _ in 0..input.number()? {
            let data = input.text()?;
            let mut next = 0_u64;
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..input.number()? {
                let sample = next.wrapping_add(input.number()?);
                seen.insert(sample);
                next = sample.wrapping_add(1);
            }
            stats.sources.insert(data, seen);
        }
        for _ in 0..input.number()? {
            stats.tensors.insert(input.text()?, input.tensor()?);
        }
        for _ in 0..input.number()? {
            stats.rows.insert(input.text()?, input.reservoir()?);
        }
        if version >= 2 {
            for _ in 0..input.number()? {
                stats.channels.insert(input.text()?, input.channels()?);
            }
        }
        if version >= 3 {
            stats.by_sample = input.sample_ranges()?;
        }
        input.0.is_empty().then_some(stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Channels, RowKey, RowReservoir, SampleId, SampleRanges, TensorStats};

    fn gathered() -> Stats {
        let mut stats = Stats::new("abc", 7);
        stats.sources.insert("some.npz".to_owned(), [0, 1, 2, 900].into());
        stats.tensors.entry("x".to_owned()).or_default().observe(&[-3.5, 0.0, 1e-3, 2.0, f32::NAN, 700.0]);
        stats.tensors.insert("empty".to_owned(), TensorStats::default());
        let mut rows = RowReservoir::new(2);
        rows.offer(RowKey(9), (-1.0, 1.0), &[0.5, -0.5]);
        rows.offer(RowKey(3), (0.0, 2.0), &[1.5, 0.0]);
        rows.sort();
        stats.rows.insert("layer".to_owned(), rows);
        let channels = stats.channels.entry("x".to_owned()).or_insert_with(|| Channels::new(2));
        channels.observe(crate::stats::ChannelAxis::Last, &[1, 2], &[0.5, -1.5]);
        for (sample, range) in [(0, (-3.5, 2.0)), (1, (0.0, 700.0)), (900, (0.0, 0.0))] {
            stats.by_sample.add(7, SampleId::new("some.npz", sample), [("x", range)]);
        }
        stats
    }

    fn refused(path: &Path) -> StatsError {
        match Stats::load(path) {
            Err(Error::Stats(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_saved_comes_back_and_bytes_repeat() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.stats");
        let stats = gathered();
        stats.save(&path).expect("saved");
        assert_eq!(Stats::load(&path).expect("loaded"), stats);
        let first = std::fs::read(&path).expect("bytes");
        stats.save(&path).expect("saved over");
        assert_eq!(std::fs::read(&path).expect("bytes"), first);
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 1);
    }

    #[test]
    fn damaged_and_foreign_files_are_refused_with_the_reason() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a.stats");
        gathered().save(&path).expect("saved");
        let whole = std::fs::read(&path).expect("bytes");
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).expect("written");
            let error = refused(&path);
            assert!(matches!(error, StatsError::Foreign { .. } | StatsError::Damaged { .. }), "{len}: {error}");
            assert!(!error.hint().is_empty() && error.place().ends_with("a.stats"));
        }
        let mut changed = whole.clone();
        changed[whole.len() / 2] ^= 1;
        std::fs::write(&path, &changed).expect("written");
        assert!(matches!(refused(&path), StatsError::Damaged { .. }));
        let mut newer = whole.clone();
        newer[8] = 200;
        std::fs::write(&path, &newer).expect("written");
        assert!(matches!(refused(&path), StatsError::Version { version: 200, .. }));
        std::fs::write(&path, b"PK\x03\x04 something else").expect("written");
        assert!(matches!(refused(&path), StatsError::Foreign { .. }));
        assert!(matches!(Stats::load(&folder.path().join("none")), Err(Error::Io { .. })));
    }

    /// Contents with a right checksum but wrong inside must neither panic nor be believed.
    #[test]
    fn contents_that_do_not_fit_are_refused() {
        let payload = gathered().to_bytes();
        for i in 0..payload.len() {
            let mut changed = payload.clone();
            changed[i] = 0xff;
            drop(Stats::from_bytes(&changed, VERSION));
            assert_eq!(Stats::from_bytes(&payload[..i], VERSION), None);
        }
    }

    /// Files of the first version have no channels, those of the second no ranges of single samples; everything else in
    /// them is still read.
    #[test]
    fn files_of_earlier_versions_are_read() {
        let stats = Stats { by_sample: SampleRanges::default(), ..gathered() };
        let mut payload = stats.to_bytes();
        for _ in 0..3 {
            assert_eq!(payload.pop(), Some(0), "nothing seen, no sample, no tensor");
        }
        assert_eq!(Stats::from_bytes(&payload, 2), Some(stats.clone()));
        let stats = Stats { channels: std::collections::BTreeMap::new(), ..stats };
        let mut payload = stats.to_bytes();
        payload.truncate(payload.len() - 4);
        assert_eq!(Stats::from_bytes(&payload, 1), Some(stats));
    }

    #[test]
    fn statistics_of_two_models_do_not_mix() {
        let mut stats = gathered();
        assert!(matches!(stats.merge(&Stats::new("other", 0)), Err(StatsError::OtherModel { .. })));
        let mut more = Stats::new("abc", 7);
        more.sources.insert("some.npz".to_owned(), [2, 3].into());
        more.tensors.entry("x".to_owned()).or_default().observe(&[-9.0]);
        stats.merge(&more).expect("merged");
        assert_eq!((stats.samples(), stats.tensors["x"].min, stats.tensors["x"].count), (5, -9.0, 6));
    }
}
