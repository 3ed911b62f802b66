// SPDX-License-Identifier: MPL-2.0
//! A PyTorch checkpoint: a zip archive of one pickled dictionary and the storages that its tensors view.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{self, ElementType, StoredTensor};
use crate::convert::source::{Listed, TensorSource};
use crate::{Error, Result};

/// Bytes of `data.pkl` that are read at most; a model of 42 layers has 0.3 MB.
const PICKLE_LIMIT: u64 = 8 << 20;

/// An open checkpoint whose tensors are read one at a time.
pub struct Checkpoint<R> {
    zip: ZipArchive<R>,
    /// Named in errors.
    path: PathBuf,
    /// Folder of the archive that holds everything.
    folder: String,
    tensors: BTreeMap<String, StoredTensor>,
}

impl<R: Read + Seek> Checkpoint<R> {
    /// Reads the list of tensors. `path` is named in errors.
    pub fn open(reader: R, path: &Path) -> Result<Self> {
        let fail = |reason: String| Error::model(path, format!("weights: {reason}"));
        let mut zip = ZipArchive::new(reader)
            .map_err(|e| fail(format!("truncated or not the zip archive of PyTorch 1.6 and later: {e}")))?;
        let names = zip.file_names().collect::<Result<Vec<_>, _>>().map_err(|e| fail(e.to_string()))?;
        let mut folders = names.iter().filter_map(|name| name.strip_suffix("data.pkl")).map(str::to_owned);
        let (Some(folder), None) = (folders.next(), folders.next()) else {
            return Err(fail("expected one data.pkl".into()));
        };
        drop(names);
        let mut read =
            |name: &str, limit| read_entry(&mut zip, &format!("{folder}{name}"), limit).map_err(fail);
        if let Some(order) = read("byteorder", 16)?
            && order != b"little"
        {
            return Err(fail("written on a big endian machine".into()));
        }
        let pickled = read("data.pkl", PICKLE_LIMIT)?.unwrap_or_default();
        let mut tensors = BTreeMap::new();
        for (name, tensor) in pickle::read(&pickled).map_err(fail)? {
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(fail(format!("tensor {name:?} appears twice")));
            }
        }
        Ok(Self { zip, path: path.to_owned(), folder, tensors })
    }
}

impl<R: Read + Seek> TensorSource for Checkpoint<R> {
    fn list(&self) -> BTreeMap<String, Listed> {
        let listed = |(name, tensor): (&String, &StoredTensor)| {
            (name.clone(), Listed { name: name.clone(), shape: tensor.shape.clone() })
        };
        self.tensors.iter().map(listed).collect()
    }

    fn read(&mut self, name: &str) -> Result<Vec<f32>> {
        let path = &self.path;
        let fail = |reason: String| Error::model(path, format!("tensor {name}: {reason}"));
        let tensor = self.tensors.get(name).ok_or_else(|| fail("missing".into()))?;
        let bytes = read_extent(&mut self.zip, &self.folder, tensor).map_err(fail)?;
        let values = decode(&bytes, tensor.storage.element)
            .ok_or_else(|| fail("holds integers where weights are expected".into()))?;
        Ok(if tensor.is_contiguous() { values } else { gather(&values, &tensor.shape, &tensor.strides) })
    }
}

/// The whole of a small entry; `None` where there is none.
fn read_entry<R: Read + Seek>(
    zip: &mut ZipArchive<R>,
    name: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, String> {
    let Some(index) = zip.index_for_name(name) else {
        return Ok(None);
    };
    let mut entry = zip.by_index(index).map_err(|e| format!("{name}: {e}"))?;
    let mut bytes = Vec::new();
    entry.by_ref().take(limit + 1).read_to_end(&mut bytes).map_err(|e| format!("{name}: {e}"))?;
    if bytes.len() as u64 > limit {
        return Err(format!("{name}: more than {limit} bytes"));
    }
    Ok(Some(bytes))
}

/// The bytes between a tensor's first and last element.
fn read_extent<R: Read + Seek>(
    zip: &mut ZipArchive<R>,
    folder: &str,
    tensor: &StoredTensor,
) -> Result<Vec<u8>, String> {
    let storage = &tensor.storage;
    let size = storage.element.size();
    let name = format!("{folder}data/{}", storage.key);
    let index = zip.index_for_name(&name).ok_or_else(|| format!("its storage {name} is missing"))?;
    let mut entry = zip.by_index(index).map_err(|e| format!("{name}: {e}"))?;
    let expected = storage.elements.checked_mul(size).map(|bytes| bytes as u64);
    if expected != Some(entry.size()) {
        return Err(format!(
            "{name}: expected {} elements of {size} bytes, found {} bytes",
            storage.elements,
            entry.size()
        ));
    }
    if entry.compression() != CompressionMethod::Stored && entry.size() / 1024 > entry.compressed_size() {
        return Err(format!("{name}: claims to have been {} bytes before compression", entry.size()));
    }
    let skip = (tensor.offset * size) as u64;
    let length = tensor.span().unwrap_or(0) * size;
    let truncated = |e: io::Error| format!("{name}: {e}");
    io::copy(&mut entry.by_ref().take(skip), &mut io::sink()).map_err(truncated)?;
    let mut bytes = Vec::new();
    entry.by_ref().take(length as u64).read_to_end(&mut bytes).map_err(truncated)?;
    if bytes.len() != length {
        return Err(format!("{name}: expected {length} bytes, found {}", bytes.len()));
    }
    if skip + length as u64 == entry.size() {
        // The checksum is compared where the entry ends.
        io::copy(&mut entry, &mut io::sink()).map_err(truncated)?;
    }
    Ok(bytes)
}

/// Numbers in single precision; `None` for integers.
fn decode(bytes: &[u8], element: ElementType) -> Option<Vec<f32>> {
    fn each<const N: usize>(bytes: &[u8], convert: fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks().0.iter().map(|&chunk| convert(chunk)).collect()
    }
    match element {
        ElementType::F64 => Some(each(bytes, |b| f64::from_le_bytes(b) as f32)),
        ElementType::F32 => Some(each(bytes, f32::from_le_bytes)),
        ElementType::F16 => Some(each(bytes, |b| f16::from_le_bytes(b).to_f32())),
        ElementType::Bf16 => Some(each(bytes, |b| bf16::from_le_bytes(b).to_f32())),
        ElementType::I64 => None,
    }
}

/// Copies a strided view into row-major order.
fn gather(values: &[f32], shape: &[usize], strides: &[usize]) -> Vec<f32> {
    let elements = shape.iter().product();
    let mut index = vec![0; shape.len()];
    let mut gathered = Vec::with_capacity(elements);
    for _ in 0..elements {
        gathered.push(values[index.iter().zip(strides).map(|(i, stride)| i * stride).sum::<usize>()]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    gathered
}
