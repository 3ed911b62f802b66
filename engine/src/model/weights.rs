// SPDX-License-Identifier: MPL-2.0
//! `model.safetensors`, mapped into memory and read in place.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata};

use crate::{Error, Result};

/// The weights of a model, under the names of NeMo's state dict. Pages of the file come in when they are first touched.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    map: Arc<Mmap>,
    metadata: Metadata,
    /// Offset of the first tensor's data in the file.
    data: usize,
}

/// A tensor that lies in the mapped file.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// Sizes, outermost first.
    pub shape: &'a [usize],
    /// Elements in row-major order.
    pub data: TensorData<'a>,
}

/// Elements of a [`Tensor`] in the type they have in the file.
#[derive(Clone, Copy, Debug)]
pub enum TensorData<'a> {
    /// IEEE half precision, [`half::f16`].
    F16(&'a [f16]),
    /// IEEE single precision.
    F32(&'a [f32]),
}

impl Weights {
    /// Maps `path` and checks its header; the tensors must fill the file exactly.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if cfg!(target_endian = "big") {
            return Err(Error::Unsupported(
                "weights are little endian and this machine is big endian".into(),
            ));
        }
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let map = Arc::new(map(&file).map_err(|e| Error::io(path, e))?);
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| {
            Error::model(
                path,
                format!("truncated or not a safetensors file: {e}; convert the checkpoint again"),
            )
        })?;
        let data = size_of::<u64>() + header;
        Ok(Self { path: path.to_owned(), map, metadata, data })
    }

    /// Whether there is a tensor of this name.
    #[cfg(test)]
    pub(crate) fn has(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    /// Bytes of all tensors together.
    pub fn bytes(&self) -> usize {
        self.metadata.data_len()
    }

    /// As [`Weights::tensor`], for whoever keeps the tensor.
    pub(crate) fn stored(&self, name: &str, shape: &[usize]) -> Result<Stored> {
        let half = matches!(self.tensor(name, shape)?.data, TensorData::F16(_));
        let offsets = self.metadata.info(name).map_or((0, 0), |info| info.data_offsets);
        Ok(Stored { map: self.map.clone(), bytes: self.data + offsets.0..self.data + offsets.1, half })
    }

    /// The tensor `name`, which must have this shape, an `F16` or `F32` type and an aligned place in the file.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor<'_>> {
        let fail = |reason| Error::model(&self.path, reason);
        let info = self.metadata.info(name).ok_or_else(|| fail(format!("tensor {name} is missing")))?;
        if info.shape != shape {
            let reason = format!("tensor {name}: expected shape {shape:?}, found {:?}", info.shape);
            return Err(fail(reason));
        }
        let (start, end) = info.data_offsets;
        let bytes = &self.map[self.data + start..self.data + end];
        let misaligned = |_| fail(format!("tensor {name} is misaligned: convert the checkpoint again"));
        let data = match info.dtype {
            Dtype::F16 => TensorData::F16(bytemuck::try_cast_slice(bytes).map_err(misaligned)?),
            Dtype::F32 => TensorData::F32(bytemuck::try_cast_slice(bytes).map_err(misaligned)?),
            other => {
                return Err(fail(format!("tensor {name}: expected type F16 or F32, found {other:?}")));
            }
        };
        Ok(Tensor { shape: &info.shape, data })
    }
}

/// A tensor that keeps the file mapped for as long as it lives.
#[derive(Clone, Debug)]
pub struct Stored {
    map: Arc<Mmap>,
    bytes: Range<usize>,
    half: bool,
}

impl Stored {
    /// The elements in row-major order.
    pub fn data(&self) -> TensorData<'_> {
        let bytes = &self.map[self.bytes.clone()];
        // `Weights::tensor` refused what is misaligned before this was made.
        if self.half {
            TensorData::F16(bytemuck::cast_slice(bytes))
        } else {
            TensorData::F32(bytemuck::cast_slice(bytes))
        }
    }
}

impl Tensor<'_> {
    /// A copy of the elements in single precision.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.data {
            TensorData::F16(data) => data.to_f32_vec(),
            TensorData::F32(data) => data.to_vec(),
        }
    }
}

#[allow(unsafe_code)]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is private and read only, and conversion replaces a model's files by renaming, never in place, so
    // nothing of this crate writes to or shortens a mapped file; whoever owns the model directory keeps to that.
    unsafe { Mmap::map(file) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    use safetensors::tensor::{TensorView, serialize};

    fn file(tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> (tempfile::TempDir, PathBuf) {
        let views: HashMap<_, _> = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| {
                (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
            })
            .collect();
        write(&serialize(views, None).unwrap())
    }

    fn write(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn halves(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()
    }

    #[test]
    fn both_types_are_read_in_place() {
        let (_dir, path) = file(&[
            ("a", Dtype::F32, vec![3], floats(&[1.0, -2.5, 3e-7])),
            ("b", Dtype::F16, vec![2, 2], halves(&[0.5, -65504.0, 2.0, 0.0])),
        ]);
        let weights = Weights::open(&path).unwrap();
        assert!(weights.has("a") && !weights.has("c"));
        assert_eq!(weights.bytes(), 20);
        let a = weights.tensor("a", &[3]).unwrap();
        assert!(matches!(a.data, TensorData::F32(_)));
        assert_eq!(a.to_f32(), [1.0, -2.5, 3e-7]);
        let b = weights.tensor("b", &[2, 2]).unwrap();
        assert!(matches!(b.data, TensorData::F16(_)));
        assert_eq!((b.shape, b.to_f32()), (&[2, 2][..], vec![0.5, -65504.0, 2.0, 0.0]));
    }

    #[test]
    fn a_missing_a_wrong_and_an_integer_tensor_are_named() {
        let (_dir, path) =
            file(&[("a", Dtype::F32, vec![3], floats(&[0.0; 3])), ("n", Dtype::I64, vec![1], vec![0; 8])]);
        let weights = Weights::open(&path).unwrap();
        let error = |name, shape: &[usize]| weights.tensor(name, shape).unwrap_err().to_string();
        assert!(error("x.y", &[1]).contains("tensor x.y is missing"));
        assert!(error("a", &[1, 3]).contains("tensor a: expected shape [1, 3], found [3]"));
        assert!(error("n", &[1]).contains("found I64"));
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let (_dir, path) = file(&[("a", Dtype::F32, vec![3], floats(&[0.0; 3]))]);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            let (_dir, path) = write(&whole[..length]);
            let error = Weights::open(&path).unwrap_err().to_string();
            assert!(error.contains("model.safetensors"), "{length}: {error}");
        }
        let (_dir, path) = write(&[&u64::MAX.to_le_bytes()[..], b"{}"].concat());
        assert!(Weights::open(&path).unwrap_err().to_string().contains("truncated"));
    }

    #[test]
    fn a_misaligned_tensor_is_refused() {
        let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} "#;
        let (_dir, path) = write(&[&(header.len() as u64).to_le_bytes()[..], header, &[0; 4]].concat());
        let weights = Weights::open(&path).unwrap();
        assert!(weights.tensor("a", &[1]).unwrap_err().to_string().contains("misaligned"));
    }
}
