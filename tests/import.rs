//! Published `.pth` files: what is in them arrives whole, and nothing in them is obeyed.
#![cfg(feature = "import")]

mod pth;

use std::io::Cursor;

use grug::checkpoint::Checkpoint;
use grug::config::Positions;
use grug::error::{Error, ErrorKind};
use grug::import::pickle::{Pickle, Value};
use grug::import::zip::ZipReader;
use grug::import::{Generation, Imported, PublishedConfig, read_from, read_pth};
use grug::manifest::ModelTensors;
use pth::{FIXTURES, Pickler, Pth, ZipWriter, fixture, fixture_pth, small_values};
use serde_json::{Value as Json, json};

fn read(pth: &Pth) -> Result<Imported, Error> {
    read_from(Cursor::new(pth.file()))
}

/// Asserts that a file is refused with a message that has all of these words.
fn refused(file: Vec<u8>, words: &[&str]) {
    let read = read_from(Cursor::new(file)).map(drop);
    let error = read.expect_err(&format!("a file was accepted that should fail for {words:?}"));
    for word in words {
        assert!(error.message().contains(word), "{word:?} is not in: {error}");
    }
    assert!(!error.message().contains('\n'), "more than one line: {error}");
    assert!(error.message().len() < 1000, "{} bytes of message", error.message().len());
}

#[test]
fn every_fixture_becomes_a_model() {
    let folder = tempfile::tempdir().unwrap();
    for name in FIXTURES {
        let imported = read_pth(&fixture_pth(name)).unwrap();
        let config: Json =
            serde_json::from_str(&std::fs::read_to_string(fixture(name, "config.json")).unwrap()).unwrap();
        for (key, value) in config.as_object().unwrap() {
            let ours = &imported.config.to_map()[key];
            assert!(
                ours == value || ours.as_f64().is_some() && ours.as_f64() == value.as_f64(),
                "{name}: {key} is {ours}, not {value}"
            );
        }
        let (generation, window) = match name {
            "learned_cnn" => (Generation::Learned, 40),
            "learned_plain" => (Generation::Learned, 32),
            "sinusoidal_cnn_relu" => (Generation::Sinusoidal, 24),
            "parallel_cnn" => (Generation::Later, 36),
            _ => (Generation::Later, 32),
        };
        assert_eq!(imported.config.generation, generation, "{name}");
        assert_eq!(imported.model.window_bytes(), window, "{name}");
        assert_eq!(imported.model.pad_short_input, generation == Generation::Later, "{name}");
        assert_eq!(
            imported.model.positions == Positions::Learned,
            generation == Generation::Learned,
            "{name}"
        );
        assert_eq!(imported.model.ffn_gamma, if name == "curved" { -0.02 } else { 0.0 }, "{name}");
        assert_eq!(imported.metadata["published.step"], "150", "{name}");

        let path = folder.path().join(format!("{name}.safetensors"));
        imported.save(&path).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.config(), &imported.model, "{name}");
        assert_eq!(checkpoint.metadata()["published.generation"], generation.name());
        let map = serde_json::from_str(&checkpoint.metadata()["published.config"]).unwrap();
        assert_eq!(PublishedConfig::from_map(&map, Some(generation)).unwrap(), imported.config, "{name}");
        for (spec, tensor) in
            ModelTensors::specs(checkpoint.config()).into_leaves().iter().zip(&imported.tensors)
        {
            assert_eq!(checkpoint.tensor(spec).unwrap().to_f32(), tensor.values, "{name}: {}", spec.name);
        }
    }
}

#[test]
fn numbers_are_those_that_another_program_wrote() {
    let imported = read_pth(&fixture_pth("curved")).unwrap();
    let bytes = std::fs::read(fixture("curved", "state_dict.safetensors")).unwrap();
    let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for tensor in &imported.tensors {
        let name = tensor.name.replace(".linear", ".ffn.linear");
        let expected: Vec<f32> = reference
            .tensor(&name)
            .unwrap()
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect();
        assert_eq!(tensor.values, expected, "{name}");
    }
    // All but the position table, which is a buffer.
    assert_eq!(imported.tensors.len(), reference.len() - 1);
}

#[test]
fn deflated_archives_and_every_float_type_are_read() {
    let mut pth = Pth::small();
    pth.deflate = true;
    // Quarters are exact in every type.
    let values = |t: &pth::Tensor| -> Vec<f32> { (0..t.len).map(|i| (i % 16) as f32 / 4.0 - 2.0).collect() };
    let types = ["DoubleStorage", "HalfStorage", "BFloat16Storage", "FloatStorage"];
    for (i, tensor) in pth.tensors.values_mut().enumerate() {
        let values = values(tensor);
        tensor.storage_type = types[i % types.len()];
        tensor.bytes = match tensor.storage_type {
            "DoubleStorage" => values.iter().flat_map(|&v| (v as f64).to_le_bytes()).collect(),
            "HalfStorage" => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            "BFloat16Storage" => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|&v| v.to_le_bytes()).collect(),
        };
    }
    let imported = read(&pth).unwrap();
    for tensor in &imported.tensors {
        assert_eq!(tensor.values, values(&pth.tensors[&tensor.name]), "{}", tensor.name);
    }
}

#[test]
fn views_with_strides_and_offsets_and_wrapped_names_are_read() {
    let mut pth = Pth::small();
    let plain = read(&pth).unwrap();
    // A transposed view of a transposed storage, behind five numbers of padding, is the same matrix.
    let name = "byte_stream_encoder.0.linear1.weight";
    let tensor = pth.tensors.get_mut(name).unwrap();
    let (rows, columns) = (tensor.shape[0] as usize, tensor.shape[1] as usize);
    let index = plain.tensors.iter().position(|t| t.name == name).unwrap();
    let values = &plain.tensors[index].values;
    let mut transposed = vec![9.0; 5];
    transposed.extend((0..rows * columns).map(|i| values[(i % rows) * columns + i / rows]));
    let shape = tensor.shape.clone();
    *tensor = pth::Tensor::f32(&tensor.key, &[transposed.len()], &transposed);
    (tensor.shape, tensor.offset, tensor.strides) = (shape, 5, vec![1, rows as i64]);
    // The names as the later code, several devices and torch.compile write them.
    pth.tensors = pth
        .tensors
        .into_iter()
        .map(|(name, tensor)| {
            let name = name.replace(".linear1.", ".ffn.0.").replace(".linear2.", ".ffn.3.");
            (format!("module._orig_mod.{name}"), tensor)
        })
        .collect();
    let read = read(&pth).unwrap();
    assert_eq!(read, plain);
    for (i, (tensor, spec)) in read.tensors.iter().zip(Pth::specs(&read.model)).enumerate() {
        assert_eq!(tensor.values, small_values(&spec, i), "{}", spec.name);
    }
}

#[test]
fn a_newer_pickle_protocol_is_read() {
    let mut pickle = Pickler(vec![0x80, 4, 0x95]);
    pickle.raw(&200u64.to_le_bytes());
    pickle.op(b'}').op(0x94).op(b'(');
    pickle.op(0x8c).op(1).raw(b"a").op(0x94);
    pickle.op(0x8c).op(11).raw(b"collections").op(0x94).op(0x8c).op(11).raw(b"OrderedDict").op(0x94);
    pickle.op(0x93).op(0x94).op(b']').op(b'(').text("k").int(7).op(0x86).op(b'e').op(0x85).op(b'R');
    pickle.op(b'h').op(1).op(b'C').op(2).raw(b"\x00\xff").op(b'u').op(b'.');
    let pickle = Pickle::parse(&pickle.0).unwrap();
    // "a" is set twice, and the second is memo 1 again: the last counts.
    let a = pickle.entry(pickle.root(), "a").unwrap();
    assert_eq!(pickle.get(a), &Value::Bytes(b"\x00\xff"));
    let Value::Dict(entries) = pickle.get(pickle.root()) else { panic!("no dict") };
    let first = pickle.entry(entries[0].1, "k").unwrap();
    assert_eq!(pickle.get(first), &Value::Int(7));
}

#[test]
fn missing_keys_take_the_shapes_of_the_weights_and_published_defaults() {
    let mut pth = Pth::small();
    let whole = read(&pth).unwrap();
    let map = pth.config.as_object_mut().unwrap();
    for key in [
        "embedding_dim",
        "use_cnn_frontend",
        "num_byte_stream_layers",
        "num_agg_stream_layers",
        "agg_cnn_kernel_size",
        "agg_cnn_stride",
        "agg_cnn_out_dim",
        "attention_d_model",
        "ffn_dim_multiply",
        "vocab_size",
    ] {
        assert!(map.remove(key).is_some(), "{key}");
    }
    map.insert("a_key_of_tomorrow".into(), json!({"x": [1, null]}));
    let derived = read(&pth).unwrap();
    assert_eq!(derived.model, whole.model);
    assert_eq!(derived.config.unknown["a_key_of_tomorrow"], json!({"x": [1, null]}));
    assert_eq!(derived.config.lr_warmup_steps, 20_000);

    let learned = PublishedConfig::defaults(Generation::Learned).to_model_config().unwrap();
    assert_eq!((learned.context_bytes, learned.d_model, learned.n_heads), (1024, 512, 8));
    assert_eq!(learned.conv_frontend.unwrap().kernels, [9, 3]);
    let later = PublishedConfig::defaults(Generation::Later).to_model_config().unwrap();
    assert_eq!((later.context_bytes, later.d_model, later.n_heads), (256, 1024, 16));
    assert_eq!(later.aggregated_stream.unwrap().d_model, 1024);
}

#[test]
fn contradictions_are_named() {
    let spoil = |change: fn(&mut Pth)| {
        let mut pth = Pth::small();
        change(&mut pth);
        pth.file()
    };
    refused(spoil(|p| drop(p.tensors.remove("fc_out.bias"))), &["fc_out.bias", "missing"]);
    refused(
        spoil(|p| drop(p.tensors.insert("surplus".into(), pth::Tensor::f32("0", &[1], &[0.0])))),
        &["surplus", "does not call for"],
    );
    refused(
        spoil(|p| p.config["attention_d_model"] = json!(8)),
        &["byte_stream_projection.weight", "[4, 4]", "[8, 4]"],
    );
    refused(spoil(|p| p.config["attention_num_heads"] = json!(3)), &["n_heads = 3"]);
    refused(spoil(|p| p.config["attention_num_heads"] = json!(0)), &["n_heads = 0"]);
    refused(spoil(|p| p.config["sequence_length"] = json!(-4)), &["sequence_length = -4"]);
    refused(spoil(|p| p.config["sequence_length"] = json!("many")), &["sequence_length", "whole number"]);
    refused(spoil(|p| p.config["vocab_size"] = json!(257)), &["vocab_size = 257"]);
    refused(spoil(|p| p.config["cnn_padding_mode"] = json!(7)), &["cnn_padding_mode", "text"]);
    refused(spoil(|p| p.config["use_curved_ffn"] = json!(true)), &["ffn_gamma"]);
    refused(
        spoil(|p| {
            p.config["use_curved_ffn"] = json!(true);
            p.config["ffn_gamma"] = json!(0.5);
        }),
        &["agg_stream_encoder.0.linear1.bias", "plain", "use_curved_ffn"],
    );
    refused(
        spoil(|p| {
            for layer in ["linear1", "linear2"] {
                let tensor = p.tensors.remove(&format!("byte_stream_encoder.0.{layer}.bias")).unwrap();
                p.tensors.insert(format!("byte_stream_encoder.0.ffn.{layer}.bias"), tensor);
            }
        }),
        &["byte_stream_encoder.0.ffn.linear1.bias", "curved", "not set"],
    );
    refused(
        spoil(|p| {
            let table = pth::Tensor::f32("99", &[16, 4], &[0.0; 64]);
            p.tensors.insert("positional_encoder.pos_embedding.weight".into(), table);
        }),
        &["use_parallel_stream_model", "learned"],
    );
    refused(
        spoil(|p| {
            let tensor = p.tensors["fc_out.bias"].clone();
            p.tensors.insert("module.fc_out.bias".into(), tensor);
        }),
        &["fc_out.bias", "twice"],
    );
    refused(spoil(|p| p.config = json!([1, 2])), &["config is a list"]);
    refused(
        spoil(|p| p.tensors.get_mut("fc_out.bias").unwrap().storage_type = "IntStorage"),
        &["fc_out.bias", "integers"],
    );
}

#[test]
fn a_pickle_that_asks_for_more_than_tensors_is_refused() {
    let with = |pickle: &mut Pickler| Pth::small().file_with(&pickle.0);
    refused(
        with(Pickler::new().global("os", "system").text("true").op(0x85).op(b'R').op(b'.')),
        &["os.system", "refused"],
    );
    for (module, name) in [
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_tensor"),
        ("collections", "Counter"),
    ] {
        refused(
            with(Pickler::new().global(module, name).op(b'.')),
            &[&format!("{module}.{name}"), "refused"],
        );
    }
    // The same by way of STACK_GLOBAL, of a memoized name, and with a name that would upset a terminal.
    refused(with(Pickler::new().text("posix").text("system").op(0x93).op(b'.')), &["posix.system"]);
    refused(with(Pickler::new().global("a\u{1b}[31m", "b").op(b'.')), &["\\u{1b}"]);
    refused(with(Pickler::new().global(&"long".repeat(1000), "b").op(b'.')), &["…"]);
    // Opcodes that make objects.
    refused(with(Pickler::new().global("torch", "Size").op(b')').op(0x81).op(b'.')), &["NEWOBJ"]);
    refused(with(Pickler::new().op(b'(').raw(b"ios\nsystem\n.")), &["INST"]);
    refused(with(Pickler::new().op(0x82).op(1).op(b'.')), &["EXT"]);
    // Calls and attributes where there are none.
    refused(with(Pickler::new().text("f").op(b')').op(b'R').op(b'.')), &["calls text"]);
    refused(
        with(Pickler::new().global("torch", "FloatStorage").op(b')').op(b'R').op(b'.')),
        &["calls a constant"],
    );
    refused(with(Pickler::new().op(b']').op(b'}').op(b'b').op(b'.')), &["attributes of a list"]);
}

#[test]
fn broken_pickles_are_refused() {
    let pickle = Pth::small().pickle().0;
    for len in (0..pickle.len()).step_by(11) {
        refused(Pth::small().file_with(&pickle[..len]), &["pickle"]);
    }
    let with = |pickle: &mut Pickler| Pth::small().file_with(&pickle.0);
    refused(with(&mut Pickler(vec![0x80, 9, b'.'])), &["protocol 9"]);
    refused(with(&mut Pickler(b"(lp0\n.".to_vec())), &["protocol 2 or later"]);
    for (ops, word) in [
        (&b"."[..], "empty stack"),
        (b"t.", "MARK"),
        (b"N(a.", "empty stack"),
        (b"(\x85.", "empty stack"),
        (b"h\x05.", "memo 5"),
        (b"K\x01K\x02a.", "appends to an integer"),
        (b"}(K\x01u.", "without a value"),
        (b"]K\x01K\x02s.", "entry of a list"),
        (b"X\xff\xff\xff\xffab", "cut short"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffab", "cut short"),
        (b"X\x01\x00\x00\x00\xff.", "UTF-8"),
        (b"cmodule", "cut short"),
        (b"NQ.", "None where a tuple"),
        (b"\x8b\xff\xff\xff\xff.", "cut short"),
        (b"\xfe.", "0xfe"),
    ] {
        refused(with(Pickler::new().raw(ops)), &[word]);
    }
    refused(with(Pickler::new().op(b'N').op(b'.')), &["model_state_dict"]);
    refused(
        with(Pickler::new().op(b'}').text("model_state_dict").op(b'N').op(b's').op(b'.')),
        &["None, not a dict"],
    );
}

/// The time and memory of these would give a naive reader away: each is gigabytes, or endless, when it is followed.
#[test]
fn bombs_do_not_go_off() {
    let with = |pickle: &Pickler| Pth::small().file_with(&pickle.0);
    // Lists of lists, 100,000 deep: a recursive reader or destructor would overflow its stack.
    let mut deep = Pickler::new();
    deep.op(b'}').text("model_state_dict").op(b'}').op(b's').text("config").raw(&b"]".repeat(100_000));
    deep.raw(&b"a".repeat(99_999)).op(b's').op(b'.');
    refused(with(&deep), &["nested too deep"]);
    // The same with marks that are never taken.
    refused(with(Pickler::new().raw(&b"(".repeat(3_000_000))), &["deep"]);
    // A list of ten times the list before it, forty times over.
    let mut laughs = Pickler::new();
    laughs.op(b'}').text("model_state_dict").op(b'}').op(b's').text("config").op(b']').op(b'q').op(0);
    for level in 0..40 {
        laughs.op(b'0').op(b'(');
        for _ in 0..10 {
            laughs.op(b'h').op(level);
        }
        laughs.op(b'l').op(b'q').op(level + 1);
    }
    laughs.op(b's').op(b'.');
    refused(with(&laughs), &["nested too deep or too large"]);
    // A long text, a thousand times over.
    let mut echo = Pickler::new();
    echo.op(b'}')
        .text("model_state_dict")
        .op(b'}')
        .op(b's')
        .text("config")
        .op(b'(')
        .text(&"ha".repeat(500_000));
    echo.op(b'q').op(0);
    for _ in 0..1000 {
        echo.op(b'h').op(0);
    }
    refused(with(echo.op(b'l').op(b's').op(b'.')), &["too large"]);
    // A list inside itself.
    let mut cycle = Pickler::new();
    cycle.op(b'}').text("model_state_dict").op(b'}').op(b's').text("config").op(b']').op(b'q').op(0);
    cycle.op(b'h').op(0).op(b'a').op(b's').op(b'.');
    refused(with(&cycle), &["nested too deep"]);
    // A state dict that is its own value.
    let mut own = Pickler::new();
    own.op(b'}').op(b'q').op(0).text("model_state_dict").op(b'h').op(0).op(b's').op(b'.');
    refused(with(&own), &["from text to a dict"]);
    // More values, and more memo entries, than any checkpoint has.
    refused(with(Pickler::new().raw(&b"N".repeat(3_000_000))), &["more than 2097152 values"]);
    refused(with(Pickler::new().op(b'N').raw(&b"2".repeat(3_000_000))), &["values on its stack"]);
    let mut memo = Pickler::new();
    memo.op(b'N');
    for i in 0..100_000u32 {
        memo.op(b'r').raw(&i.wrapping_mul(40_503).to_le_bytes());
    }
    refused(with(memo.op(b'.')), &["model_state_dict"]);
    let mut memo = Pickler::new();
    refused(with(memo.op(b'N').raw(&[0x94; 3_000_000])), &["more than 2097152 memo entries"]);
    // An OrderedDict made of one long list, again and again.
    let mut copies = Pickler::new();
    copies.op(b']').op(b'(');
    for _ in 0..1000 {
        copies.op(b'N').op(b'N').op(0x86);
    }
    copies.op(b'e').op(0x85).op(b'q').op(1).global("collections", "OrderedDict").op(b'q').op(2);
    for _ in 0..10_000 {
        copies.op(b'h').op(2).op(b'h').op(1).op(b'R');
    }
    refused(with(&copies), &["entries in its lists and dicts"]);
    // A tensor of many dimensions, again and again.
    let mut tensors = Pickler::new();
    tensors.global("torch._utils", "_rebuild_tensor_v2").op(b'q').op(1);
    tensors.op(b'(').op(b'(').text("storage").global("torch", "FloatStorage").text("0").text("cpu").int(1);
    tensors.op(b't').op(b'Q').int(0).ints(&[1; 8]).ints(&[1; 8]).op(b't').op(b'q').op(2);
    for _ in 0..300_000 {
        tensors.op(b'h').op(1).op(b'h').op(2).op(b'R').op(b'0');
    }
    refused(with(&tensors), &["entries in its lists and dicts"]);
    // A pickle longer than any, packed small.
    let mut packed = Pth::small();
    packed.deflate = true;
    refused(packed.file_with(&vec![b'N'; 40 << 20]), &["data.pkl", "at most"]);
    refused(packed.file_with(&vec![b'N'; 30 << 20]), &["data.pkl", "zip bomb"]);
}

#[test]
fn hostile_tensors_are_refused() {
    let spoil = |change: fn(&mut pth::Tensor)| {
        let mut pth = Pth::small();
        change(pth.tensors.get_mut("fc_out.weight").unwrap());
        pth.file()
    };
    // (256, 12) out of one number.
    refused(
        spoil(|t| (t.strides, t.len, t.bytes) = (vec![0, 0], 1, vec![0; 4])),
        &["fc_out.weight", "repeats the numbers"],
    );
    refused(spoil(|t| t.strides = vec![13, 1]), &["fc_out.weight", "beyond its storage"]);
    refused(spoil(|t| t.strides = vec![i64::MAX, i64::MAX]), &["fc_out.weight", "beyond its storage"]);
    refused(spoil(|t| t.offset = 1), &["fc_out.weight", "beyond its storage"]);
    refused(spoil(|t| t.offset = i64::MAX), &["fc_out.weight", "beyond its storage"]);
    refused(spoil(|t| t.offset = -1), &["-1 where a size belongs"]);
    refused(spoil(|t| t.shape = vec![1 << 40, 1 << 40]), &["fc_out.weight", "shape"]);
    refused(spoil(|t| t.shape = vec![256]), &["1 dimensions and 2 strides"]);
    refused(spoil(|t| (t.shape, t.strides) = (vec![1; 9], vec![1; 9])), &["9 dimensions"]);
    refused(spoil(|t| t.len = i64::MAX), &["fc_out.weight", "is not as long as its"]);
    refused(spoil(|t| t.len = 1 << 40), &["fc_out.weight", "is not as long as its"]);
    refused(spoil(|t| t.bytes.truncate(100)), &["fc_out.weight", "is not as long as its"]);
    refused(spoil(|t| t.storage_type = "DoubleStorage"), &["fc_out.weight", "is not as long as its"]);
    // Every tensor a view of one storage: more numbers than there are.
    let mut shared = Pth::small();
    let big = shared.tensors["fc_out.weight"].clone();
    for tensor in shared.tensors.values_mut() {
        (tensor.key, tensor.len, tensor.bytes) = (big.key.clone(), big.len, big.bytes.clone());
    }
    refused(shared.file(), &["overlaps"]);
    // One storage under two types.
    let mut two = Pth::small();
    let key = two.tensors["fc_out.weight"].key.clone();
    two.tensors.get_mut("fc_out.bias").unwrap().key = key;
    refused(two.file(), &["fc_out.weight", "fc_out.bias", "disagree"]);
    // A storage packed 1000 to 1.
    let mut bomb = Pth::small();
    bomb.deflate = true;
    let tensor = bomb.tensors.get_mut("fc_out.weight").unwrap();
    (tensor.len, tensor.bytes) = (1 << 22, vec![0; 1 << 24]);
    refused(bomb.file(), &["fc_out.weight", "zip bomb"]);
}

#[test]
fn broken_archives_are_refused() {
    let whole = Pth::small().file();
    for len in (0..whole.len()).step_by(7) {
        refused(whole[..len].to_vec(), &[]);
    }
    refused(b"not a checkpoint".to_vec(), &["no zip archive"]);
    refused(vec![0x80, 2, b'}', b'.'], &["before PyTorch 1.6"]);
    // An end of the archive, but nothing of an archive.
    refused([&b"PK\x05\x06"[..], &[0; 18]].concat(), &["without a data.pkl"]);
    refused([&b"PK\x05\x06"[..], &[255; 16], &[0; 2]].concat(), &["beyond its end"]);
    // A record of entries that are not there, more than 2^63 of them.
    let mut record = [&b"PK\x06\x06"[..], &[0; 20], &[255; 16], &[0; 16]].concat();
    record.extend([&b"PK\x06\x07"[..], &[0; 16], b"PK\x05\x06", &[0; 18]].concat());
    refused(record, &["cut short"]);
    let archive = |fill: fn(&mut ZipWriter)| {
        let mut zip = ZipWriter::default();
        fill(&mut zip);
        zip.finish()
    };
    refused(archive(|z| z.entry("x/data.pkl", b"\x80\x02}.", false)), &["model_state_dict"]);
    refused(archive(|z| z.entry("x/y/data.pkl", b"", false)), &["without a data.pkl"]);
    refused(
        archive(|z| {
            z.entry("x/data.pkl", b"", false);
            z.entry("y/data.pkl", b"", false);
        }),
        &["more than one"],
    );
    refused(
        archive(|z| {
            z.entry("x/data.pkl", b"", false);
            z.entry("x/data.pkl", b"", false);
        }),
        &["two entries"],
    );
    refused(
        archive(|z| {
            z.entry("x/data.pkl", b"", false);
            z.entry("x/byteorder", b"big", false);
        }),
        &["big-endian"],
    );
    refused(archive(|z| z.entry_raw("x/data.pkl", 0, 0, b"abc", 2)), &["stored in 3 bytes but claims 2"]);
    refused(archive(|z| z.entry_raw("x/data.pkl", 12, 0, b"abc", 3)), &["method 12"]);
    refused(archive(|z| z.entry_raw("x/data.pkl", 8, 0, b"\xff\xff\xff", 3)), &["does not unpack"]);
    refused(archive(|z| z.entry_raw("x/data.pkl", 8, 0, b"\x03\x00", 3)), &["does not unpack"]);
    refused(archive(|z| z.entry_raw("x/data.pkl", 0, 0, b"abc", 3)), &["checksum"]);
    // Entries that share their bytes.
    let mut overlapping = ZipWriter::default();
    overlapping.entry("a", &[7; 1000], false);
    let mut again = overlapping.directory.clone();
    again[46] = b'b';
    overlapping.directory.extend(again);
    overlapping.entries = 2;
    let mut zip = ZipReader::open(Cursor::new(overlapping.finish())).unwrap();
    assert_eq!(zip.read("a").unwrap(), [7; 1000]);
    assert!(zip.read("b").unwrap_err().message().contains("overlaps"));
    // An entry where no file has bytes: what is wrong is the archive, not reading it.
    let mut far = ZipWriter::default();
    far.entry("x/data.pkl", b"", false);
    far.directory[30..32].copy_from_slice(&12u16.to_le_bytes());
    far.directory[42..46].fill(255);
    far.directory.extend([&[1, 0, 8, 0], &[255; 8][..]].concat());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("far.pth");
    std::fs::write(&path, far.finish()).unwrap();
    let error = read_pth(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Format, "{error}");
    assert!(error.message().contains("beyond"), "{error}");
    // One flipped bit in the numbers: the archive's checksum finds it.
    let mut flipped = whole.clone();
    let values = Pth::small().tensors["fc_out.weight"].bytes.clone();
    let at = flipped.windows(values.len()).position(|w| w == values).unwrap();
    flipped[at + 100] ^= 1;
    refused(flipped, &["fc_out.weight", "hecksum"]);
    let error = read_pth(std::path::Path::new("no/such.pth")).unwrap_err();
    assert!(error.message().contains("no/such.pth"), "{error}");
    assert!(read_pth(std::path::Path::new(env!("CARGO_MANIFEST_DIR"))).is_err());
}
