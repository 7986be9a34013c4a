//! A model's weights. In: a directory of safetensors files, whole or sharded. Out: tensors by name, checked against the
//! shape that the decoder asks for, and a hash of all that was taken. Tensors are read one at a time, so that loading
//! needs little more memory than the model itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Metadata, TensorInfo};

use super::LmError;
use super::config::{Family, ModelConfig};
use crate::locks;

/// Largest header of a safetensors file, in bytes, as the format's own reader has it.
const MAX_HEADER: u64 = 100_000_000;

/// The weights of a model.
#[derive(Debug)]
pub struct Weights {
    source: Source,
    device: Device,
    dtype: DType,
    hashes: Mutex<BTreeMap<String, blake3::Hash>>,
}

#[derive(Debug)]
enum Source {
    /// A directory's files.
    Files {
        dir: PathBuf,
        files: Vec<Shard>,
        /// Which file has a tensor.
        places: BTreeMap<String, usize>,
    },
    /// Random numbers, for benches and checks: speed does not depend on the values.
    Random {
        /// The same on every device, and slow to make; otherwise as the device makes them.
        seed: Option<u64>,
        /// What the weights of norms lie around.
        norms: f32,
    },
    /// Where a model begins that has learnt nothing.
    Fresh {
        /// Makes the numbers.
        seed: u64,
    },
    /// Tensors that are there already: a policy's, between two steps of training.
    Given(BTreeMap<String, Tensor>),
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    data_start: u64,
}

impl Weights {
    /// Opens a directory's files; tensors will be given as `dtype` on `device`.
    ///
    /// # Errors
    /// [`LmError::File`] when there are no files, one that the index names is missing, or one is not whole.
    pub fn open(dir: &Path, dtype: DType, device: &Device) -> Result<Self, LmError> {
        let files: Vec<Shard> = shard_paths(dir)?.into_iter().map(Shard::open).collect::<Result<_, _>>()?;
        let names = files.iter().enumerate().flat_map(|(index, shard)| {
            shard.metadata.tensors().into_keys().map(move |name| (name.clone(), index)).collect::<Vec<_>>()
        });
        let places = names.collect();
        let source = Source::Files { dir: dir.to_owned(), places, files };
        Ok(Self { source, device: device.clone(), dtype, hashes: Mutex::default() })
    }

    /// Random weights of whatever shape `config` asks for, all numbers of bfloat16. With a seed they are the same on every
    /// device.
    pub fn random(config: &ModelConfig, seed: Option<u64>, dtype: DType, device: &Device) -> Self {
        // Gemma stores its norms less 1.
        let norms = if config.family == Family::Gemma2 { 0.0 } else { 1.0 };
        Self { source: Source::Random { seed, norms }, device: device.clone(), dtype, hashes: Mutex::default() }
    }

    /// Weights of whatever shape is asked for, before any learning: matrices of deviation 0.02, norms 1, biases 0. A pure
    /// function of `seed`.
    pub fn fresh(seed: u64, dtype: DType, device: &Device) -> Self {
        Self { source: Source::Fresh { seed }, device: device.clone(), dtype, hashes: Mutex::default() }
    }

    /// Takes tensors by their names; they keep their type.
    pub fn given(tensors: BTreeMap<String, Tensor>, device: &Device) -> Self {
        let dtype = tensors.values().next().map_or(DType::F32, Tensor::dtype);
        Self { source: Source::Given(tensors), device: device.clone(), dtype, hashes: Mutex::default() }
    }

    /// The type that tensors are given as.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the tensors go.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        match &self.source {
            Source::Files { places, .. } => places.contains_key(name),
            Source::Random { .. } | Source::Fresh { .. } => name.starts_with("model."),
            Source::Given(tensors) => tensors.contains_key(name),
        }
    }

    /// A tensor of exactly this shape.
    ///
    /// # Errors
    /// [`LmError::Weight`] when it is missing or has another shape or a type that is no float.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor, LmError> {
        let (dir, files, places) = match &self.source {
            Source::Files { dir, files, places } => (dir, files, places),
            Source::Random { seed, norms } => return self.made_up(name, shape, *seed, *norms),
            Source::Fresh { seed } => return self.untaught(name, shape, *seed),
            Source::Given(tensors) => return given(tensors, name, shape),
        };
        let Some(shard) = places.get(name).and_then(|index| files.get(*index)) else {
            let problem = format!("is missing; it should have the shape {shape:?}");
            return Err(LmError::Weight { path: dir.clone(), name: name.to_owned(), problem });
        };
        let (tensor, hash) = shard.read(name, shape, self.dtype, &self.device)?;
        locks::lock(&self.hashes).insert(name.to_owned(), hash);
        Ok(tensor)
    }

    /// Norms near their middle, biases near zero, and matrices that keep the size of what they are multiplied with.
    fn made_up(&self, name: &str, shape: &[usize], seed: Option<u64>, norms: f32) -> Result<Tensor, LmError> {
        let width = shape.last().copied().unwrap_or(1);
        let (mean, deviation) = match shape {
            [_] if name.ends_with("bias") => (0.0, 0.1),
            [_] => (norms, 0.1),
            _ => (0.0, (width as f32).powf(-0.5)),
        };
        let tensor = match seed {
            None => Tensor::randn(mean, deviation, shape, &self.device)?,
            Some(seed) => seeded(seed, name, shape, (mean, deviation))?,
        };
        Ok(tensor.to_dtype(DType::BF16)?.to_dtype(self.dtype)?.to_device(&self.device)?)
    }

    fn untaught(&self, name: &str, shape: &[usize], seed: u64) -> Result<Tensor, LmError> {
        let tensor = match shape {
            [_] if name.ends_with("bias") => Tensor::zeros(shape, DType::F32, &Device::Cpu)?,
            [_] => Tensor::ones(shape, DType::F32, &Device::Cpu)?,
            _ => seeded(seed, name, shape, (0.0, 0.02))?,
        };
        Ok(tensor.to_dtype(self.dtype)?.to_device(&self.device)?)
    }

    /// Several tensors of the same width, one under the other: `[sum of rows, width]`, or `[sum of rows]` without width.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn stack(&self, parts: &[(String, usize)], width: Option<usize>) -> Result<Tensor, LmError> {
        let part = |(name, rows): &(String, usize)| match width {
            Some(width) => self.get(name, &[*rows, width]),
            None => self.get(name, &[*rows]),
        };
        let parts: Vec<Tensor> = parts.iter().map(part).collect::<Result<_, _>>()?;
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// The hash of every tensor that was taken: names, types, shapes and bytes.
    pub fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for (name, hash) in locks::lock(&self.hashes).iter() {
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes()).update(hash.as_bytes());
        }
        hasher.finalize()
    }
}

/// Numbers from -1 to 1, all as likely, each then `scaled`: a pure function of what was hashed.
pub(super) fn uniform(hasher: &blake3::Hasher, count: usize, scaled: impl Fn(f64) -> f32) -> Vec<f32> {
    let mut bytes = vec![0; 4 * count];
    hasher.finalize_xof().fill(&mut bytes);
    let number = |bytes: &[u8]| {
        let word = bytes.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        scaled(f64::from(word) / f64::from(u32::MAX) * 2.0 - 1.0)
    };
    bytes.chunks_exact(4).map(number).collect()
}

/// Uniform numbers of a mean and a deviation (their shape does not matter here), a pure function of seed and name.
fn seeded(seed: u64, name: &str, shape: &[usize], (mean, deviation): (f32, f32)) -> Result<Tensor, LmError> {
    let start = blake3::hash(format!("{seed} {name}").as_bytes());
    let scaled = |number: f64| mean + deviation * 3f32.sqrt() * number as f32;
    let values = uniform(&blake3::Hasher::new_keyed(start.as_bytes()), shape.iter().product(), scaled);
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

fn given(tensors: &BTreeMap<String, Tensor>, name: &str, shape: &[usize]) -> Result<Tensor, LmError> {
    let wrong = |problem: String| LmError::Weight { path: PathBuf::new(), name: name.to_owned(), problem };
    match tensors.get(name) {
        Some(tensor) if tensor.dims() == shape => Ok(tensor.clone()),
        Some(tensor) => Err(wrong(format!("has the shape {:?}; {shape:?} was asked for", tensor.dims()))),
        None => Err(wrong(format!("is missing; it should have the shape {shape:?}"))),
    }
}

/// The files that hold the tensors: those of the index, or the only one.
fn shard_paths(dir: &Path) -> Result<Vec<PathBuf>, LmError> {
    let index = dir.join("model.safetensors.index.json");
    let single = dir.join("model.safetensors");
    if !index.exists() {
        return if single.exists() { Ok(vec![single]) } else { only_safetensors(dir) };
    }
    let names = index_files(&index).map_err(|problem| LmError::file(&index, problem))?;
    match names.iter().find(|name| name.contains(['/', '\\'])) {
        Some(name) => {
            Err(LmError::file(&index, format!("`weight_map` names {name:?}, which is not a file of the directory")))
        }
        None => Ok(names.into_iter().map(|name| dir.join(name)).collect()),
    }
}

/// The files that an index of shards names, each once.
pub(super) fn index_files(index: &Path) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(index).map_err(|error| error.to_string())?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| format!("it is no JSON: {error}"))?;
    let map = value.get("weight_map").and_then(serde_json::Value::as_object);
    let files = map.ok_or("it has no `weight_map` object")?.values();
    let names: BTreeSet<&str> = files.filter_map(serde_json::Value::as_str).collect();
    Ok(names.into_iter().map(str::to_owned).collect())
}

fn only_safetensors(dir: &Path) -> Result<Vec<PathBuf>, LmError> {
    let entries = std::fs::read_dir(dir).map_err(|error| LmError::file(dir, error))?;
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    found.sort();
    if found.is_empty() { Err(LmError::file(dir, "there is no *.safetensors file in it")) } else { Ok(found) }
}

impl Shard {
    fn open(path: PathBuf) -> Result<Self, LmError> {
        let wrong = |detail: String| LmError::file(&path, detail);
        let file = File::open(&path).map_err(|error| LmError::file(&path, error))?;
        let size = file.metadata().map_err(|error| LmError::file(&path, error))?.len();
        let mut length = [0; 8];
        file.read_exact_at(&mut length, 0).map_err(|e| wrong(format!("it is cut off: {e}")))?;
        let header = u64::from_le_bytes(length);
        if header > MAX_HEADER || header + 8 > size {
            return Err(wrong(format!(
                "its header of {header} bytes does not fit; it is cut off or no safetensors file"
            )));
        }
        let mut bytes = vec![0; usize::try_from(header).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 8).map_err(|error| LmError::file(&path, error))?;
        let metadata: Metadata =
            serde_json::from_slice(&bytes).map_err(|e| wrong(format!("its header is broken: {e}")))?;
        let data_start = header + 8;
        let wanted = metadata.data_len() as u64 + data_start;
        if wanted != size {
            return Err(wrong(format!(
                "it has {size} bytes where its header speaks of {wanted}; it was not copied whole"
            )));
        }
        Ok(Self { path, file, metadata, data_start })
    }

    fn read(
        &self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<(Tensor, blake3::Hash), LmError> {
        let wrong = |problem: String| LmError::Weight { path: self.path.clone(), name: name.to_owned(), problem };
        let info: &TensorInfo = self.metadata.info(name).ok_or_else(|| wrong("is missing".to_owned()))?;
        if info.shape != shape {
            return Err(wrong(format!("has the shape {:?}; config.json asks for {shape:?}", info.shape)));
        }
        let (format, stored) = match info.dtype {
            safetensors::Dtype::F32 => ("F32", DType::F32),
            safetensors::Dtype::F16 => ("F16", DType::F16),
            safetensors::Dtype::BF16 => ("BF16", DType::BF16),
            safetensors::Dtype::F64 => ("F64", DType::F64),
            other => return Err(wrong(format!("has the type {other:?}; known are F16, BF16, F32 and F64"))),
        };
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end.saturating_sub(start)];
        self.file.read_exact_at(&mut bytes, self.data_start + start as u64).map_err(|e| wrong(e.to_string()))?;
        let hash = blake3::Hasher::new().update(format!("{format} {shape:?} ").as_bytes()).update(&bytes).finalize();
        let tensor = Tensor::from_raw_buffer(&bytes, stored, shape, &Device::Cpu)?;
        Ok((tensor.to_dtype(dtype)?.to_device(device)?, hash))
    }
}
