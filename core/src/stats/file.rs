//! The statistics file: one compact, versioned, checksummed binary, written atomically.

use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Channels, Histogram, RowKey, RowReservoir, Stats, TensorStats};
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
/// 2 added channels.
const VERSION: u32 = 2;
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
        input.0.is_empty().then_some(stats)
    }
}

/// Appends values to bytes: numbers as LEB128, floats in little endian.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn float(&mut self, value: f32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn double(&mut self, value: f64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn tensor(&mut self, stats: &TensorStats) {
        self.number(stats.count);
        // 0 for an unknown rank, so that scalars can be told from it.
        self.number(stats.rank.map_or(0, |rank| u64::from(rank) + 1));
        self.float(stats.min);
        self.float(stats.max);
        self.double(stats.sum);
        self.double(stats.sum_sq);
        self.number(stats.non_finite);
        let histogram = &stats.histogram;
        self.number(histogram.zeros);
        self.0.extend_from_slice(&histogram.exponent.to_le_bytes());
        let used: Vec<_> = histogram.counts.iter().enumerate().filter(|(_, count)| **count > 0).collect();
        self.number(used.len() as u64);
        used.into_iter().fold(0, |next, (i, &count)| {
            self.number((i - next) as u64);
            self.number(count);
            i + 1
        });
    }

    fn channels(&mut self, channels: &Channels) {
        self.number(channels.len() as u64);
        self.number(channels.count);
        for ((&min, &max), &sum) in channels.min.iter().zip(&channels.max).zip(&channels.sum_abs) {
            self.float(min);
            self.float(max);
            self.double(sum);
        }
    }

    fn reservoir(&mut self, rows: &RowReservoir) {
        let mut rows = rows.clone();
        rows.sort();
        self.number(rows.width as u64);
        self.number(rows.len() as u64);
        for ((row, &(lo, hi)), key) in rows.rows.chunks(rows.width.max(1)).zip(&rows.ranges).zip(&rows.keys) {
            self.0.extend_from_slice(&key.0.to_le_bytes());
            self.float(lo);
            self.float(hi);
            for &x in row {
                self.float(x);
            }
        }
    }
}

/// Takes values off the front of bytes; `None` when they do not fit.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.bytes()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn text(&mut self) -> Option<String> {
        let len = self.length()?;
        String::from_utf8(self.slice(len)?.to_vec()).ok()
    }

    fn float(&mut self) -> Option<f32> {
        self.bytes().map(f32::from_le_bytes)
    }

    fn double(&mut self) -> Option<f64> {
        self.bytes().map(f64::from_le_bytes)
    }

    fn tensor(&mut self) -> Option<TensorStats> {
        let count = self.number()?;
        let rank = match self.number()? {
            0 => None,
            rank => Some(u32::try_from(rank - 1).ok()?),
        };
        let (min, max) = (self.float()?, self.float()?);
        let (sum, sum_sq) = (self.double()?, self.double()?);
        let non_finite = self.number()?;
        let zeros = self.number()?;
        let exponent = i32::from_le_bytes(self.bytes()?);
        let mut histogram = Histogram { exponent, zeros, ..Histogram::default() };
        let mut next = 0_usize;
        for _ in 0..self.number()? {
            let i = next.checked_add(self.length()?)?;
            *histogram.counts.get_mut(i)? = self.number()?;
            next = i + 1;
        }
        let total = histogram.counts.iter().try_fold(zeros, |sum, &n| sum.checked_add(n));
        let sound = (-126..=117).contains(&exponent) && total == Some(count);
        sound.then_some(TensorStats { count, rank, min, max, sum, sum_sq, non_finite, histogram })
    }

    fn channels(&mut self) -> Option<Channels> {
        let (len, count) = (self.number()?, self.number()?);
        let mut channels = Channels { count, ..Channels::default() };
        for _ in 0..len {
            channels.min.push(self.float()?);
            channels.max.push(self.float()?);
            channels.sum_abs.push(self.double()?);
        }
        Some(channels)
    }

    fn reservoir(&mut self) -> Option<RowReservoir> {
        let mut rows = RowReservoir::new(self.length()?);
        for _ in 0..self.number()? {
            rows.keys.push(RowKey(self.bytes().map(u64::from_le_bytes)?));
            rows.ranges.push((self.float()?, self.float()?));
            let values = self.slice(rows.width.checked_mul(4)?)?;
            rows.rows.extend(values.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
        }
        (rows.len() <= rows.capacity()).then_some(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// Files of the first version have no channels; everything else in them is still read.
    #[test]
    fn files_of_the_first_version_are_read() {
        let stats = Stats { channels: std::collections::BTreeMap::new(), ..gathered() };
        let mut payload = stats.to_bytes();
        assert_eq!(payload.pop(), Some(0));
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
