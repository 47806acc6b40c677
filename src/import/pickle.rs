//! A reader for the pickles that `torch.save` writes, which executes nothing.
//!
//! A pickle is a program for a small stack machine, and in Python that program may call any function. Here it can only
//! build plain values and point at tensor storages: the few names that a tensor needs are a closed list
//! ([`Global`]), and every other one is refused by name.
//!
//! Values live in one flat arena and refer to each other by number, so a hostile pickle can neither overflow our stack
//! by nesting, nor multiply itself by repeating a memoized value, nor send us round a cycle: nobody here walks a value
//! deeper than the caller asks. Strings are slices of the input. Each value costs at least one opcode of the input, and
//! [`MAX_VALUES`] bounds them all.

use crate::error::{Error, Result};
use crate::import::printable;

/// More values than any checkpoint has; bounds memory.
pub const MAX_VALUES: usize = 1 << 21;
/// The longest pickle we read, in bytes. Those of checkpoints have some ten thousand; tensors are not in it.
pub const MAX_PICKLE_BYTES: u64 = 32 << 20;
/// Dimensions of a tensor at most.
pub const MAX_RANK: usize = 8;

/// A value's number in its [`Pickle`].
pub type Id = u32;

/// How the numbers of a storage are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageType {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// IEEE 16-bit float.
    F16,
    /// 16-bit float with 8 exponent bits.
    BF16,
    /// Integers and booleans, which no weight is; the size of one in bytes.
    Int(u8),
}

impl StorageType {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            StorageType::F64 => 8,
            StorageType::F32 => 4,
            StorageType::F16 | StorageType::BF16 => 2,
            StorageType::Int(size) => size.into(),
        }
    }

    fn from_name(name: &str) -> Option<StorageType> {
        Some(match name {
            "DoubleStorage" => StorageType::F64,
            "FloatStorage" => StorageType::F32,
            "HalfStorage" => StorageType::F16,
            "BFloat16Storage" => StorageType::BF16,
            "LongStorage" => StorageType::Int(8),
            "IntStorage" => StorageType::Int(4),
            "ShortStorage" => StorageType::Int(2),
            "CharStorage" | "ByteStorage" | "BoolStorage" => StorageType::Int(1),
            _ => return None,
        })
    }
}

/// The names a pickle may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global {
    /// `collections.OrderedDict`: read as a dict.
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`: the tensor inside it.
    RebuildParameter,
    /// `torch.Size`: read as a tuple.
    Size,
    /// `torch.FloatStorage` and its like.
    Storage(StorageType),
    /// A constant such as `torch.float32`, which nothing here reads.
    Dtype,
}

impl Global {
    pub(super) fn find(module: &str, name: &str) -> Result<Global> {
        const DTYPES: [&str; 12] = [
            "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
            "double", "half",
        ];
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch", "Size") => Global::Size,
            ("torch", name) if DTYPES.contains(&name) => Global::Dtype,
            ("torch" | "torch.storage", name) if StorageType::from_name(name).is_some() => {
                Global::Storage(StorageType::from_name(name).expect("just asked"))
            }
            _ => {
                return Err(Error::format(format!(
                    "asks for {}.{}: refused; only tensors and plain values are read",
                    printable(module),
                    printable(name)
                )));
            }
        })
    }
}

/// A storage: the numbers of one or more tensors, in a file of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageRef<'a> {
    /// The name of its entry under `data/`.
    pub key: &'a str,
    /// How its numbers are stored.
    pub dtype: StorageType,
    /// How many numbers it holds.
    pub len: u64,
}

/// A tensor: a view of a storage. Sizes, strides and the offset count numbers, not bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorRef<'a> {
    /// Where its numbers are.
    pub storage: StorageRef<'a>,
    /// Where its first number is.
    pub offset: u64,
    /// Its shape, outermost first.
    pub shape: Vec<usize>,
    /// How far apart neighbours are, for each dimension.
    pub strides: Vec<u64>,
}

/// A plain value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `None`.
    None,
    /// A boolean.
    Bool(bool),
    /// An integer that fits into 64 bits.
    Int(i64),
    /// An integer that does not.
    BigInt,
    /// A float.
    Float(f64),
    /// Text.
    Str(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A list.
    List(Vec<Id>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A dict or an OrderedDict, in the order of insertion. A key may stand twice: the last counts.
    Dict(Vec<(Id, Id)>),
    /// One of the accepted names.
    Global(Global),
    /// A storage.
    Storage(StorageRef<'a>),
    /// A tensor.
    Tensor(Box<TensorRef<'a>>),
}

impl Value<'_> {
    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::BigInt => "an integer",
            Value::Float(_) => "a float",
            Value::Str(_) => "text",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "a list",
            Value::Tuple(_) => "a tuple",
            Value::Dict(_) => "a dict",
            Value::Global(_) => "a class",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
        }
    }
}

/// All values of a pickle.
#[derive(Debug)]
pub struct Pickle<'a> {
    pub(super) values: Vec<Value<'a>>,
    pub(super) root: Id,
}

impl<'a> Pickle<'a> {
    /// What the pickle holds.
    pub fn root(&self) -> Id {
        self.root
    }

    /// The value of this number.
    pub fn get(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    /// The entry of a dict; `None` where there is none, or no dict.
    pub fn entry(&self, dict: Id, key: &str) -> Option<Id> {
        let Value::Dict(entries) = self.get(dict) else { return None };
        entries.iter().rev().find(|(k, _)| matches!(self.get(*k), Value::Str(s) if *s == key)).map(|e| e.1)
    }
}
