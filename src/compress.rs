//! Lossless compression: the model predicts each byte, and a range coder spends as many bits on it as it surprises.
//!
//! Decompressing repeats the same predictions, so both sides need the same model with
//! [`ModelOptions::portable`](crate::ModelOptions::portable), whose logits have the same bits on every machine. An
//! archive then decodes anywhere, on any number of threads. It takes one step of the model a byte, either way.
//!
//! # Format
//! Little-endian, 48 bytes and the payload:
//! ```text
//!   0  8  "GRUGARCH"
//!   8  4  version, 1
//!  12  4  method: 0 = the payload is the bytes themselves, 1 = it is coded
//!  16  8  the model's fingerprint
//!  24  8  bytes of context that predictions were made from
//!  32  8  length of the original
//!  40  8  XXH3-64 of the original
//! ```
//! The code: each byte has a frequency `1 + floor((2¹⁸ - 256) · p)`, the likeliest one more to make 2¹⁸ of all, with p
//! the softmax of the logits in f64; the range coder of `compress/coder.rs` codes them. Predictions are those of a
//! session that was fed the bytes before. Where a model cannot predict from so few bytes, all bytes are alike.

mod coder;

use xxhash_rust::xxh3::xxh3_64;

use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Model;
use crate::session::{Drafts, Overflow, Session, SessionOptions, context_of};
use coder::{Decoder, Encoder, Frequencies};

const MAGIC: &[u8; 8] = b"GRUGARCH";
const VERSION: u32 = 1;
const HEADER: usize = 48;
const RAW: u32 = 0;
const CODED: u32 = 1;

/// The most bytes that an archive of `n` bytes has: `n + n / 64 + 64`, with room for later formats.
pub const fn compress_bound(n: usize) -> usize {
    n.saturating_add(n / 64).saturating_add(64)
}

/// Compresses bytes with a portable model. Of the options, `max_context` and `cancel` matter; a shorter context is
/// faster and compresses less. What does not get smaller is stored as it is.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for a model that is not portable; those of [`Session::new`]; [`ErrorKind::Canceled`].
pub fn compress(model: &Model, options: &SessionOptions, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut session = predictor(model, options.max_context, options.cancel.as_ref())?;
    let mut encoder = Encoder::new();
    for &byte in bytes {
        encoder.encode(&predict(&mut session)?, byte);
        if encoder.len() >= bytes.len() {
            break;
        }
        session.feed(&[byte])?;
    }
    let coded = (encoder.len() < bytes.len()).then(|| encoder.finish()).filter(|c| c.len() < bytes.len());
    let mut archive = Vec::with_capacity(HEADER + coded.as_ref().map_or(bytes.len(), Vec::len));
    archive.extend_from_slice(MAGIC);
    archive.extend_from_slice(&VERSION.to_le_bytes());
    archive.extend_from_slice(&if coded.is_some() { CODED } else { RAW }.to_le_bytes());
    for number in [model.fingerprint(), session.max_context() as u64, bytes.len() as u64, xxh3_64(bytes)] {
        archive.extend_from_slice(&number.to_le_bytes());
    }
    archive.extend_from_slice(coded.as_deref().unwrap_or(bytes));
    Ok(archive)
}

/// The original of an archive, by the model that made it. Of the options, `cancel` matters alone: the archive says what
/// context it needs. Memory grows with what is decoded, not with what the header promises.
///
/// # Errors
/// [`ErrorKind::Format`] for bytes that are no archive or were changed, [`ErrorKind::Version`] for one of a newer
/// library, [`ErrorKind::Mismatch`] for one of another model, [`ErrorKind::Unsupported`] for a model that is not
/// portable, [`ErrorKind::Canceled`].
pub fn decompress(model: &Model, options: &SessionOptions, archive: &[u8]) -> Result<Vec<u8>> {
    let header = Header::read(archive)?;
    require_portable(model)?;
    let payload = &archive[HEADER..];
    if header.fingerprint != model.fingerprint() {
        return Err(Error::new(
            ErrorKind::Mismatch,
            format!(
                "archive: was made with the model {:016x}, this one is {:016x}",
                header.fingerprint,
                model.fingerprint()
            ),
        ));
    }
    let max_context = usize::try_from(header.max_context)
        .ok()
        .filter(|n| *n > 0 && context_of(model, *n).is_ok())
        .ok_or_else(|| bad("its context is impossible for this model"))?;
    let bytes = match header.method {
        RAW => payload.to_vec(),
        _ => decode(model, max_context, options.cancel.as_ref(), header.len, payload)?,
    };
    if bytes.len() as u64 != header.len || xxh3_64(&bytes) != header.checksum {
        return Err(bad("its checksum is wrong: it was changed"));
    }
    Ok(bytes)
}

/// The length of an archive's original, as its header says.
pub fn decompressed_len(archive: &[u8]) -> Result<u64> {
    Ok(Header::read(archive)?.len)
}

fn bad(what: &str) -> Error {
    Error::format(format!("archive: {what}"))
}

struct Header {
    method: u32,
    fingerprint: u64,
    max_context: u64,
    len: u64,
    checksum: u64,
}

impl Header {
    fn read(archive: &[u8]) -> Result<Header> {
        if !archive.starts_with(MAGIC) {
            return Err(bad("does not begin with \"GRUGARCH\""));
        }
        if archive.len() < HEADER {
            return Err(bad("is truncated"));
        }
        let number = |at: usize| u64::from_le_bytes(archive[at..at + 8].try_into().expect("eight bytes"));
        let (version, method) = (number(8) as u32, (number(8) >> 32) as u32);
        if version != VERSION {
            return Err(Error::new(
                ErrorKind::Version,
                format!("archive: version {version}; this library reads version {VERSION}"),
            ));
        }
        if method != RAW && method != CODED {
            return Err(bad(&format!("its method {method} is unknown")));
        }
        let [fingerprint, max_context, len, checksum] = [16, 24, 32, 40].map(number);
        if method == RAW && len != (archive.len() - HEADER) as u64 {
            return Err(bad("its length is not what its header says"));
        }
        Ok(Header { method, fingerprint, max_context, len, checksum })
    }
}

fn require_portable(model: &Model) -> Result<()> {
    if !model.is_portable() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "compression needs a model that was loaded as portable: others predict a little differently elsewhere",
        ));
    }
    Ok(())
}

/// A session that predicts.
fn predictor(model: &Model, max_context: usize, cancel: Option<&Cancel>) -> Result<Session> {
    require_portable(model)?;
    Session::new(
        model,
        &SessionOptions {
            max_context,
            overflow: Overflow::Slide,
            cancel: cancel.cloned(),
            drafts: Drafts::Off,
        },
    )
}

fn predict(session: &mut Session) -> Result<Frequencies> {
    if !session.can_predict() {
        return Ok(Frequencies::uniform());
    }
    session.logits().map(Frequencies::from_logits)
}

fn decode(
    model: &Model,
    max_context: usize,
    cancel: Option<&Cancel>,
    len: u64,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let mut session = predictor(model, max_context, cancel)?;
    let mut decoder = Decoder::new(payload);
    // Several payloads decode to one text; only the one that its encoder writes is an archive.
    let mut encoder = Encoder::new();
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < len {
        let frequencies = predict(&mut session)?;
        let byte = decoder.decode(&frequencies);
        if decoder.is_past_end() {
            return Err(bad("is truncated, or its length was changed"));
        }
        encoder.encode(&frequencies, byte);
        bytes.push(byte);
        session.feed(&[byte])?;
    }
    if encoder.finish() != payload {
        return Err(bad("its payload was changed, or has bytes left over"));
    }
    Ok(bytes)
}
