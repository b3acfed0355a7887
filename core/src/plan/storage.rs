//! A plan on disk: JSON, and beside it the tensors of its repairs and scalings.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::plan_file::TensorsFile;
use super::{Plan, PlanError};
use crate::{Error, limits, repair};

impl Plan {
    /// Reads a plan file, with the repairs and scalings that lie beside it.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { action: "read the plan", path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(io)?.len() > limits::MAX_TEXT_BYTES {
            return Err(PlanError::Format { path: path.to_owned(), why: "the file is too large".to_owned() }.into());
        }
        let text = std::fs::read(path).map_err(io)?;
        let mut plan = Self::from_json(&text).map_err(|why| PlanError::Format { path: path.to_owned(), why })?;
        if let Some(tensors) = plan.tensors.take() {
            let file = beside(path, &tensors.file)?;
            let refused = |why: String| PlanError::Tensors { path: file.clone(), why };
            let bytes = read(&file).map_err(&refused)?;
            if !hex(&bytes).eq_ignore_ascii_case(&tensors.sha256) {
                return Err(refused(
                    "it is not the file that the plan was saved with (its SHA-256 differs)".to_owned(),
                )
                .into());
            }
            (plan.repairs, plan.scalings) = repair::decode(&bytes).map_err(refused)?;
        }
        Ok(plan)
    }

    /// Writes the plan to `path` and its repairs and scalings, where it has any, to `NAME.safetensors` beside it, each in
    /// full first, flushed, then renamed into its place; the tensors first.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { action: "write the plan", path, source }
        };
        if self.repairs.is_empty() && self.scalings.is_empty() {
            return write(path, self.to_json().as_bytes()).map_err(io(path));
        }
        let file = path.with_extension("safetensors");
        let name = file.file_name().and_then(|name| name.to_str()).filter(|_| file != path);
        let name = name.ok_or_else(|| PlanError::Tensors {
            path: file.clone(),
            why: "the plan's own name leaves none for it; call the plan NAME.json".to_owned(),
        })?;
        let bytes = repair::encode(&self.repairs, &self.scalings)
            .map_err(|why| PlanError::Tensors { path: file.clone(), why })?;
        let plan = Self { tensors: Some(TensorsFile { file: name.to_owned(), sha256: hex(&bytes) }), ..self.clone() };
        write(&file, &bytes).map_err(io(&file))?;
        write(path, plan.to_json().as_bytes()).map_err(io(path))
    }
}

/// The file called `name` beside `path`; a name that leads elsewhere is refused.
fn beside(path: &Path, name: &str) -> Result<PathBuf, PlanError> {
    let is_name = Path::new(name).file_name().is_some_and(|file| file == name);
    if is_name {
        return Ok(path.with_file_name(name));
    }
    Err(PlanError::Tensors { path: PathBuf::from(name), why: "it must lie beside the plan".to_owned() })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    if length > limits::MAX_REPAIR_BYTES {
        return Err("the file is too large".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(limits::MAX_REPAIR_BYTES).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// Writes the file in full beside its place, flushes it, and renames it into its place.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".nibble-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::plan::{Granularity, Precision, Rounding, Symmetry, preset};
    use crate::quant::{QuantizedWeight, WeightLayout};
    use crate::repair::{Gain, LayerRepair, Scaling, ScalingMethod};

    fn plan() -> Plan {
        let weight = QuantizedWeight {
            bits: 4,
            layout: WeightLayout { outer: 20, channels: 2, inner: 1 },
            granularity: Granularity::Block(16),
            values: (0..40).map(|i| (i % 16) as i8 - 8).collect(),
            scales: vec![0.5, 0.25, 1.0, 2.0],
            zero_points: vec![1, -8, 7, 0],
            non_finite: 0,
        };
        let repair = LayerRepair {
            method: Rounding::Gptq,
            precision: Precision::Int4,
            symmetry: Symmetry::Asymmetric,
            granularity: Granularity::Block(16),
            weights: vec![weight],
            bias: Some(vec![0.125, -3.0]),
            data_free: false,
            levels: Some(8),
            held_back: Some(Gain { before_db: 12.5, after_db: 17.25 }),
        };
        let mut plan = preset("int4-weights").expect("preset").plan();
        plan.repairs.insert("/encoder/MatMul:0".to_owned(), Arc::new(repair));
        plan.scalings.push(Scaling {
            tensor: "x".to_owned(),
            factors: vec![1.0, 0.5],
            folded_into: Some("LayerNorm".to_owned()),
            method: ScalingMethod::Smoothquant,
            alpha: Some(0.85),
        });
        plan
    }

    #[test]
    fn repairs_and_scalings_survive_a_round_trip() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("p.json");
        plan().save(&path).expect("saved");
        assert_eq!(Plan::load(&path).expect("loads"), plan());
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 2);
        let plain = Plan { repairs: BTreeMap::new(), scalings: Vec::new(), ..plan() };
        let path = folder.path().join("plain.json");
        plain.save(&path).expect("saved");
        assert!(!folder.path().join("plain.safetensors").exists());
        assert_eq!(Plan::load(&path).expect("loads"), plain);
    }

    #[test]
    fn tensors_that_are_missing_changed_or_elsewhere_are_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let (path, file) = (folder.path().join("p.json"), folder.path().join("p.safetensors"));
        plan().save(&path).expect("saved");
        let bytes = std::fs::read(&file).expect("bytes");
        let mut changed = bytes.clone();
        *changed.last_mut().expect("bytes") ^= 1;
        std::fs::write(&file, changed).expect("written");
        let error = Plan::load(&path).expect_err("tampered");
        assert!(error.to_string().contains("SHA-256"), "{error}");
        std::fs::remove_file(&file).expect("removed");
        let error = Plan::load(&path).expect_err("missing");
        assert!(error.to_string().contains("repaired weights") && error.hint().contains("beside the plan"), "{error}");
        let json = std::fs::read_to_string(&path).expect("json").replace("p.safetensors", "../p.safetensors");
        std::fs::write(&path, json).expect("written");
        assert!(Plan::load(&path).expect_err("elsewhere").to_string().contains("beside the plan"));
        assert!(plan().save(&file).is_err());
    }

    /// Every byte cut off and every byte changed ends in an error or in repairs whose sizes fit; nothing panics.
    #[test]
    fn damaged_tensors_do_no_harm() {
        let plan = plan();
        let bytes = repair::encode(&plan.repairs, &plan.scalings).expect("bytes");
        assert_eq!(repair::decode(&bytes).expect("repairs").0, plan.repairs);
        for cut in 0..bytes.len() {
            assert!(repair::decode(&bytes[..cut]).is_err());
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x15;
            let Ok((repairs, _)) = repair::decode(&changed) else { continue };
            for weight in repairs.values().flat_map(|repair| &repair.weights) {
                assert_eq!(weight.dequantize().len(), weight.layout.len());
            }
        }
    }
}
