// SPDX-License-Identifier: MPL-2.0
//! The subset of pickle that `torch.save` writes for a dictionary of tensors; everything else is refused by name.
//!
//! Values live in arenas and refer to each other by index: nothing recurses, nothing is expanded, so memory stays
//! proportional to the input whatever it says.

use std::collections::HashMap;
use std::rc::Rc;

/// Element type of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// 16-bit brain float.
    Bf16,
    /// 64-bit integer.
    I64,
}

impl ElementType {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            ElementType::F64 | ElementType::I64 => 8,
            ElementType::F32 => 4,
            ElementType::F16 | ElementType::Bf16 => 2,
        }
    }
}

/// A run of elements in a file of its own, `data/KEY` in the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Type of every element.
    pub element: ElementType,
    /// Name of its file.
    pub key: Rc<str>,
    /// Number of elements.
    pub elements: usize,
}

/// A tensor: a view of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// Where the elements are.
    pub storage: Storage,
    /// First element.
    pub offset: usize,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Elements from one index to the next, for each dimension.
    pub strides: Vec<usize>,
}

impl StoredTensor {
    /// Elements of the storage that the tensor reaches over, counted from `offset`; `None` if beyond `usize`.
    pub fn span(&self) -> Option<usize> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        let steps = self.shape.iter().zip(&self.strides);
        steps
            .map(|(size, stride)| (size - 1).checked_mul(*stride))
            .try_fold(1_usize, |sum, step| sum.checked_add(step?))
    }

    /// Whether the elements lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1_usize;
        self.shape.iter().zip(&self.strides).rev().all(|(&size, &stride)| {
            let fits = size == 1 || stride == expected;
            expected = expected.saturating_mul(size);
            fits
        })
    }
}

/// Reads the tensors of a pickled dictionary, in its order.
///
/// The error is a reason: what was found where.
pub fn read(bytes: &[u8]) -> Result<Vec<(String, StoredTensor)>, String> {
    let mut machine = Machine { input: bytes, ..Machine::default() };
    let root = machine.run().map_err(|reason| {
        format!("not a dictionary of tensors: {reason} at byte {}", bytes.len() - machine.input.len())
    })?;
    machine.tensors_of(root)
}

#[derive(Clone, Debug)]
enum Value {
    None,
    Bool,
    Int(i64),
    Text(Rc<str>),
    Tuple(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

#[derive(Clone, Copy, Debug)]
enum Global {
    OrderedDict,
    RebuildTensor,
    Storage(ElementType),
}

#[derive(Default)]
struct Machine<'a> {
    input: &'a [u8],
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    tuples: Vec<Rc<[Value]>>,
    dicts: Vec<Vec<(Value, Value)>>,
    storages: Vec<Storage>,
    tensors: Vec<StoredTensor>,
}

type Step<T = ()> = Result<T, String>;

impl Machine<'_> {
    fn run(&mut self) -> Step<Value> {
        if self.bytes::<1>()? != [0x80] || self.bytes::<1>()? != [2] {
            return Err("expected pickle protocol 2".into());
        }
        loop {
            match self.bytes::<1>()?[0] {
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'N' => self.push(Value::None),
                0x88 | 0x89 => self.push(Value::Bool),
                b'J' => self.int(|m| m.bytes().map(i32::from_le_bytes).map(i64::from))?,
                b'K' => self.int(|m| m.bytes().map(u8::from_le_bytes).map(i64::from))?,
                b'M' => self.int(|m| m.bytes().map(u16::from_le_bytes).map(i64::from))?,
                0x8a => self.int(Self::long)?,
                b'X' => {
                    let length = self.length()?;
                    let text =
                        std::str::from_utf8(self.take(length)?).map_err(|_| "text that is not UTF-8")?;
                    let text = Rc::from(text);
                    self.push(Value::Text(text));
                }
                b'}' => self.new_dict(),
                b')' => self.new_tuple(0)?,
                0x85 => self.new_tuple(1)?,
                0x86 => self.new_tuple(2)?,
                0x87 => self.new_tuple(3)?,
                b't' => {
                    let count = self.since_mark()?;
                    self.new_tuple(count)?;
                }
                b'q' => {
                    let slot = self.bytes::<1>()?[0].into();
                    self.put(slot)?;
                }
                b'r' => {
                    let slot = u32::from_le_bytes(self.bytes()?);
                    self.put(slot)?;
                }
                b'h' => {
                    let slot = self.bytes::<1>()?[0].into();
                    self.get(slot)?;
                }
                b'j' => {
                    let slot = u32::from_le_bytes(self.bytes()?);
                    self.get(slot)?;
                }
                b'c' => self.global()?,
                b'Q' => self.persistent()?,
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                b's' => self.set_items(2)?,
                b'u' => {
                    let count = self.since_mark()?;
                    self.set_items(count)?;
                }
                other => return Err(format!("opcode {}", opcode_name(other))),
            }
        }
    }

    fn take(&mut self, length: usize) -> Step<&[u8]> {
        let (taken, rest) = self.input.split_at_checked(length).ok_or("the end of the data")?;
        self.input = rest;
        Ok(taken)
    }

    fn bytes<const N: usize>(&mut self) -> Step<[u8; N]> {
        let (taken, rest) = self.input.split_first_chunk().ok_or("the end of the data")?;
        self.input = rest;
        Ok(*taken)
    }

    fn length(&mut self) -> Step<usize> {
        usize::try_from(u32::from_le_bytes(self.bytes()?)).map_err(|e| e.to_string())
    }

    fn line(&mut self) -> Step<String> {
        let end = self.input.iter().take(256).position(|&b| b == b'\n').ok_or("a name without end")?;
        let name = String::from_utf8_lossy(self.take(end)?).into_owned();
        self.take(1)?;
        Ok(name)
    }

    fn long(&mut self) -> Step<i64> {
        let length = usize::from(self.bytes::<1>()?[0]);
        let digits = self.take(length)?;
        if length > 8 {
            return Err("an integer of more than 64 bits".into());
        }
        let negative = digits.last().is_some_and(|&top| top >= 0x80);
        let mut wide = if negative { [0xff; 8] } else { [0; 8] };
        wide[..length].copy_from_slice(digits);
        Ok(i64::from_le_bytes(wide))
    }

    fn int(&mut self, read: fn(&mut Self) -> Step<i64>) -> Step {
        let value = read(self)?;
        self.push(Value::Int(value));
        Ok(())
    }

    fn push(&mut self, value: Value) {
        self.stack.push(value);
    }

    /// Takes the top of the stack, never through a mark.
    fn pop(&mut self) -> Step<Value> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("an empty stack".into());
        }
        self.stack.pop().ok_or_else(|| "an empty stack".into())
    }

    fn since_mark(&mut self) -> Step<usize> {
        let mark = self.marks.pop().ok_or("no mark")?;
        Ok(self.stack.len() - mark)
    }

    fn pop_many(&mut self, count: usize) -> Step<Vec<Value>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let start =
            self.stack.len().checked_sub(count).filter(|&start| start >= floor).ok_or("an empty stack")?;
        Ok(self.stack.split_off(start))
    }

    fn put(&mut self, slot: u32) -> Step {
        let top = self.pop()?;
        self.memo.insert(slot, top.clone());
        self.push(top);
        Ok(())
    }

    fn get(&mut self, slot: u32) -> Step {
        let value = self.memo.get(&slot).ok_or_else(|| format!("memo {slot}, which was never set,"))?.clone();
        self.push(value);
        Ok(())
    }

    fn new_dict(&mut self) {
        self.dicts.push(Vec::new());
        self.push(Value::Dict(self.dicts.len() - 1));
    }

    fn new_tuple(&mut self, count: usize) -> Step {
        let items = self.pop_many(count)?;
        self.tuples.push(items.into());
        self.push(Value::Tuple(self.tuples.len() - 1));
        Ok(())
    }

    fn global(&mut self) -> Step {
        let (module, name) = (self.line()?, self.line()?);
        let global = match (module.as_str(), name.as_str()) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch", "DoubleStorage") => Global::Storage(ElementType::F64),
            ("torch", "FloatStorage") => Global::Storage(ElementType::F32),
            ("torch", "HalfStorage") => Global::Storage(ElementType::F16),
            ("torch", "BFloat16Storage") => Global::Storage(ElementType::Bf16),
            ("torch", "LongStorage") => Global::Storage(ElementType::I64),
            _ => return Err(format!("refused global {:?}", format!("{module}.{name}"))),
        };
        self.push(Value::Global(global));
        Ok(())
    }

    /// `("storage", type, key, device, elements)` stands for a storage.
    fn persistent(&mut self) -> Step {
        let items = self.pop_tuple()?;
        let [Value::Text(tag), Value::Global(Global::Storage(element)), Value::Text(key), _, elements] =
            &*items
        else {
            return Err("a persistent id that is not a storage".into());
        };
        if &**tag != "storage" {
            return Err(format!("persistent id {tag:?}"));
        }
        let plain = !key.is_empty() && key.len() <= 64 && key.bytes().all(|b| b.is_ascii_alphanumeric());
        if !plain {
            return Err(format!("storage key {key:?}"));
        }
        let storage = Storage { element: *element, key: key.clone(), elements: size(elements)? };
        self.storages.push(storage);
        self.push(Value::Storage(self.storages.len() - 1));
        Ok(())
    }

    fn reduce(&mut self) -> Step {
        let arguments = self.pop_tuple()?;
        match (self.pop()?, &*arguments) {
            (Value::Global(Global::OrderedDict), []) => self.new_dict(),
            (
                Value::Global(Global::RebuildTensor),
                [
                    Value::Storage(storage),
                    offset,
                    Value::Tuple(shape),
                    Value::Tuple(strides),
                    Value::Bool,
                    Value::Dict(_),
                ],
            ) => {
                let tensor = StoredTensor {
                    storage: self.storages[*storage].clone(),
                    offset: size(offset)?,
                    shape: self.sizes(*shape)?,
                    strides: self.sizes(*strides)?,
                };
                self.check(&tensor)?;
                self.tensors.push(tensor);
                self.push(Value::Tensor(self.tensors.len() - 1));
            }
            _ => return Err("a call other than of a dictionary or a tensor".into()),
        }
        Ok(())
    }

    /// A state dict's `_metadata` of module versions; nothing in it is needed.
    fn build(&mut self) -> Step {
        match (self.pop()?, self.stack.last()) {
            (Value::Dict(_), Some(Value::Dict(_))) => Ok(()),
            _ => Err("state for something other than a dictionary".into()),
        }
    }

    fn set_items(&mut self, count: usize) -> Step {
        let items = self.pop_many(count)?;
        let Some(&Value::Dict(dict)) = self.stack.last() else {
            return Err("items for something other than a dictionary".into());
        };
        if items.len() % 2 != 0 {
            return Err("a key without a value".into());
        }
        self.dicts[dict].extend(items.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())));
        Ok(())
    }

    fn pop_tuple(&mut self) -> Step<Rc<[Value]>> {
        match self.pop()? {
            Value::Tuple(tuple) => Ok(self.tuples[tuple].clone()),
            _ => Err("arguments that are not a tuple".into()),
        }
    }

    fn sizes(&self, tuple: usize) -> Step<Vec<usize>> {
        let items = &self.tuples[tuple];
        if items.len() > 8 {
            return Err(format!("a tensor of {} dimensions", items.len()));
        }
        items.iter().map(size).collect()
    }

    fn check(&self, tensor: &StoredTensor) -> Step {
        if tensor.shape.len() != tensor.strides.len() {
            return Err("a tensor with more sizes than strides".into());
        }
        let elements = tensor.shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        let end = tensor.span().and_then(|span| span.checked_add(tensor.offset));
        if elements.is_none() || end.is_none_or(|end| end > tensor.storage.elements) {
            return Err(format!(
                "a tensor of shape {:?}, strides {:?} and offset {} beyond its storage of {} elements",
                tensor.shape, tensor.strides, tensor.offset, tensor.storage.elements
            ));
        }
        Ok(())
    }

    fn tensors_of(&self, root: Value) -> Result<Vec<(String, StoredTensor)>, String> {
        let Value::Dict(root) = root else {
            return Err("not a dictionary of tensors".into());
        };
        let named = |(key, value): &(Value, Value)| match (key, value) {
            (Value::Text(name), Value::Tensor(tensor)) => {
                Ok((name.to_string(), self.tensors[*tensor].clone()))
            }
            (Value::Text(name), _) => Err(format!("{name:?} is not a tensor")),
            _ => Err("a key that is not text".into()),
        };
        self.dicts[root].iter().map(named).collect()
    }
}

fn size(value: &Value) -> Step<usize> {
    match value {
        Value::Int(int) => usize::try_from(*int).map_err(|_| format!("size {int}")),
        _ => Err("a size that is not an integer".into()),
    }
}

fn opcode_name(opcode: u8) -> String {
    let name = match opcode {
        b'i' => "INST",
        b'o' => "OBJ",
        b'P' => "PERSID",
        b'G' => "BINFLOAT",
        b']' => "EMPTY_LIST",
        b'a' => "APPEND",
        b'e' => "APPENDS",
        0x81 => "NEWOBJ",
        0x82..=0x84 => "EXT",
        0x92 => "NEWOBJ_EX",
        0x93 => "STACK_GLOBAL",
        _ => return format!("0x{opcode:02x}"),
    };
    format!("{name} (0x{opcode:02x})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::testing::{TestTensor, int, pickle, text};

    fn one(tensor: TestTensor) -> Vec<u8> {
        pickle(&[("a.weight".to_owned(), tensor)].into())
    }

    fn reason(body: &[u8]) -> String {
        read(&[b"\x80\x02", body].concat()).unwrap_err()
    }

    #[test]
    fn a_dictionary_of_tensors_is_read() {
        let tensor = TestTensor::new(&[2, 3], &[0.0; 6]);
        let tensors = read(&one(tensor.clone())).unwrap();
        assert_eq!(tensors, [("a.weight".to_owned(), tensor.tensor)]);
        assert_eq!(read(b"\x80\x02}.").unwrap(), []);
    }

    #[test]
    fn strides_say_whether_elements_are_in_order() {
        let contiguous = |shape: &[usize], strides: &[usize]| {
            let mut tensor = TestTensor::new(shape, &[]).tensor;
            tensor.strides = strides.to_vec();
            tensor.is_contiguous()
        };
        assert!(contiguous(&[2, 3], &[3, 1]) && contiguous(&[2, 1], &[1, 7]) && contiguous(&[], &[]));
        assert!(!contiguous(&[2, 3], &[1, 2]) && !contiguous(&[2, 3], &[4, 1]) && !contiguous(&[2], &[0]));
    }

    #[test]
    fn a_tensor_stays_inside_its_storage() {
        let beyond = |change: fn(&mut StoredTensor)| {
            let mut tensor = TestTensor::new(&[2, 3], &[0.0; 6]);
            change(&mut tensor.tensor);
            read(&one(tensor)).unwrap_err()
        };
        assert!(beyond(|t| t.offset = 1).contains("beyond its storage of 6 elements"));
        assert!(beyond(|t| t.strides = vec![4, 1]).contains("beyond its storage"));
        assert!(beyond(|t| t.strides = vec![usize::MAX >> 1, 1]).contains("beyond its storage"));
        assert!(beyond(|t| t.shape = vec![usize::MAX >> 1, usize::MAX >> 1]).contains("beyond its storage"));
        assert!(beyond(|t| t.offset = usize::MAX).contains("size -1"));
        assert!(beyond(|t| t.strides = vec![1]).contains("more sizes than strides"));
        assert!(beyond(|t| t.shape = vec![1; 9]).contains("9 dimensions"));
        let mut tensor = TestTensor::new(&[1 << 40, 1 << 40], &[0.0]);
        tensor.tensor.strides = vec![0, 0];
        assert!(
            read(&one(tensor)).unwrap_err().contains("beyond its storage"),
            "more elements than can be counted"
        );
    }

    #[test]
    fn code_is_refused_by_name() {
        assert!(reason(b"cos\nsystem\nX\x02\0\0\0ls\x85R.").contains("refused global \"os.system\""));
        assert!(reason(b"cbuiltins\neval\n.").contains("refused global \"builtins.eval\""));
        assert!(reason(b"ctorch\n_utils._rebuild_tensor_v2\n.").contains("refused global"));
        assert!(reason(b"ctorch\nByteStorage\n.").contains("torch.ByteStorage"));
        assert!(reason(b"(ios\nsystem\n.").contains("opcode INST (0x69) at byte"));
        assert!(reason(b")\x81.").contains("opcode NEWOBJ"));
        assert!(reason(b"X\x02\0\0\0osX\x06\0\0\0system\x93.").contains("opcode STACK_GLOBAL"));
        assert!(reason(b"\x95\x00").contains("opcode 0x95"));
        assert!(reason(b"ccollections\nOrderedDict\nK\x01\x85R.").contains("a call other than"));
        assert!(read(b"\x80\x04}.").unwrap_err().contains("protocol 2"));
    }

    #[test]
    fn broken_programs_are_refused() {
        for body in [
            &b"."[..],
            b"0.",
            b"t.",
            b"u.",
            b"(}u.",
            b"}K\x01s.",
            b"}(K\x01u.",
            b"R.",
            b"Q.",
            b"b.",
            b"q\x00.",
            b"K",
        ] {
            reason(body);
        }
        assert!(reason(b"h\x07.").contains("memo 7"));
        assert!(reason(b"X\xff\xff\xff\xffabc").contains("end of the data"));
        assert!(reason(b"X\x01\0\0\0\xff.").contains("not UTF-8"));
        assert!(reason(b"\x8a\x09123456789.").contains("more than 64 bits"));
        assert!(reason(b"K\x01.").contains("not a dictionary of tensors"));
        assert!(reason(b"}X\x01\0\0\0aK\x01s.").contains("\"a\" is not a tensor"));
        assert!(reason(b"}K\x01K\x01s.").contains("a key that is not text"));
        let mut persistent = b"(".to_vec();
        text(&mut persistent, "storage");
        persistent.extend_from_slice(b"ctorch\nFloatStorage\n");
        text(&mut persistent, "../0");
        text(&mut persistent, "cpu");
        int(&mut persistent, 1);
        persistent.extend_from_slice(b"tQ.");
        assert!(reason(&persistent).contains("storage key \"../0\""));
        let whole = one(TestTensor::new(&[2, 3], &[0.0; 6]));
        (0..whole.len()).for_each(|length| assert!(read(&whole[..length]).is_err(), "{length}"));
    }

    #[test]
    fn deep_nesting_and_memo_abuse_cost_no_more_than_their_bytes() {
        let nested = [&b")"[..], &vec![0x85; 1_000_000], b"."].concat();
        assert!(reason(&nested).contains("not a dictionary of tensors"));
        let doubling: Vec<u8> = [&b")q\x00"[..], &b"h\x00h\x00\x86q\x00".repeat(200_000), b"."].concat();
        assert!(reason(&doubling).contains("not a dictionary of tensors"));
        assert!(
            reason(b"}q\x00X\x01\0\0\0ah\x00s.").contains("\"a\" is not a tensor"),
            "a dictionary in itself"
        );
        let far = b"}r\xff\xff\xff\xffj\xff\xff\xff\xff.";
        assert_eq!(read(&[b"\x80\x02", &far[..]].concat()).unwrap(), []);
    }
}
