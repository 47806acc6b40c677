//! TensorBoard's event files, written without any of TensorFlow.
//!
//! A file is a row of TFRecords: length (u64, little-endian), its masked CRC-32C, the record, its masked CRC-32C. Each
//! record is one `Event` message of TensorFlow's event.proto in protobuf's wire format; the handful of fields used
//! here are written by hand. TensorBoard itself reads the result in `trainer/tests/python_reads.rs`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use grug::error::{Error, Result};

/// One event file, open for writing.
pub struct EventWriter {
    file: BufWriter<File>,
    path: PathBuf,
}

impl EventWriter {
    /// Makes a new event file in this folder. Where training resumes after `first_step` steps, TensorBoard is told to
    /// forget what other files of the folder say about later ones.
    pub fn create(folder: &Path, first_step: u64) -> Result<EventWriter> {
        std::fs::create_dir_all(folder).map_err(|e| Error::io("making the folder", folder, e))?;
        let time = now();
        // TensorBoard reads the files of a folder in the order of their names.
        let micros = (time.fract() * 1e6) as u32;
        let name = format!("events.out.tfevents.{:010}.{micros:06}.grug", time as u64);
        let (file, path) = new_file(folder, &name)?;
        let mut writer = EventWriter { file: BufWriter::new(file), path };
        let mut version = Message::default();
        version.double(1, time).text(3, "brain.Event:2");
        writer.record(&version.bytes)?;
        if first_step > 0 {
            // SessionLog { status: START }
            let mut session = Message::default();
            session.varint(1, 1);
            let mut event = event(first_step + 1);
            event.message(7, &session);
            writer.record(&event.bytes)?;
        }
        writer.flush()?;
        Ok(writer)
    }

    /// Writes one number under a name.
    pub fn scalar(&mut self, step: u64, tag: &str, value: f64) -> Result<()> {
        let mut entry = Message::default();
        entry.text(1, tag).float(2, value as f32);
        self.summary(step, &entry)
    }

    /// Writes a text under a name. TensorBoard shows it as Markdown.
    pub fn text(&mut self, step: u64, tag: &str, text: &str) -> Result<()> {
        // TensorProto { dtype: DT_STRING, tensor_shape: {}, string_val: [text] }
        let mut tensor = Message::default();
        tensor.varint(1, 7).message(2, &Message::default()).text(8, text);
        // SummaryMetadata { plugin_data { plugin_name: "text" } }
        let mut plugin = Message::default();
        plugin.text(1, "text");
        let mut metadata = Message::default();
        metadata.message(1, &plugin);
        let mut entry = Message::default();
        entry.text(1, tag).message(8, &tensor).message(9, &metadata);
        self.summary(step, &entry)
    }

    /// Hands everything to the operating system, so that a TensorBoard that is watching sees it.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(|e| Error::io("writing", &self.path, e))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes an event with a summary of one entry.
    fn summary(&mut self, step: u64, entry: &Message) -> Result<()> {
        let mut summary = Message::default();
        summary.message(1, entry);
        let mut event = event(step);
        event.message(5, &summary);
        self.record(&event.bytes)
    }

    fn record(&mut self, record: &[u8]) -> Result<()> {
        let length = (record.len() as u64).to_le_bytes();
        let parts =
            [&length[..], &masked_crc(&length).to_le_bytes(), record, &masked_crc(record).to_le_bytes()];
        parts
            .iter()
            .try_for_each(|part| self.file.write_all(part))
            .map_err(|e| Error::io("writing", &self.path, e))
    }
}

/// Opens a file that was not there, under this name or one with a number after it.
fn new_file(folder: &Path, name: &str) -> Result<(File, PathBuf)> {
    for attempt in 0.. {
        let path = match attempt {
            0 => folder.join(name),
            n => folder.join(format!("{name}.{n}")),
        };
        match File::create_new(&path) {
            Ok(file) => return Ok((file, path)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && attempt < 1000 => {}
            Err(e) => return Err(Error::io("writing", &path, e)),
        }
    }
    unreachable!("the loop has no end but a return")
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// An event with its time and step.
fn event(step: u64) -> Message {
    let mut event = Message::default();
    event.double(1, now()).varint(2, step);
    event
}

/// A protobuf message under construction.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// The field's number and wire type: 0 varint, 1 eight bytes, 2 with a length, 5 four bytes.
    fn key(&mut self, field: u64, wire: u64) {
        self.raw_varint(field << 3 | wire);
    }

    fn varint(&mut self, field: u64, value: u64) -> &mut Message {
        self.key(field, 0);
        self.raw_varint(value);
        self
    }

    fn double(&mut self, field: u64, value: f64) -> &mut Message {
        self.key(field, 1);
        self.bytes.extend(value.to_le_bytes());
        self
    }

    fn float(&mut self, field: u64, value: f32) -> &mut Message {
        self.key(field, 5);
        self.bytes.extend(value.to_le_bytes());
        self
    }

    fn text(&mut self, field: u64, text: &str) -> &mut Message {
        self.key(field, 2);
        self.raw_varint(text.len() as u64);
        self.bytes.extend(text.as_bytes());
        self
    }

    fn message(&mut self, field: u64, inner: &Message) -> &mut Message {
        self.key(field, 2);
        self.raw_varint(inner.bytes.len() as u64);
        self.bytes.extend(&inner.bytes);
        self
    }
}

/// CRC-32C (Castagnoli), reflected.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, &byte| TABLE[(crc as u8 ^ byte) as usize] ^ crc >> 8)
}

/// TFRecord's way to store a checksum beside what it checks.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 3720, appendix B.4.
    #[test]
    fn crc_has_the_known_values() {
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&rising), 0x46DD_794E);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn files_never_overwrite_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tensorboard");
        let mut a = EventWriter::create(&folder, 0).unwrap();
        let b = EventWriter::create(&folder, 5).unwrap();
        a.scalar(1, "loss", 1.0).unwrap();
        a.flush().unwrap();
        assert_ne!(a.path(), b.path());
        assert!(std::fs::metadata(a.path()).unwrap().len() > 40);
    }
}
