//! What we write for other programs is read by those programs: NumPy and TensorBoard.
//!
//! They need Python with the packages `numpy` and `tensorboard`; `GRUG_PYTHON` names the interpreter (else `python3`).
//! Where they are missing, a test says so and checks nothing.

use std::path::Path;
use std::process::Command;

use grug_trainer::dataset::Corpus;
use grug_trainer::dataset::prepare::{Preparation, prepare};
use grug_trainer::telemetry::tensorboard::EventWriter;
use serde_json::Value;

#[path = "../../tests/common/skip.rs"]
mod skip;
use skip::skip;

/// Runs a Python program with these arguments and returns what it prints, or none where a package is missing.
fn python(package: &str, program: &str, arguments: &[&Path]) -> Option<String> {
    let interpreter = std::env::var("GRUG_PYTHON").unwrap_or_else(|_| "python3".into());
    let has_package = Command::new(&interpreter).args(["-c", &format!("import {package}")]).output();
    if !has_package.is_ok_and(|output| output.status.success()) {
        skip(format_args!(
            "needs a Python with {package}: pip install {package}, and GRUG_PYTHON=its python3"
        ));
        return None;
    }
    let output = Command::new(&interpreter).arg("-c").arg(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn numpy_reads_ours_and_we_read_numpys() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("a.txt");
    let bytes: Vec<u8> = (0..=255).cycle().take(100_003).collect();
    std::fs::write(&text, &bytes).unwrap();
    let ours = dir.path().join("all_bytes_grug_v3.npy");
    let theirs = dir.path().join("theirs.npy");
    let job = Preparation {
        sources: vec![text.clone()],
        output: ours.clone(),
        force: false,
        strict_utf8: false,
        dummy_if_empty: false,
        seed: 1,
    };
    prepare(&job, &mut |_| {}).unwrap();
    let program = "import sys, numpy\n\
                   a = numpy.load(sys.argv[1], mmap_mode='r')\n\
                   assert a.dtype == numpy.uint8 and a.tobytes() == open(sys.argv[2], 'rb').read()\n\
                   numpy.save(sys.argv[3], a)\n\
                   print(a.shape[0])\n";
    if let Some(printed) = python("numpy", program, &[&ours, &text, &theirs]) {
        assert_eq!(printed.trim(), "100003");
        assert_eq!(std::fs::read(&ours).unwrap(), std::fs::read(&theirs).unwrap());
        assert_eq!(Corpus::open(&theirs).unwrap().bytes(), bytes);
    }
}

#[test]
fn tensorboard_reads_our_events() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = EventWriter::create(dir.path(), 0).unwrap();
    for step in 1..=300 {
        first.scalar(step, "train/loss", 1.0 / step as f64).unwrap();
    }
    first.flush().unwrap();
    // Resumed after 250: what the first file says about later steps is forgotten.
    let mut second = EventWriter::create(dir.path(), 250).unwrap();
    second.scalar(1 << 40, "train/loss", -2.5).unwrap();
    second.flush().unwrap();
    let program = "import sys, json\n\
                   from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n\
                   a = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0, 'tensors': 0}).Reload()\n\
                   scalars = [[e.step, e.value, e.wall_time] for e in a.Scalars('train/loss')]\n\
                   print(json.dumps([a.Tags()['scalars'], scalars]))\n";
    let Some(printed) = python("tensorboard", program, &[dir.path()]) else { return };
    let read: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(read[0], serde_json::json!(["train/loss"]));
    let scalars = read[1].as_array().unwrap();
    assert_eq!(scalars.len(), 251);
    for (i, event) in scalars[..250].iter().enumerate() {
        let step = i as u64 + 1;
        assert_eq!(event[0], step);
        assert_eq!(event[1].as_f64().unwrap() as f32, 1.0 / step as f32);
    }
    assert_eq!((&scalars[250][0], &scalars[250][1]), (&(1u64 << 40).into(), &(-2.5).into()));
    assert!(scalars[0][2].as_f64().unwrap() > 1.6e9);
}

#[test]
fn tensorboard_shows_our_text() {
    let dir = tempfile::tempdir().unwrap();
    let mut events = EventWriter::create(dir.path(), 0).unwrap();
    events.text(7, "sample", "Größe 🙂").unwrap();
    events.flush().unwrap();
    let program = "import sys, json\n\
                   from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n\
                   a = EventAccumulator(sys.argv[1]).Reload()\n\
                   text = [[e.step, e.tensor_proto.string_val[0].decode()] for e in a.Tensors('sample')]\n\
                   print(json.dumps([text, a.SummaryMetadata('sample').plugin_data.plugin_name]))\n";
    let Some(printed) = python("tensorboard", program, &[dir.path()]) else { return };
    let read: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(read, serde_json::json!([[[7, "Größe 🙂"]], "text"]));
}
