//! Preparation: order, bytes, reuse, refusals.

use super::*;
use crate::dataset::Corpus;
use proptest::prelude::*;

fn job(sources: &[PathBuf], output: PathBuf) -> Preparation {
    Preparation {
        sources: sources.to_vec(),
        output,
        force: false,
        strict_utf8: false,
        dummy_if_empty: false,
        seed: 1,
    }
}

fn run(job: &Preparation) -> Result<Prepared> {
    prepare(job, &mut |_| {})
}

#[test]
fn folders_come_in_order_and_files_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (b, a) = (dir.path().join("b"), dir.path().join("a"));
    for folder in [&a, &b] {
        std::fs::create_dir(folder).unwrap();
    }
    std::fs::write(b.join("2.txt"), "zwei").unwrap();
    std::fs::write(b.join("10.txt"), "zehn").unwrap();
    std::fs::write(b.join("notes.md"), "not text").unwrap();
    std::fs::create_dir(b.join("folder.txt")).unwrap();
    std::fs::write(a.join("x.txt"), "ü\r\n").unwrap();
    let single = dir.path().join("single.text");
    std::fs::write(&single, "end").unwrap();
    let expected = "zehnzweiü\r\nend".as_bytes();
    for name in ["corpus.bin", "all_bytes_grug_v3.npy"] {
        let job = job(&[b.clone(), a.clone(), single.clone()], dir.path().join("new/deep").join(name));
        let mut steps = Vec::new();
        let made = prepare(&job, &mut |p| steps.push((p.done, p.total))).unwrap();
        assert_eq!(Corpus::open(&made.path).unwrap().bytes(), expected);
        assert_eq!((made.bytes, made.files.len(), made.invalid_utf8, made.up_to_date), (15, 4, 0, false));
        assert_eq!(steps.last(), Some(&(15, 15)));
    }
}

#[test]
fn an_unchanged_corpus_is_not_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("a.txt");
    std::fs::write(&text, "old text").unwrap();
    let mut job = job(std::slice::from_ref(&text), dir.path().join("c.bin"));
    assert!(!run(&job).unwrap().up_to_date);
    assert!(run(&job).unwrap().up_to_date);
    job.force = true;
    assert!(!run(&job).unwrap().up_to_date);
    job.force = false;
    // The same length, but changed after the byte file was made.
    std::fs::write(&text, "new text").unwrap();
    let later = SystemTime::now() + std::time::Duration::from_secs(5);
    File::options().write(true).open(&text).unwrap().set_modified(later).unwrap();
    assert!(!run(&job).unwrap().up_to_date);
    assert_eq!(Corpus::open(&job.output).unwrap().bytes(), b"new text");
    // A shorter text, as old as it likes.
    std::fs::write(&text, "new").unwrap();
    File::options().write(true).open(&text).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(run(&job).unwrap().bytes, 3);
    std::fs::remove_file(&text).unwrap();
    let kept = run(&job).unwrap();
    assert!(kept.up_to_date && kept.bytes == 3 && kept.files.is_empty());
}

#[test]
fn bytes_that_are_not_utf8_are_kept_and_counted_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("a.txt");
    let bytes = b"gr\xfcn \xe2\x82 \xf0\x9f\x99\x82 end\xe2\x82";
    std::fs::write(&text, bytes).unwrap();
    let mut job = job(&[text], dir.path().join("c.bin"));
    let made = run(&job).unwrap();
    assert_eq!(made.invalid_utf8, 3);
    assert_eq!(Corpus::open(&made.path).unwrap().bytes(), bytes);
    (job.strict_utf8, job.force) = (true, true);
    let before = std::fs::read(&job.output).unwrap();
    let error = run(&job).unwrap_err();
    assert!(error.message().contains("a.txt: is not UTF-8 at byte 2"), "{error}");
    assert_eq!(std::fs::read(&job.output).unwrap(), before);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing half-written stays");
}

#[test]
fn made_up_text_comes_only_where_asked_for_and_nothing_is() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("text");
    std::fs::create_dir(&folder).unwrap();
    let mut job = job(std::slice::from_ref(&folder), dir.path().join("c.bin"));
    assert!(run(&job).unwrap_err().message().contains("has no .txt file"));
    job.dummy_if_empty = true;
    let made = run(&job).unwrap();
    assert_eq!((made.made_up, made.files.len()), (5, 5));
    let corpus = Corpus::open(&made.path).unwrap();
    assert_eq!(corpus.bytes().iter().filter(|&&b| b == b'\n').count(), 50_000);
    assert!(std::str::from_utf8(corpus.bytes()).is_ok());
    assert!(run(&job).unwrap().up_to_date);
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("real.txt"), "real").unwrap();
    let job = Preparation { sources: vec![other.clone()], force: true, ..job };
    assert_eq!((run(&job).unwrap().made_up, std::fs::read_dir(other).unwrap().count()), (0, 1));
}

#[test]
fn bad_sources_and_outputs_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("a.txt");
    std::fs::write(&text, "x").unwrap();
    let blank = dir.path().join("blank.txt");
    std::fs::write(&blank, "").unwrap();
    let bin = dir.path().join("c.bin");
    let missing = dir.path().join("missing");
    let numpy = dir.path().join("old.npy");
    std::fs::write(&numpy, npy::header(0)).unwrap();
    for (job, part) in [
        (job(&[], bin.clone()), "data.sources"),
        (job(std::slice::from_ref(&missing), bin.clone()), "missing"),
        (job(&[text.clone(), dir.path().to_owned()], bin.clone()), "twice"),
        (job(&[blank], bin.clone()), "empty"),
        (job(&[text.clone(), numpy], bin), "data.prepared"),
        (job(std::slice::from_ref(&text), dir.path().join("c.txt")), "must end in .bin or .npy"),
        (job(std::slice::from_ref(&text), text.join("c.bin")), "a.txt"),
    ] {
        let error = run(&job).unwrap_err();
        assert!(error.message().contains(part), "{part}: {error}");
    }
}

proptest! {
    /// However a text is cut, the check finds what it finds in the whole.
    #[test]
    fn pieces_do_not_change_the_utf8_check(
        parts in proptest::collection::vec(
            proptest::sample::select(vec![
                &b"a"[..], "ü".as_bytes(), "€".as_bytes(), "🙂".as_bytes(), b"\xff", b"\xe2\x82", b"\xf0\x9f", b"\x80", b"\xc3",
            ]), 0..12),
        cut in 1usize..5,
    ) {
        let text = parts.concat();
        let check = |size: usize| {
            let mut check = Utf8Check::default();
            text.chunks(size).for_each(|piece| check.feed(piece));
            check.finish();
            (check.invalid, check.first, check.seen)
        };
        let whole = check(text.len().max(1));
        prop_assert_eq!(check(cut), whole);
        prop_assert_eq!(whole.0 as usize, text.utf8_chunks().filter(|c| !c.invalid().is_empty()).count());
        prop_assert_eq!(whole.2, text.len() as u64);
    }
}
