//! One file is one model: a safetensors file whose metadata holds the configuration.
//!
//! Reading maps the file and validates all of it before anything computes: the header, the configuration, and that
//! the tensors are exactly those of the manifest, with the right shapes and a dtype we read. Writing goes to a
//! temporary file beside the target, is flushed to the disk and renamed, so that a reader sees the old file or the
//! new one and never a half.
//!
//! A mapped file must not be truncated while a model uses it: the operating system answers that with a signal, not
//! with an error. Replacing it by rename, as we do, is safe.

mod storage;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::Metadata;
use safetensors::{Dtype as FileDtype, SafeTensorError, SafeTensors};

use crate::config::ModelConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{ModelTensors, TensorSpec};
use crate::pages::HUGE_PAGE;
use crate::quantize::{self, Quantized};
use storage::Storage;

/// The metadata entry that holds the configuration, as TOML text.
pub const CONFIG_KEY: &str = "grug.config";
/// Tensor data starts at a multiple of this many bytes in files that we write.
const DATA_ALIGNMENT: usize = 64;

/// How the numbers of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// 16-bit float, 5 exponent bits.
    F16,
    /// 16-bit float, 8 exponent bits.
    BF16,
}

impl Dtype {
    /// Bytes of one number.
    pub const fn size(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
        }
    }

    fn from_file(dtype: FileDtype) -> Option<Dtype> {
        match dtype {
            FileDtype::F32 => Some(Dtype::F32),
            FileDtype::F16 => Some(Dtype::F16),
            FileDtype::BF16 => Some(Dtype::BF16),
            _ => None,
        }
    }

    /// The word for it in a safetensors header.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
        }
    }
}

/// One tensor of an open checkpoint: little-endian numbers, row-major.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// How its numbers are stored.
    pub dtype: Dtype,
    /// Its shape, outermost first.
    pub shape: &'a [usize],
    /// Its bytes, `dtype.size()` for each number.
    pub bytes: &'a [u8],
}

impl TensorView<'_> {
    /// Its numbers, converted to f32.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            Dtype::F32 => self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::F16 => {
                self.bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
            }
            Dtype::BF16 => {
                self.bytes.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect()
            }
        }
    }
}

/// A matrix as the file stores it. Packed bytes and scales are laid out as [`crate::quantize`] says.
#[derive(Debug, Clone, Copy)]
pub enum StoredMatrix<'a> {
    /// Floats, row-major.
    Float(TensorView<'a>),
    /// int8 with f32 scales.
    Int8 {
        /// The weights, one byte each.
        packed: &'a [u8],
        /// f32, little-endian.
        scales: &'a [u8],
    },
    /// 4-bit codes with f16 scales.
    Int4 {
        /// The weights, two a byte.
        packed: &'a [u8],
        /// f16, little-endian.
        scales: &'a [u8],
    },
}

impl StoredMatrix<'_> {
    /// The word for how its numbers are stored.
    pub const fn kind_name(&self) -> &'static str {
        match self {
            StoredMatrix::Float(view) => view.dtype.name(),
            StoredMatrix::Int8 { .. } => "INT8",
            StoredMatrix::Int4 { .. } => "INT4",
        }
    }
}

/// A validated model file.
pub struct Checkpoint {
    storage: Storage,
    data_start: usize,
    header: Metadata,
    metadata: BTreeMap<String, String>,
    config: ModelConfig,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The sentence for what the safetensors reader found wrong.
fn header_error(error: SafeTensorError) -> Error {
    let text = match error {
        SafeTensorError::HeaderTooSmall => "is shorter than a safetensors header".to_string(),
        SafeTensorError::InvalidHeaderLength | SafeTensorError::HeaderTooLarge => {
            "is truncated or no safetensors file: its header would be longer than the file".to_string()
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            "is truncated or has bytes left over: its size is not what the header says".to_string()
        }
        other => format!("has a bad safetensors header: {other}"),
    };
    Error::format(text)
}

impl Checkpoint {
    /// Maps a model file and validates it.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        Checkpoint::parse(Storage::map(path)?).map_err(|e| e.in_file(path))
    }

    /// Reads a model file into memory and validates it: for file systems where mapping is unwelcome.
    pub fn open_copied(path: &Path) -> Result<Checkpoint> {
        Checkpoint::read(path, |_| Ok(()))
    }

    /// The same; `step` hears how far the reading is, and an error of it ends that.
    pub(crate) fn read(path: &Path, step: impl FnMut(f32) -> Result<()>) -> Result<Checkpoint> {
        Checkpoint::parse(Storage::read(path, step)?).map_err(|e| e.in_file(path))
    }

    /// Validates a model file that is already in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Checkpoint> {
        Checkpoint::parse(Storage::owned(bytes)).map_err(|e| e.at("model buffer"))
    }

    /// Validates a model file that lives as long as the program, without copying it.
    pub fn from_static(bytes: &'static [u8]) -> Result<Checkpoint> {
        Checkpoint::parse(Storage::borrowed(bytes)).map_err(|e| e.at("model buffer"))
    }

    fn parse(storage: Storage) -> Result<Checkpoint> {
        if storage.bytes().starts_with(b"PK\x03\x04") {
            return Err(Error::format(
                "is a zip archive, not a model: a published .pth checkpoint becomes a model by `grug import`",
            ));
        }
        let (header_len, header) = SafeTensors::read_metadata(storage.bytes()).map_err(header_error)?;
        let metadata: BTreeMap<String, String> =
            header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        let config = metadata.get(CONFIG_KEY).ok_or_else(|| {
            Error::format(format!(
                "has no \"{CONFIG_KEY}\" in its metadata: not a GrugV3 model (published .pth files become one by `grug import`)"
            ))
        })?;
        let config = ModelConfig::from_toml(config).map_err(|e| Error::format(e.message()))?;
        let checkpoint = Checkpoint { storage, data_start: 8 + header_len, header, metadata, config };
        checkpoint.check_tensors()?;
        Ok(checkpoint)
    }

    /// The tensors must be exactly those of the manifest.
    fn check_tensors(&self) -> Result<()> {
        let specs = ModelTensors::specs(&self.config).into_leaves();
        let mut known = std::collections::HashSet::new();
        for spec in &specs {
            known.insert(spec.name.clone());
            match self.matrix(spec)? {
                StoredMatrix::Float(_) => {}
                StoredMatrix::Int8 { .. } | StoredMatrix::Int4 { .. } => {
                    known.insert(quantize::scales_name(&spec.name));
                }
            }
        }
        match self.header.offset_keys().into_iter().find(|name| !known.contains(name.as_str())) {
            Some(extra) => {
                Err(Error::format(format!("has a tensor {extra:?} that its configuration does not call for")))
            }
            None => Ok(()),
        }
    }

    /// What the model computes.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The file's metadata, the configuration included.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        self.storage.bytes()
    }

    /// Where its bytes are, in words.
    pub(crate) fn place(&self) -> &'static str {
        self.storage.place()
    }

    /// Keeps all of it in memory, as `mlock` does; `step` hears how far that is, and an error of it ends it.
    pub(crate) fn lock(&mut self, step: impl FnMut(f32) -> Result<()>) -> Result<()> {
        self.storage.lock(step)
    }

    /// Whether every tensor of numbers of 4 bytes can be used where it lies.
    pub(crate) fn is_aligned(&self) -> bool {
        (self.bytes().as_ptr() as usize + self.data_start).is_multiple_of(4)
    }

    /// Bytes of all tensors together.
    pub fn weight_bytes(&self) -> usize {
        self.bytes().len() - self.data_start
    }

    /// A matrix of the manifest, as it is stored: in floats, or quantized (see [`crate::quantize`]).
    pub fn matrix(&self, spec: &TensorSpec) -> Result<StoredMatrix<'_>> {
        let Some(kind) = self.quantized_kind(spec)? else {
            return Ok(StoredMatrix::Float(self.tensor(spec)?));
        };
        let [packed, scales] = quantize::layout(kind, &spec.name, &spec.shape).map(|part| {
            let info = self
                .header
                .info(&part.name)
                .ok_or_else(|| Error::format(format!("tensor {:?} is missing", part.name)))?;
            if info.shape != part.shape || info.dtype != part.dtype {
                return Err(Error::format(format!(
                    "tensor {:?} is {:?} {:?}, but {} calls for {:?} {:?}",
                    part.name,
                    info.dtype,
                    info.shape,
                    kind.name(),
                    part.dtype,
                    part.shape
                )));
            }
            let (start, end) = info.data_offsets;
            Ok(&self.bytes()[self.data_start + start..self.data_start + end])
        });
        Ok(match kind {
            Quantized::Int8 => StoredMatrix::Int8 { packed: packed?, scales: scales? },
            Quantized::Int4 => StoredMatrix::Int4 { packed: packed?, scales: scales? },
        })
    }

    /// How a tensor is quantized; `None` where it is stored in floats.
    fn quantized_kind(&self, spec: &TensorSpec) -> Result<Option<Quantized>> {
        let Some(layout) = self.metadata.get(quantize::KEY) else { return Ok(None) };
        if layout != quantize::LAYOUT {
            return Err(Error::new(
                ErrorKind::Version,
                format!(
                    "metadata {:?} is {layout:?}; this library reads {:?}",
                    quantize::KEY,
                    quantize::LAYOUT
                ),
            ));
        }
        Ok(match self.header.info(&spec.name).map(|info| info.dtype) {
            Some(FileDtype::I8) if quantize::may_be_quantized(spec.role) => Some(Quantized::Int8),
            Some(FileDtype::U8) if quantize::may_be_quantized(spec.role) => Some(Quantized::Int4),
            _ => None,
        })
    }

    /// Columns of the widest quantized matrix; 0 where there is none.
    pub(crate) fn quantized_cols(&self) -> usize {
        let specs = ModelTensors::specs(&self.config).into_leaves();
        let quantized = specs.iter().filter(|spec| matches!(self.quantized_kind(spec), Ok(Some(_))));
        quantized.map(|spec| spec.len() / spec.shape[0]).max().unwrap_or(0)
    }

    /// One tensor of the manifest, stored in floats.
    pub fn tensor(&self, spec: &TensorSpec) -> Result<TensorView<'_>> {
        let name = &spec.name;
        let info =
            self.header.info(name).ok_or_else(|| Error::format(format!("tensor {name:?} is missing")))?;
        if info.shape != spec.shape {
            return Err(Error::format(format!(
                "tensor {name:?} has shape {:?}, but the configuration calls for {:?}",
                info.shape, spec.shape
            )));
        }
        let dtype = Dtype::from_file(info.dtype).ok_or_else(|| {
            Error::format(format!("tensor {name:?} has dtype {:?}; F32, F16 and BF16 are read", info.dtype))
        })?;
        let (start, end) = info.data_offsets;
        Ok(TensorView {
            dtype,
            shape: &info.shape,
            bytes: &self.bytes()[self.data_start + start..self.data_start + end],
        })
    }
}

/// One tensor to be written.
pub struct TensorToWrite<'a> {
    /// Its name.
    pub name: &'a str,
    /// The word for its dtype in a safetensors header, such as `F32`.
    pub dtype: &'a str,
    /// Its shape, outermost first.
    pub shape: &'a [usize],
    /// Its bytes, little-endian and row-major.
    pub bytes: &'a [u8],
}

/// The bytes of f32 numbers as a safetensors file holds them.
pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Writes a model: its configuration goes into the metadata beside `extra`. The tensors must be those of the manifest;
/// that is checked before the target is touched.
pub fn save_model(
    path: &Path,
    config: &ModelConfig,
    extra: &BTreeMap<String, String>,
    tensors: &[TensorToWrite<'_>],
) -> Result<()> {
    write_safetensors(path, &model_metadata(config, extra, tensors)?, tensors)
}

/// The bytes of the file that [`save_model`] writes, for [`Checkpoint::from_bytes`].
pub fn model_bytes(
    config: &ModelConfig,
    extra: &BTreeMap<String, String>,
    tensors: &[TensorToWrite<'_>],
) -> Result<Vec<u8>> {
    let mut bytes = safetensors_start(&model_metadata(config, extra, tensors)?, tensors);
    bytes.reserve_exact(tensors.iter().map(|tensor| tensor.bytes.len()).sum());
    tensors.iter().for_each(|tensor| bytes.extend_from_slice(tensor.bytes));
    Ok(bytes)
}

/// A model file's metadata, where these are the tensors that its configuration calls for.
fn model_metadata(
    config: &ModelConfig,
    extra: &BTreeMap<String, String>,
    tensors: &[TensorToWrite<'_>],
) -> Result<BTreeMap<String, String>> {
    config.validate()?;
    let mut metadata = extra.clone();
    metadata.insert("format".into(), "pt".into());
    metadata.insert(CONFIG_KEY.into(), config.to_toml());
    let written: BTreeMap<&str, &TensorToWrite<'_>> = tensors.iter().map(|t| (t.name, t)).collect();
    let specs = ModelTensors::specs(config).into_leaves();
    for spec in &specs {
        match written.get(spec.name.as_str()) {
            Some(tensor) if tensor.shape == spec.shape => {}
            Some(tensor) => {
                return Err(Error::format(format!(
                    "tensor {:?} has shape {:?}, but the configuration calls for {:?}",
                    spec.name, tensor.shape, spec.shape
                )));
            }
            None => return Err(Error::format(format!("tensor {:?} is missing", spec.name))),
        }
    }
    if tensors.len() != specs.len() {
        let known: std::collections::HashSet<&str> = specs.iter().map(|s| s.name.as_str()).collect();
        let extra = tensors.iter().find(|t| !known.contains(t.name)).map_or("", |t| t.name);
        return Err(Error::format(format!("tensor {extra:?} is not called for or given twice")));
    }
    Ok(metadata)
}

/// Writes a file a huge page at a time, so that it may lie in the system's cache, and be mapped from there, in such
/// pages.
pub struct PageWriter<'a> {
    file: &'a File,
    page: Vec<u8>,
}

impl Write for PageWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = bytes.len().min(HUGE_PAGE - self.page.len());
        self.page.extend_from_slice(&bytes[..taken]);
        if self.page.len() == HUGE_PAGE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.write_all(&self.page)?;
        self.page.clear();
        Ok(())
    }
}

/// Writes a safetensors file: the same tensors and metadata give the same bytes. Atomic.
pub fn write_safetensors(
    path: &Path,
    metadata: &BTreeMap<String, String>,
    tensors: &[TensorToWrite<'_>],
) -> Result<()> {
    let start = safetensors_start(metadata, tensors);
    write_atomically(path, |file| {
        file.write_all(&start)?;
        tensors.iter().try_for_each(|tensor| file.write_all(tensor.bytes))
    })
}

/// What a safetensors file has before the bytes of its tensors.
fn safetensors_start(metadata: &BTreeMap<String, String>, tensors: &[TensorToWrite<'_>]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), serde_json::json!(metadata));
    let mut end = 0;
    for tensor in tensors {
        let start = end;
        end += tensor.bytes.len();
        header.insert(
            tensor.name.into(),
            serde_json::json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end] }),
        );
    }
    let header = serde_json::to_vec(&header).expect("a header is numbers and text");
    let len = (8 + header.len()).next_multiple_of(DATA_ALIGNMENT);
    let mut start = ((len - 8) as u64).to_le_bytes().to_vec();
    start.extend(header);
    start.resize(len, b' ');
    start
}

/// Writes a file so that a reader, or a crash at any moment, sees the old content or the new, never a part.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut PageWriter<'_>) -> std::io::Result<()>,
) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let failed = |e| Error::io("writing", path, e);
    // Renaming would put a file where a device or a pipe was: for root, also where /dev/null was.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(Error::new(ErrorKind::Io, format!("writing {}: not a file", path.display())));
    }
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        // A temporary file is private by default; a model is an ordinary file.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let temporary = builder.prefix(".grug-").suffix(".tmp").tempfile_in(&folder).map_err(failed)?;
    {
        let mut buffered = PageWriter { file: temporary.as_file(), page: Vec::with_capacity(HUGE_PAGE) };
        write(&mut buffered).and_then(|()| buffered.flush()).map_err(failed)?;
    }
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(path).map_err(|e| failed(e.error))?;
    // The rename itself must reach the disk too; not every file system lets a folder be synced.
    if let Ok(folder) = File::open(&folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ModelConfig {
        ModelConfig::from_toml(
            "context_bytes = 8\nembedding_dim = 4\nd_model = 4\nn_heads = 2\nn_layers = 1\npositions = \"rotary\"",
        )
        .unwrap()
    }

    fn save(path: &Path, spoil: impl FnOnce(&mut Vec<(String, String, Vec<usize>, Vec<u8>)>)) -> Result<()> {
        let mut tensors: Vec<_> = ModelTensors::specs(&config())
            .into_leaves()
            .into_iter()
            .enumerate()
            .map(|(i, spec)| {
                let values = crate::init::initial_values(&spec, i, 1);
                (spec.name, "F32".to_string(), spec.shape, f32_bytes(&values))
            })
            .collect();
        spoil(&mut tensors);
        let mut metadata = BTreeMap::new();
        metadata.insert(CONFIG_KEY.to_string(), config().to_toml());
        let views: Vec<_> = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| TensorToWrite { name, dtype, shape, bytes })
            .collect();
        write_safetensors(path, &metadata, &views)
    }

    #[test]
    fn a_model_survives_the_file_and_its_data_is_aligned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        save(&path, |_| {}).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.config(), &config());
        assert_eq!(checkpoint.data_start % DATA_ALIGNMENT, 0);
        let spec = ModelTensors::specs(&config()).embedding;
        assert_eq!(checkpoint.tensor(&spec).unwrap().to_f32(), crate::init::initial_values(&spec, 0, 1));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        type Spoil = fn(&mut Vec<(String, String, Vec<usize>, Vec<u8>)>);
        let cases: [(&str, Spoil); 4] = [
            ("embedding.weight", |t| drop(t.remove(0))),
            ("surplus", |t| t.push(("surplus".into(), "F32".into(), vec![1], vec![0; 4]))),
            ("[4, 256]", |t| t[0].2 = vec![4, 256]),
            ("I32", |t| t[0].1 = "I32".into()),
        ];
        for (expected, spoil) in cases {
            save(&path, spoil).unwrap();
            let error = Checkpoint::open(&path).unwrap_err();
            assert!(error.message().contains(expected), "{expected}: {error}");
            assert!(error.message().contains("m.safetensors"), "{error}");
        }
        save(&path, |_| {}).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in [0, 7, 8, 100, whole.len() - 1] {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(Checkpoint::open(&path).is_err(), "{len} bytes");
        }
        std::fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
        assert!(Checkpoint::open(&path).is_err());
        assert!(Checkpoint::open(&folder.path().join("absent")).unwrap_err().message().contains("absent"));
    }
}
