//! A struct as TOML: its values in their order, a table for each struct in it, which come last.

use std::fmt::Write;

use serde::Serialize;
use serde::ser::{Impossible, SerializeSeq, SerializeStruct, Serializer};

/// What cannot be written: it is no struct of numbers, words, lists and such structs.
#[derive(Debug)]
pub(crate) struct Unwritable;

impl std::fmt::Display for Unwritable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("only structs of numbers, words, lists and structs are written")
    }
}

impl std::error::Error for Unwritable {}

impl serde::ser::Error for Unwritable {
    fn custom<T: std::fmt::Display>(_: T) -> Unwritable {
        Unwritable
    }
}

/// A struct as TOML text.
pub(crate) fn to_string(value: &impl Serialize) -> Result<String, Unwritable> {
    let mut text = String::new();
    value.serialize(Writer { text: &mut text, name: "" })?;
    Ok(text)
}

/// Writes one value.
struct Writer<'a> {
    text: &'a mut String,
    /// Of the value, where it is a table; the root has none.
    name: &'static str,
}

impl Writer<'_> {
    fn write(self, value: std::fmt::Arguments<'_>) -> Result<(), Unwritable> {
        self.text.write_fmt(value).map_err(|_| Unwritable)
    }
}

/// Whether the value is a table, which is told from how it would be written.
fn is_table(text: &str) -> bool {
    text.starts_with('\n')
}

impl SerializeStruct for Writer<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Unwritable> {
        let mut text = String::new();
        value.serialize(Writer { text: &mut text, name })?;
        if is_table(&text) {
            // A table within a table would need a longer name.
            if !self.name.is_empty() {
                return Err(Unwritable);
            }
            *self.text += &text;
            return Ok(());
        }
        // What came after a table would be part of it.
        if !text.is_empty() && self.name.is_empty() && self.text.contains("\n[") {
            return Err(Unwritable);
        }
        if !text.is_empty() {
            writeln!(self.text, "{name} = {text}").map_err(|_| Unwritable)?;
        }
        Ok(())
    }

    fn end(self) -> Result<(), Unwritable> {
        Ok(())
    }
}

/// Writes the members of a list.
struct List<'a> {
    text: &'a mut String,
    is_empty: bool,
}

impl SerializeSeq for List<'_> {
    type Ok = ();
    type Error = Unwritable;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unwritable> {
        if !std::mem::take(&mut self.is_empty) {
            *self.text += ", ";
        }
        value.serialize(Writer { text: self.text, name: "" })
    }

    fn end(self) -> Result<(), Unwritable> {
        self.text.push(']');
        Ok(())
    }
}

/// Methods for kinds of values that no configuration has.
macro_rules! unwritable {
    ($($method:ident($($argument:ty),*) -> $ok:ty;)*) => {
        $(fn $method(self $(, _: $argument)*) -> Result<$ok, Unwritable> {
            Err(Unwritable)
        })*
    };
}

type No = Impossible<(), Unwritable>;

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Unwritable;
    type SerializeSeq = List<'a>;
    type SerializeStruct = Writer<'a>;
    type SerializeTuple = No;
    type SerializeTupleStruct = No;
    type SerializeTupleVariant = No;
    type SerializeMap = No;
    type SerializeStructVariant = No;

    fn serialize_bool(self, value: bool) -> Result<(), Unwritable> {
        self.write(format_args!("{value}"))
    }

    fn serialize_u64(self, value: u64) -> Result<(), Unwritable> {
        self.write(format_args!("{value}"))
    }

    fn serialize_f64(self, value: f64) -> Result<(), Unwritable> {
        if !value.is_finite() {
            return Err(Unwritable);
        }
        let point = if value.fract() == 0.0 { ".0" } else { "" };
        self.write(format_args!("{value}{point}"))
    }

    /// Words alone: what has to be escaped is no name of a variant.
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Unwritable> {
        self.write(format_args!("\"{variant}\""))
    }

    /// Nothing is an entry that is not there.
    fn serialize_none(self) -> Result<(), Unwritable> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unwritable> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Unwritable> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List<'a>, Unwritable> {
        self.text.push('[');
        Ok(List { text: self.text, is_empty: true })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Writer<'a>, Unwritable> {
        if !self.name.is_empty() {
            writeln!(self.text, "\n[{}]", self.name).map_err(|_| Unwritable)?;
        }
        Ok(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Unwritable> {
        Err(Unwritable)
    }

    unwritable! {
        serialize_i8(i8) -> ();
        serialize_i16(i16) -> ();
        serialize_i32(i32) -> ();
        serialize_i64(i64) -> ();
        serialize_u8(u8) -> ();
        serialize_u16(u16) -> ();
        serialize_u32(u32) -> ();
        serialize_f32(f32) -> ();
        serialize_char(char) -> ();
        serialize_str(&str) -> ();
        serialize_bytes(&[u8]) -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_tuple(usize) -> No;
        serialize_tuple_struct(&'static str, usize) -> No;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> No;
        serialize_map(Option<usize>) -> No;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> No;
    }
}
