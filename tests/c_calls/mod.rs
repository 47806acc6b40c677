//! Any bytes as a sequence of calls of the C functions, with right and wrong arguments: structs that claim any size,
//! buffers exactly as long as they say, handles that live and die in any order. Whatever is asked, what the header
//! promises holds. Shared by the property test and the fuzz target, whose AddressSanitizer sees a byte read or written
//! too far.

mod arguments;

use std::ffi::c_char;
use std::ptr::{null, null_mut};
use std::sync::LazyLock;

use grug::ModelConfig;
use grug::ffi::batch::*;
use grug::ffi::cancel::*;
use grug::ffi::compress::*;
use grug::ffi::device::*;
use grug::ffi::error::*;
use grug::ffi::grammar::*;
use grug::ffi::model::*;
use grug::ffi::sampler::*;
use grug::ffi::session::*;
use grug::init::write_initial_model;

use arguments::{Exact, Handles, Input, Report, Room};

/// A model with a context of a few bytes, so that it slides often.
static MODEL_FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let toml = "context_bytes = 12\nembedding_dim = 4\nd_model = 4\nn_heads = 2\nn_layers = 1\nffn_multiplier = 2\n\
                positions = \"rotary\"\nconv_frontend = { channels = [3], kernels = [3] }\n";
    let config = ModelConfig::from_toml(toml).expect("a valid configuration");
    let folder = tempfile::tempdir().expect("a folder for the model");
    let path = folder.path().join("model.safetensors");
    write_initial_model(&path, &config, 1).expect("a valid model");
    std::fs::read(path).expect("what was written")
});

/// All zeros, which is how every struct of the header begins.
fn zeroed<T: Copy>() -> T {
    // SAFETY: used with the structs of the header alone, which are numbers and pointers.
    unsafe { std::mem::zeroed() }
}

/// All handles. They are freed in the order of the fields: what others were made from comes before them and after.
struct World {
    grammars: Handles<grug_grammar>,
    models: Handles<grug_model>,
    sessions: Handles<grug_session>,
    cancels: Handles<grug_cancel>,
    samplers: Handles<grug_sampler>,
    saved: Vec<u8>,
    archive: Vec<u8>,
}

/// Makes the calls.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut world = World {
        grammars: Handles::new(3, grug_grammar_free),
        models: Handles::new(2, grug_model_free),
        sessions: Handles::new(4, grug_session_free),
        cancels: Handles::new(2, grug_cancel_free),
        samplers: Handles::new(3, grug_sampler_free),
        saved: Vec::new(),
        archive: Vec::new(),
    };
    let mut model = null_mut();
    let options = grug_model_options {
        size: size_of::<grug_model_options>(),
        n_threads: 1,
        flags: GRUG_MODEL_PORTABLE,
        ..zeroed()
    };
    // SAFETY: the arguments are as the header wants them.
    let status = unsafe {
        let file = &*MODEL_FILE;
        grug_model_load_buffer(file.as_ptr(), file.len(), GRUG_LOAD_BORROW, &options, &mut model, null_mut())
    };
    world.models.made(status, model, &mut Input(&[]));
    for _ in 0..100 {
        if input.0.is_empty() {
            break;
        }
        // SAFETY: pointers are NULL, or memory as long as the call is told; handles are alive; a borrowed model's file is
        // static.
        unsafe { world.call(&mut input) };
    }
}

impl World {
    unsafe fn call(&mut self, input: &mut Input<'_>) {
        // SAFETY: as the caller says.
        unsafe {
            match input.below(10) {
                0 => self.make_or_free(input),
                1 => self.ask_model(input),
                2 => self.use_sampler(input),
                3 => self.compress(input),
                4 => self.batch(input),
                _ => self.use_session(input),
            }
        }
    }

    unsafe fn make_or_free(&mut self, input: &mut Input<'_>) {
        let report = Report::new(input);
        // SAFETY: as the caller says.
        unsafe {
            match input.below(10) {
                0 => {
                    let (device, cancel) =
                        (input.text(&[c"cpu", c"", c"nonsense", c"cpu"]), self.cancels.any(input));
                    let options = grug_model_options {
                        size: 0,
                        device: if input.one_in(2) { device.at() } else { null() },
                        n_threads: input.below(3) as u32,
                        flags: if input.one_in(2) { input.word() } else { input.below(16) as u32 },
                        cancel,
                        ..zeroed()
                    };
                    let options = input.options(options);
                    let cut = if input.one_in(3) { input.byte() as usize } else { 0 };
                    let len = MODEL_FILE.len() - cut;
                    let mode = input.below(3) as u32;
                    let copied = Exact::new(&MODEL_FILE[..if mode == GRUG_LOAD_BORROW { 0 } else { len }]);
                    let data = if mode == GRUG_LOAD_BORROW { MODEL_FILE.as_ptr() } else { copied.at() };
                    let mut out = null_mut();
                    let status = grug_model_load_buffer(data, len, mode, options.at(), &mut out, report.at());
                    self.models.made(report.check(status), out, input);
                }
                1 => {
                    let cancel = self.cancels.any(input);
                    let options = grug_session_options {
                        size: 0,
                        max_context: if input.one_in(2) {
                            input.word().into()
                        } else {
                            input.below(14) as u64
                        },
                        overflow: input.below(3) as u32,
                        flags: input.below(3) as u32,
                        cancel,
                    };
                    let (options, model) = (input.options(options), self.models.any(input));
                    let mut out = null_mut();
                    let status = grug_session_new(model, options.at(), &mut out, report.at());
                    self.sessions.made(report.check(status), out, input);
                }
                2 => self.new_sampler(input),
                3 => {
                    let known = [c"[a-f]+", c"root ::= \"a\" root | \"b\"", c"{\"type\":\"boolean\"}", c""];
                    let source = input.text(&known);
                    let kind = input.below(5) as u32;
                    let mut out = null_mut();
                    let status = grug_grammar_new(
                        kind,
                        source.at(),
                        source.bytes().len() - usize::from(!input.one_in(9)),
                        &mut out,
                        report.at(),
                    );
                    self.grammars.made(report.check(status), out, input);
                }
                4 => {
                    let token = grug_cancel_new();
                    self.cancels.made(GRUG_OK, token, input);
                }
                5 => grug_cancel_trigger(self.cancels.any(input)),
                6 => grug_cancel_reset(self.cancels.any(input)),
                7 => {
                    let mut out = null_mut();
                    let status = grug_session_fork(self.sessions.any(input), &mut out, report.at());
                    self.sessions.made(report.check(status), out, input);
                }
                8 => {
                    let mut out = null_mut();
                    let status = grug_sampler_fork(self.samplers.any(input), &mut out, report.at());
                    self.samplers.made(report.check(status), out, input);
                }
                _ => match input.below(5) {
                    0 => self.models.free_any(input),
                    1 => self.sessions.free_any(input),
                    2 => self.samplers.free_any(input),
                    3 => self.grammars.free_any(input),
                    _ => self.cancels.free_any(input),
                },
            }
        }
    }

    unsafe fn new_sampler(&mut self, input: &mut Input<'_>) {
        let report = Report::new(input);
        let mut bias = [0f32; 256];
        for _ in 0..input.below(4) {
            bias[input.byte() as usize] = input.float();
        }
        let bias = Exact::new(bias.map(f32::to_ne_bytes).as_flattened());
        let options = grug_sampler_options {
            size: 0,
            seed: input.word().into(),
            temperature: input.float(),
            top_p: input.float(),
            min_p: input.float(),
            typical_p: input.float(),
            top_k: if input.one_in(9) { input.word() } else { input.below(9) as u32 },
            penalty_window: if input.one_in(9) { input.word() } else { input.below(9) as u32 },
            repeat_penalty: input.float(),
            frequency_penalty: input.float(),
            presence_penalty: input.float(),
            mirostat_tau: input.float(),
            mirostat_eta: input.float(),
            flags: input.below(3) as u32,
            bias: if input.one_in(3) { bias.at() } else { null() },
            grammar: self.grammars.any(input),
        };
        let options = input.options(options);
        let mut out = null_mut();
        // SAFETY: as the caller says.
        let status = unsafe { grug_sampler_new(options.at(), &mut out, report.at()) };
        self.samplers.made(report.check(status), out, input);
    }

    unsafe fn ask_model(&mut self, input: &mut Input<'_>) {
        let report = Report::new(input);
        let model = self.models.any(input);
        // SAFETY: as the caller says.
        unsafe {
            match input.below(5) {
                0 => {
                    let out = input.options(zeroed::<grug_model_info>());
                    report.check(grug_model_get_info(model, out.at(), report.at()));
                }
                1 => {
                    let out = input.options(zeroed::<grug_device>());
                    let i = input.below(3) as u32;
                    assert!(grug_device_count() >= 1);
                    report.check(grug_device_get(i, out.at(), report.at()));
                }
                which => {
                    let key = input.text(&[c"grug.config", c"none"]);
                    let mut room = Room::new(input, 500);
                    let status = if which == 2 {
                        let i = input.below(5);
                        grug_model_get_metadata_key(model, i, room.memory(), room.len(), report.at())
                    } else {
                        let key = if input.one_in(9) { null() } else { key.at::<c_char>().cast_const() };
                        grug_model_get_metadata(model, key, room.memory(), room.len(), report.at())
                    };
                    room.check(report.check(status));
                }
            }
        }
    }

    unsafe fn use_sampler(&mut self, input: &mut Input<'_>) {
        let report = Report::new(input);
        let sampler = self.samplers.any(input);
        // SAFETY: as the caller says.
        unsafe {
            match input.below(5) {
                0 => {
                    report.check(grug_sampler_reset(sampler, input.word().into(), report.at()));
                }
                1 => {
                    let mask = Exact::untouched(32);
                    let status = report.check(grug_sampler_allowed(sampler, mask.at(), report.at()));
                    assert!(status <= 1);
                    assert!(status >= 0 || mask.is_untouched_from(0));
                }
                2 => {
                    report.check(grug_sampler_accept(sampler, input.byte(), report.at()));
                }
                _ => {
                    let mut logits = [0f32; 256];
                    for _ in 0..input.below(9) {
                        logits[input.byte() as usize] = input.float();
                    }
                    let logits = Exact::new(logits.map(f32::to_ne_bytes).as_flattened());
                    report.check(grug_sampler_pick(sampler, logits.at(), report.at()));
                }
            }
        }
    }

    unsafe fn use_session(&mut self, input: &mut Input<'_>) {
        let report = Report::new(input);
        let session = self.sessions.any(input);
        // SAFETY: as the caller says.
        unsafe {
            let before = grug_session_position(session);
            let after = match input.below(12) {
                0 => {
                    let data = input.source(40);
                    let len = data.bytes().len();
                    match report.check(grug_session_feed(session, data.at(), len, report.at())) {
                        GRUG_OK => Some(before + len as u64),
                        _ => None,
                    }
                }
                1 => match report.check(grug_session_next(session, self.samplers.any(input), report.at())) {
                    0.. => Some(before + 1),
                    _ => None,
                },
                2 | 3 => Some(before + self.generate(session, input)),
                4 => {
                    let data = input.source(40);
                    let len = data.bytes().len();
                    let nats = Exact::untouched(len * size_of::<f32>());
                    let to = if input.one_in(4) { null_mut() } else { nats.at::<f32>() };
                    let total = Exact::untouched(size_of::<f64>());
                    let status = grug_session_score(session, data.at(), len, to, total.at(), report.at());
                    assert_eq!(report.check(status) == GRUG_OK, !total.is_untouched_from(0));
                    (status == GRUG_OK).then_some(before + len as u64)
                }
                5 => {
                    let logits = Exact::untouched(1024);
                    let status = report.check(grug_session_get_logits(session, logits.at(), report.at()));
                    assert_eq!(status == GRUG_OK, !logits.is_untouched_from(0));
                    Some(before)
                }
                6 => {
                    let dim = input.below(6);
                    let out = Exact::untouched(dim * size_of::<f32>());
                    let status = grug_session_get_embedding(session, out.at(), dim, report.at());
                    assert_eq!(report.check(status) == GRUG_OK, !out.is_untouched_from(0));
                    Some(before)
                }
                7 => {
                    let n = if input.one_in(5) {
                        u64::MAX - u64::from(input.word())
                    } else {
                        input.below(20) as u64
                    };
                    match report.check(grug_session_rewind(session, n, report.at())) {
                        GRUG_OK => Some(before - n),
                        _ => Some(before),
                    }
                }
                8 => {
                    let mut room = Room::new(input, 4000);
                    let status = grug_session_save(session, room.memory(), room.len(), report.at());
                    if let Some(state) = room.check(report.check(status)) {
                        self.saved = state.to_vec();
                    }
                    Some(before)
                }
                9 => {
                    let mut state = self.saved.clone();
                    if input.one_in(3) && !state.is_empty() {
                        let i = input.word() as usize % state.len();
                        state[i] ^= input.byte();
                    }
                    let state = Exact::new(&state);
                    let len = state.bytes().len();
                    match report.check(grug_session_restore(session, state.at(), len, report.at())) {
                        GRUG_OK => None,
                        _ => Some(before),
                    }
                }
                10 => {
                    report.check(grug_session_set_cancel(session, self.cancels.any(input), report.at()));
                    Some(before)
                }
                _ => match report.check(grug_session_reset(session, report.at())) {
                    GRUG_OK => Some(0),
                    _ => Some(before),
                },
            };
            assert!(after.is_none_or(|after| after == grug_session_position(session)));
        }
    }

    /// How many bytes were generated.
    unsafe fn generate(&mut self, session: *mut grug_session, input: &mut Input<'_>) -> u64 {
        let report = Report::new(input);
        let sampler = self.samplers.any(input);
        let texts: Vec<Exact> = (0..input.below(20)).map(|_| input.source(4)).collect();
        let stops: Vec<grug_bytes> = texts
            .iter()
            .map(|text| {
                let data = if input.one_in(40) { null() } else { text.at::<u8>().cast_const() };
                grug_bytes { data, len: text.bytes().len() }
            })
            .collect();
        // SAFETY: grug_bytes is a pointer and a number, without padding.
        let stops_memory = unsafe {
            Exact::new(std::slice::from_raw_parts(stops.as_ptr().cast::<u8>(), size_of_val(&stops[..])))
        };
        let buf = Exact::untouched(input.below(40));
        let (cap, mut n) = (buf.bytes().len(), 99);
        // SAFETY: as the caller says.
        let status = unsafe {
            let stops_at = stops_memory.at();
            grug_session_generate(session, sampler, stops_at, stops.len(), buf.at(), cap, &mut n, report.at())
        };
        let status = report.check(status);
        assert!(n <= cap && status <= GRUG_STOP_GRAMMAR && buf.is_untouched_from(n));
        assert!(status != GRUG_STOP_CAPACITY || n == cap);
        if status == GRUG_STOP_SEQUENCE {
            assert!(!texts.is_empty());
        }
        n as u64
    }

    unsafe fn batch(&mut self, input: &mut Input<'_>) {
        let report = Report::new(input);
        let n = input.below(6);
        let sessions: Vec<_> = (0..n)
            .map(|i| match self.sessions.list.get(i) {
                Some(session) if !input.one_in(8) => *session,
                _ => self.sessions.any(input),
            })
            .collect();
        let samplers: Vec<_> = (0..n)
            .map(|i| self.samplers.list.get(i).copied().filter(|_| !input.one_in(4)).unwrap_or(null_mut()))
            .collect();
        let bytes: Vec<i32> = (0..n)
            .map(|_| match input.below(4) {
                0 | 1 => -1,
                2 => input.byte().into(),
                _ => input.word() as i32 % 300,
            })
            .collect();
        let out = Exact::untouched(n * size_of::<i32>());
        // SAFETY: as the caller says.
        unsafe {
            let positions = |sessions: &[*mut grug_session]| -> Vec<u64> {
                sessions.iter().map(|session| grug_session_position(*session)).collect()
            };
            let before = positions(&sessions);
            let status = grug_session_next_batch(
                sessions.as_ptr(),
                if input.one_in(4) { null() } else { samplers.as_ptr() },
                if input.one_in(2) { null() } else { bytes.as_ptr() },
                n,
                out.at(),
                report.at(),
            );
            let after = positions(&sessions);
            if report.check(status) == GRUG_OK {
                let picked = std::slice::from_raw_parts(out.at::<i32>(), n);
                for i in 0..n {
                    assert!((GRUG_EUNSUPPORTED..=255).contains(&picked[i]), "{}", picked[i]);
                    assert_eq!(after[i] - before[i], u64::from(picked[i] >= 0));
                }
            } else {
                assert!(before == after && out.is_untouched_from(0));
            }
        }
    }

    unsafe fn compress(&mut self, input: &mut Input<'_>) {
        let report = Report::new(input);
        let (model, cancel) = (self.models.any(input), self.cancels.any(input));
        let options = grug_session_options {
            size: 0,
            max_context: input.below(14) as u64,
            cancel: if input.one_in(4) { cancel } else { null() },
            ..zeroed()
        };
        let options = input.options(options);
        // SAFETY: as the caller says.
        unsafe {
            if input.one_in(2) {
                let source = input.source(30);
                let mut room = Room::new(input, 600);
                let len = source.bytes().len();
                let status = grug_compress(
                    model,
                    options.at(),
                    source.at(),
                    len,
                    room.memory(),
                    room.len(),
                    report.at(),
                );
                if let Some(archive) = room.check(report.check(status)) {
                    assert!(archive.len() <= len + len / 64 + 64);
                    self.archive = archive.to_vec();
                }
            } else {
                let mut archive = self.archive.clone();
                if input.one_in(3) && !archive.is_empty() {
                    let i = input.below(archive.len());
                    archive[i] ^= input.byte();
                }
                let archive = Exact::new(&archive);
                let mut room = Room::new(input, 100);
                let len = archive.bytes().len();
                let status = grug_decompress(
                    model,
                    options.at(),
                    archive.at(),
                    len,
                    room.memory(),
                    room.len(),
                    report.at(),
                );
                room.check(report.check(status));
            }
        }
    }
}
