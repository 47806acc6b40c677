//! Text files and folders into one byte file.
//!
//! The bytes are copied as they are, in pieces, so that a corpus of any size needs no memory; nothing is decoded and
//! nothing is dropped. Bytes that are not UTF-8 are counted, or refused where asked. The byte file appears under its
//! name when it is whole.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use grug::checkpoint::write_atomically;
use grug::error::{Error, ErrorKind, Result};

use super::{dummy, npy};

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// What to prepare, and how.
#[derive(Debug, Clone)]
pub struct Preparation {
    /// Folders and files, in order.
    pub sources: Vec<PathBuf>,
    /// The byte file: NumPy where it ends in `.npy`, flat where it ends in `.bin`.
    pub output: PathBuf,
    /// Write it even where it is as new as its sources.
    pub force: bool,
    /// Refuse text that is not UTF-8.
    pub strict_utf8: bool,
    /// Make up text where the first folder has none.
    pub dummy_if_empty: bool,
    /// Seed of the made-up text.
    pub seed: u64,
}

/// How far preparation is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The file being read.
    pub file: &'a Path,
    /// Bytes copied so far, of all files.
    pub done: u64,
    /// Bytes of all files.
    pub total: u64,
}

/// What preparation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The byte file.
    pub path: PathBuf,
    /// Bytes of text in it.
    pub bytes: u64,
    /// The files that it holds, in order; empty where the byte file was there and its sources are gone.
    pub files: Vec<PathBuf>,
    /// Sequences that are not UTF-8; they are in the byte file as they were. Not counted where it was up to date.
    pub invalid_utf8: u64,
    /// Whether the byte file was up to date, so that nothing was done.
    pub up_to_date: bool,
    /// Files of made-up text that were written.
    pub made_up: usize,
}

/// Joins the sources into the byte file, unless it is up to date already: as long as they are together, and not older
/// than any of them. A byte file whose sources are all gone counts as up to date.
pub fn prepare(job: &Preparation, progress: &mut dyn FnMut(Progress<'_>)) -> Result<Prepared> {
    let numpy = match job.output.extension().and_then(|e| e.to_str()) {
        Some("npy") => true,
        Some("bin") => false,
        Some(_) | None => {
            return Err(Error::invalid(format!(
                "{}: the name of a byte file must end in .bin or .npy",
                job.output.display()
            )));
        }
    };
    let gone = !job.sources.is_empty() && job.sources.iter().all(|source| !source.exists());
    if gone && !job.force && !job.dummy_if_empty && job.output.is_file() {
        let bytes = super::Corpus::open(&job.output)?.len();
        return Ok(prepared(job, bytes, Vec::new(), true, 0));
    }
    let made_up = if job.dummy_if_empty { make_up(job)? } else { 0 };
    let files = find_files(&job.sources)?;
    let mut total = 0;
    for file in &files {
        total += file.metadata().map_err(|e| Error::io("reading", file, e))?.len();
    }
    if total == 0 {
        return Err(Error::invalid(format!("{}: all of the text is empty", names(&files))));
    }
    if !job.force && is_up_to_date(&job.output, &files, total) {
        return Ok(prepared(job, total, files, true, made_up));
    }
    if let Some(parent) = job.output.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|e| Error::io("making the folder", parent, e))?;
    }
    let mut invalid = 0;
    let mut failure = None;
    let written = write_atomically(&job.output, |out| {
        if numpy {
            out.write_all(&npy::header(total))?;
        }
        let mut done = 0;
        for file in &files {
            match copy(file, out, job.strict_utf8, &mut |bytes| {
                done += bytes;
                progress(Progress { file, done, total });
            })? {
                Ok(sequences) => invalid += sequences,
                Err(error) => {
                    failure = Some(error);
                    return Err(std::io::Error::other("stopped"));
                }
            }
        }
        if done != total {
            let text = format!("the text had {total} bytes and then {done}: it changed meanwhile");
            failure = Some(Error::new(ErrorKind::Io, text).at(names(&files)));
            return Err(std::io::Error::other("stopped"));
        }
        Ok(())
    });
    match (written, failure) {
        (Ok(()), _) => Ok(Prepared { invalid_utf8: invalid, ..prepared(job, total, files, false, made_up) }),
        (Err(_), Some(error)) | (Err(error), None) => Err(error),
    }
}

fn prepared(
    job: &Preparation,
    bytes: u64,
    files: Vec<PathBuf>,
    up_to_date: bool,
    made_up: usize,
) -> Prepared {
    Prepared { path: job.output.clone(), bytes, files, invalid_utf8: 0, up_to_date, made_up }
}

fn names(files: &[PathBuf]) -> String {
    match files {
        [one] => one.display().to_string(),
        _ => format!("{} files", files.len()),
    }
}

/// The text files that the sources name: files as they are, folders as their `.txt` files sorted by name.
pub fn find_files(sources: &[PathBuf]) -> Result<Vec<PathBuf>> {
    if sources.is_empty() {
        return Err(Error::invalid(
            "there is no text to prepare: name a folder or a .txt file in data.sources",
        ));
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for source in sources {
        if source.is_dir() {
            let found = text_files(source)?;
            if found.is_empty() {
                return Err(Error::invalid(format!("{}: the folder has no .txt file", source.display())));
            }
            files.extend(found);
        } else {
            std::fs::metadata(source).map_err(|e| Error::io("reading", source, e))?;
            if source.extension().is_some_and(|e| e == "npy") {
                return Err(Error::invalid(format!(
                    "{}: a NumPy file is a prepared corpus, not text to join; name it in data.prepared",
                    source.display()
                )));
            }
            files.push(source.clone());
        }
    }
    // A text that comes twice would be in the training and in the validation part.
    let mut seen = std::collections::BTreeSet::new();
    for file in &files {
        let real = file.canonicalize().map_err(|e| Error::io("reading", file, e))?;
        if !seen.insert(real) {
            return Err(Error::invalid(format!("{}: data.sources name this file twice", file.display())));
        }
    }
    Ok(files)
}

fn text_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io("reading the folder", folder, e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "txt") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Makes up text in the first source where that is a folder without any, or nothing yet.
fn make_up(job: &Preparation) -> Result<usize> {
    let Some(folder) = job.sources.first() else { return Ok(0) };
    if folder.is_file() || folder.is_dir() && !text_files(folder)?.is_empty() {
        return Ok(0);
    }
    std::fs::create_dir_all(folder).map_err(|e| Error::io("making the folder", folder, e))?;
    for number in 0..dummy::FILES {
        write_atomically(&folder.join(dummy::file_name(number)), |out| dummy::write(out, job.seed, number))?;
    }
    Ok(dummy::FILES as usize)
}

fn is_up_to_date(output: &Path, files: &[PathBuf], total: u64) -> bool {
    let modified = |path: &Path| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
    let Some(made) = modified(output) else { return false };
    super::Corpus::open(output).is_ok_and(|corpus| corpus.len() == total)
        && files.iter().all(|file| modified(file).is_some_and(|changed| changed <= made))
}

/// Copies one file and counts the sequences in it that are not UTF-8. The outer error is the writer's, the inner one
/// the file's.
fn copy(
    path: &Path,
    out: &mut impl Write,
    strict: bool,
    copied: &mut dyn FnMut(u64),
) -> std::io::Result<Result<u64>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) => return Ok(Err(Error::io("opening", path, e))),
    };
    let mut check = Utf8Check::default();
    let mut piece = vec![0; PIECE];
    loop {
        let len = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(len) => len,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Ok(Err(Error::io("reading", path, e))),
        };
        check.feed(&piece[..len]);
        if strict && check.invalid > 0 {
            break;
        }
        out.write_all(&piece[..len])?;
        copied(len as u64);
    }
    check.finish();
    if let (true, Some(at)) = (strict, check.first) {
        return Ok(Err(Error::format(format!("is not UTF-8 at byte {at}")).in_file(path)));
    }
    Ok(Ok(check.invalid))
}

/// Looks for bytes that are not UTF-8 in a text that comes in pieces.
#[derive(Default)]
struct Utf8Check {
    /// The beginning of a character whose end has not come yet: at most three bytes.
    pending: Vec<u8>,
    /// Bytes before `pending`.
    seen: u64,
    /// Sequences that are not UTF-8.
    invalid: u64,
    /// Where the first of them begins.
    first: Option<u64>,
}

impl Utf8Check {
    fn feed(&mut self, piece: &[u8]) {
        let mut piece = piece;
        // A character that began in the piece before is finished byte by byte.
        while !self.pending.is_empty() {
            let Some((&byte, rest)) = piece.split_first() else { return };
            match std::str::from_utf8(&[&self.pending[..], &[byte]].concat()) {
                Ok(_) => {
                    self.seen += self.pending.len() as u64 + 1;
                    self.pending.clear();
                    piece = rest;
                }
                Err(e) if e.error_len().is_none() => {
                    self.pending.push(byte);
                    piece = rest;
                }
                // The byte does not continue the character; it may begin another.
                Err(_) => self.reject_pending(),
            }
        }
        while let Err(e) = std::str::from_utf8(piece) {
            self.seen += e.valid_up_to() as u64;
            piece = &piece[e.valid_up_to()..];
            match e.error_len() {
                Some(len) => {
                    self.reject(len as u64);
                    piece = &piece[len..];
                }
                None => {
                    self.pending = piece.to_vec();
                    return;
                }
            }
        }
        self.seen += piece.len() as u64;
    }

    fn finish(&mut self) {
        if !self.pending.is_empty() {
            self.reject_pending();
        }
    }

    fn reject_pending(&mut self) {
        let len = self.pending.len() as u64;
        self.pending.clear();
        self.reject(len);
    }

    fn reject(&mut self, len: u64) {
        self.first.get_or_insert(self.seen);
        self.invalid += 1;
        self.seen += len;
    }
}

#[cfg(test)]
#[path = "prepare_tests.rs"]
mod tests;
