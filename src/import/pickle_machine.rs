//! The stack machine that reads a pickle: each opcode makes, moves or combines plain values.

use std::collections::HashMap;

use crate::error::{Error, ErrorKind, Result};
use crate::import::pickle::{Global, Id, MAX_RANK, MAX_VALUES, Pickle, StorageRef, TensorRef, Value};

impl<'a> Pickle<'a> {
    /// Reads a pickle of protocol 2 to 5.
    pub fn parse(input: &'a [u8]) -> Result<Pickle<'a>> {
        let mut machine = Machine { rest: input, len: input.len(), ..Machine::default() };
        let root = machine.run().map_err(|e| e.at(format_args!("pickle byte {}", machine.op_at)))?;
        Ok(Pickle { values: machine.values, root })
    }
}

#[derive(Default)]
struct Machine<'a> {
    rest: &'a [u8],
    len: usize,
    /// Where the current opcode stands, for messages.
    op_at: usize,
    values: Vec<Value<'a>>,
    /// Entries of lists, tuples and dicts and dimensions of tensors so far; they count against [`MAX_VALUES`] too.
    entries: usize,
    stack: Vec<Id>,
    /// Heights of the stack at which a MARK stands.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

fn bad(text: impl Into<String>) -> Error {
    Error::format(text)
}

impl<'a> Machine<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or_else(|| bad("is cut short"))?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("take gives N bytes"))
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A length of 8 bytes.
    fn len64(&mut self) -> Result<usize> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| bad("is cut short"))
    }

    fn text(&mut self, len: usize) -> Result<&'a str> {
        std::str::from_utf8(self.take(len)?).map_err(|_| bad("has text that is not UTF-8"))
    }

    fn line(&mut self) -> Result<&'a str> {
        let end = self.rest.iter().position(|&b| b == b'\n').ok_or_else(|| bad("is cut short"))?;
        let line = self.text(end)?;
        self.take(1)?;
        Ok(line)
    }

    /// Makes a value without pushing it.
    fn make(&mut self, value: Value<'a>) -> Result<Id> {
        if self.values.len() >= MAX_VALUES {
            return Err(bad(format!("has more than {MAX_VALUES} values")));
        }
        self.values.push(value);
        Ok((self.values.len() - 1) as Id)
    }

    fn push_id(&mut self, id: Id) -> Result<()> {
        if self.stack.len() >= MAX_VALUES {
            return Err(bad(format!("has more than {MAX_VALUES} values on its stack")));
        }
        self.stack.push(id);
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) -> Result<()> {
        let id = self.make(value)?;
        self.push_id(id)
    }

    /// Counts entries that are about to be put into a container.
    fn charge(&mut self, entries: usize) -> Result<()> {
        self.entries += entries;
        if self.entries > 2 * MAX_VALUES {
            return Err(bad(format!("has more than {} entries in its lists and dicts", 2 * MAX_VALUES)));
        }
        Ok(())
    }

    /// What stands above the last MARK may not be taken by an opcode that does not take the MARK.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id> {
        if self.stack.len() <= self.floor() {
            return Err(bad("takes a value from an empty stack"));
        }
        Ok(self.stack.pop().expect("higher than the floor"))
    }

    fn top(&self) -> Result<Id> {
        match self.stack.last() {
            Some(&id) if self.stack.len() > self.floor() => Ok(id),
            _ => Err(bad("reads an empty stack")),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| bad("has no MARK where one is needed"))?;
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&mut self, len: usize) -> Result<()> {
        let start = self.stack.len().checked_sub(len).filter(|&start| start >= self.floor());
        let start = start.ok_or_else(|| bad("takes a value from an empty stack"))?;
        let items = self.stack.split_off(start);
        self.charge(items.len())?;
        self.push(Value::Tuple(items))
    }

    fn append(&mut self, items: Vec<Id>) -> Result<()> {
        self.charge(items.len())?;
        let list = self.top()?;
        match &mut self.values[list as usize] {
            Value::List(list) => {
                list.extend(items);
                Ok(())
            }
            other => Err(bad(format!("appends to {}", other.kind()))),
        }
    }

    fn set_items(&mut self, items: Vec<Id>) -> Result<()> {
        self.charge(items.len())?;
        let (pairs, []) = items.as_chunks::<2>() else { return Err(bad("has a dict key without a value")) };
        let dict = self.top()?;
        match &mut self.values[dict as usize] {
            Value::Dict(dict) => {
                dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
                Ok(())
            }
            other => Err(bad(format!("sets an entry of {}", other.kind()))),
        }
    }

    fn remember(&mut self, slot: u32) -> Result<()> {
        let id = self.top()?;
        self.memo.insert(slot, id);
        if self.memo.len() > MAX_VALUES {
            return Err(bad(format!("has more than {MAX_VALUES} memo entries")));
        }
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<()> {
        let id =
            *self.memo.get(&slot).ok_or_else(|| bad(format!("recalls memo {slot}, which is not set")))?;
        self.push_id(id)
    }

    fn get(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    fn items(&self, id: Id) -> Result<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) | Value::List(items) => Ok(items),
            other => Err(bad(format!("has {} where a tuple belongs", other.kind()))),
        }
    }

    fn natural(&self, id: Id) -> Result<u64> {
        match self.get(id) {
            Value::Int(n) if *n >= 0 => Ok(*n as u64),
            Value::Int(n) => Err(bad(format!("has {n} where a size belongs"))),
            other => Err(bad(format!("has {} where a size belongs", other.kind()))),
        }
    }

    /// `("storage", type, key, device, numbers)`.
    fn persistent_id(&mut self) -> Result<()> {
        let id = self.pop()?;
        let &[kind, dtype, key, _device, len] = self.items(id)? else {
            return Err(bad("refers to a storage without the five things that name it"));
        };
        let storage = match (self.get(kind), self.get(dtype), self.get(key)) {
            (Value::Str("storage"), Value::Global(Global::Storage(dtype)), Value::Str(key)) => {
                StorageRef { key, dtype: *dtype, len: self.natural(len)? }
            }
            _ => return Err(bad("refers to something that is no tensor storage")),
        };
        self.push(Value::Storage(storage))
    }

    fn rebuild_tensor(&mut self, args: Id) -> Result<Value<'a>> {
        // (storage, offset, size, stride, requires_grad, backward_hooks, metadata?)
        let &[storage, offset, size, stride, ..] = self.items(args)? else {
            return Err(bad("rebuilds a tensor from too little"));
        };
        let Value::Storage(storage) = *self.get(storage) else {
            return Err(bad(format!("rebuilds a tensor from {}", self.get(storage).kind())));
        };
        self.charge(self.items(size)?.len() + self.items(stride)?.len())?;
        let (size, stride) = (self.items(size)?, self.items(stride)?);
        if size.len() != stride.len() || size.len() > MAX_RANK {
            return Err(bad(format!(
                "has a tensor of {} dimensions and {} strides",
                size.len(),
                stride.len()
            )));
        }
        let shape = size.iter().map(|&n| {
            usize::try_from(self.natural(n)?).map_err(|_| bad("has a tensor too large for this machine"))
        });
        Ok(Value::Tensor(Box::new(TensorRef {
            storage,
            offset: self.natural(offset)?,
            shape: shape.collect::<Result<_>>()?,
            strides: stride.iter().map(|&n| self.natural(n)).collect::<Result<_>>()?,
        })))
    }

    /// Calls one of the accepted names.
    fn reduce(&mut self) -> Result<()> {
        let (args, callee) = (self.pop()?, self.pop()?);
        let Value::Global(global) = *self.get(callee) else {
            return Err(bad(format!("calls {}", self.get(callee).kind())));
        };
        match global {
            Global::OrderedDict => {
                let pairs = match self.items(args)? {
                    [] => Vec::new(),
                    &[list] => self
                        .items(list)?
                        .iter()
                        .map(|&pair| match self.items(pair)? {
                            &[key, value] => Ok((key, value)),
                            _ => Err(bad("makes an OrderedDict from something that is no pair")),
                        })
                        .collect::<Result<_>>()?,
                    _ => return Err(bad("makes an OrderedDict from more than one list")),
                };
                self.charge(2 * pairs.len())?;
                self.push(Value::Dict(pairs))
            }
            Global::RebuildTensor => {
                let tensor = self.rebuild_tensor(args)?;
                self.push(tensor)
            }
            Global::RebuildParameter => match self.items(args)? {
                &[tensor, ..] if matches!(self.get(tensor), Value::Tensor(_)) => self.push_id(tensor),
                _ => Err(bad("makes a parameter from something that is no tensor")),
            },
            Global::Size => match self.items(args)? {
                &[tuple] if matches!(self.get(tuple), Value::Tuple(_)) => self.push_id(tuple),
                _ => Err(bad("makes a torch.Size from something that is no tuple")),
            },
            Global::Storage(_) | Global::Dtype => Err(bad("calls a constant: refused")),
        }
    }

    /// Sets attributes of an object. Of all we build only an OrderedDict has some (a state dict's `_metadata`), and
    /// nothing we read.
    fn build(&mut self) -> Result<()> {
        self.pop()?;
        let object = self.top()?;
        match self.get(object) {
            Value::Dict(_) => Ok(()),
            other => Err(bad(format!("sets attributes of {}: refused", other.kind()))),
        }
    }

    fn long(&mut self, len: usize) -> Result<Value<'a>> {
        let bytes = self.take(len)?;
        if len > 8 {
            return Ok(Value::BigInt);
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..len].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let global = Global::find(module, name)?;
        self.push(Value::Global(global))
    }

    fn run(&mut self) -> Result<Id> {
        if self.rest.first() != Some(&0x80) {
            return Err(bad("is no pickle of protocol 2 or later"));
        }
        loop {
            self.op_at = self.len - self.rest.len();
            let op = self.u8()?;
            match op {
                0x80 => match self.u8()? {
                    2..=5 => {}
                    other => {
                        return Err(Error::new(
                            ErrorKind::Version,
                            format!("is of pickle protocol {other}; 2 to 5 are read"),
                        ));
                    }
                },
                // FRAME: how much may be read ahead.
                0x95 => drop(self.len64()?),
                b'.' => return self.pop(),
                b'(' => {
                    if self.marks.len() >= MAX_VALUES {
                        return Err(bad(format!("is nested more than {MAX_VALUES} deep")));
                    }
                    self.marks.push(self.stack.len());
                }
                b'0' => match (self.stack.len() > self.floor(), self.marks.is_empty()) {
                    (true, _) => drop(self.pop()?),
                    (false, false) => drop(self.pop_mark()?),
                    (false, true) => return Err(bad("takes a value from an empty stack")),
                },
                b'1' => drop(self.pop_mark()?),
                b'2' => {
                    let top = self.top()?;
                    self.push_id(top)?;
                }
                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Bool(true))?,
                0x89 => self.push(Value::Bool(false))?,
                b'K' => {
                    let n = self.u8()?;
                    self.push(Value::Int(n.into()))?;
                }
                b'M' => {
                    let n = u16::from_le_bytes(self.array()?);
                    self.push(Value::Int(n.into()))?;
                }
                b'J' => {
                    let n = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(n.into()))?;
                }
                0x8a => {
                    let len = self.u8()?;
                    let value = self.long(len.into())?;
                    self.push(value)?;
                }
                0x8b => {
                    let len = self.u32()?;
                    let value = self.long(len as usize)?;
                    self.push(value)?;
                }
                b'G' => {
                    let x = f64::from_be_bytes(self.array()?);
                    self.push(Value::Float(x))?;
                }
                b'X' | 0x8c | 0x8d => {
                    let len = match op {
                        b'X' => self.u32()? as usize,
                        0x8c => self.u8()?.into(),
                        _ => self.len64()?,
                    };
                    let text = self.text(len)?;
                    self.push(Value::Str(text))?;
                }
                b'B' | b'C' | b'T' | b'U' | 0x8e => {
                    let len = match op {
                        b'B' | b'T' => self.u32()? as usize,
                        b'C' | b'U' => self.u8()?.into(),
                        _ => self.len64()?,
                    };
                    let bytes = self.take(len)?;
                    // Python 2 had one type for bytes and text.
                    let text = if matches!(op, b'T' | b'U') { std::str::from_utf8(bytes).ok() } else { None };
                    self.push(text.map_or(Value::Bytes(bytes), Value::Str))?;
                }
                b']' => self.push(Value::List(Vec::new()))?,
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b')' => self.push(Value::Tuple(Vec::new()))?,
                0x85 => self.tuple(1)?,
                0x86 => self.tuple(2)?,
                0x87 => self.tuple(3)?,
                b't' | b'l' => {
                    let items = self.pop_mark()?;
                    self.charge(items.len())?;
                    self.push(if op == b't' { Value::Tuple(items) } else { Value::List(items) })?;
                }
                b'd' => {
                    let items = self.pop_mark()?;
                    self.push(Value::Dict(Vec::new()))?;
                    self.set_items(items)?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.append(items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set_items(vec![key, value])?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    self.set_items(items)?;
                }
                b'q' => {
                    let slot = self.u8()?;
                    self.remember(slot.into())?;
                }
                b'r' => {
                    let slot = self.u32()?;
                    self.remember(slot)?;
                }
                0x94 => self.remember(self.memo.len() as u32)?,
                b'h' => {
                    let slot = self.u8()?;
                    self.recall(slot.into())?;
                }
                b'j' => {
                    let slot = self.u32()?;
                    self.recall(slot)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(module, name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    match (self.get(module), self.get(name)) {
                        (Value::Str(module), Value::Str(name)) => {
                            let (module, name) = (*module, *name);
                            self.global(module, name)?;
                        }
                        _ => return Err(bad("asks for a name that is no text: refused")),
                    }
                }
                b'Q' => self.persistent_id()?,
                b'R' => self.reduce()?,
                b'b' => self.build()?,
                other => {
                    return Err(bad(format!(
                        "has opcode {other:#04x} ({}), which no tensor or plain value needs: refused",
                        opcode_name(other)
                    )));
                }
            }
        }
    }
}

/// The names of opcodes that are refused.
fn opcode_name(op: u8) -> &'static str {
    match op {
        b'i' => "INST",
        b'o' => "OBJ",
        0x81 => "NEWOBJ",
        0x92 => "NEWOBJ_EX",
        0x82..=0x84 => "EXT",
        0x8f..=0x91 => "a set",
        0x96 => "BYTEARRAY8",
        0x97 | 0x98 => "a buffer",
        b'P' => "PERSID",
        b'I' | b'L' | b'F' | b'S' | b'V' | b'p' | b'g' => "protocol 0",
        _ => "unknown",
    }
}
