//! The functions of the C API called from Rust: handles, buffers, errors and two threads on one session, where no C
//! compiler is at hand, and small enough for tools that watch every access. The C programs in `tests/c` say more.

use std::ffi::{CStr, c_char};
use std::ptr::{null, null_mut};

use grug::ModelConfig;
use grug::ffi::cancel::*;
use grug::ffi::error::*;
use grug::ffi::model::*;
use grug::ffi::sampler::*;
use grug::ffi::session::*;
use grug::manifest::ModelTensors;

/// A model file in memory, as small as models get.
fn model_file() -> Vec<u8> {
    model_file_of("positions = \"rotary\"\n")
}

/// The same with these lines in its configuration.
fn model_file_of(rest: &str) -> Vec<u8> {
    let toml =
        "context_bytes = 6\nembedding_dim = 2\nd_model = 2\nn_heads = 1\nn_layers = 1\nffn_multiplier = 1\n";
    let config = ModelConfig::from_toml(&format!("{toml}{rest}")).unwrap();
    let mut header = serde_json::Map::new();
    header.insert(
        "__metadata__".into(),
        serde_json::json!({ "grug.config": config.to_toml(), "note": "tiny" }),
    );
    let mut data = Vec::new();
    for (i, spec) in ModelTensors::specs(&config).into_leaves().iter().enumerate() {
        let start = data.len();
        let numbers = (0..spec.len()).map(|j| ((i * 31 + j * 17) % 23) as f32 / 23.0 - 0.5);
        data.extend(numbers.flat_map(f32::to_le_bytes));
        let entry =
            serde_json::json!({ "dtype": "F32", "shape": spec.shape, "data_offsets": [start, data.len()] });
        header.insert(spec.name.clone(), entry);
    }
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

fn fresh() -> grug_error {
    grug_error { status: 0, message: [0; 252] }
}

fn message(err: &grug_error) -> String {
    // SAFETY: the library ends every message with a NUL.
    unsafe { CStr::from_ptr(err.message.as_ptr()) }.to_string_lossy().into_owned()
}

/// All zeros, which is how every options struct begins.
fn zeroed<T: Copy>() -> T {
    // SAFETY: used with the structs of the header alone, which are numbers and pointers.
    unsafe { std::mem::zeroed() }
}

fn load(file: &[u8], mode: u32) -> *mut grug_model {
    let mut options: grug_model_options = zeroed();
    options.size = size_of::<grug_model_options>();
    options.n_threads = 1;
    let (mut model, mut err) = (null_mut(), fresh());
    // SAFETY: the arguments are as the header wants them; a borrowed file outlives the model in every test here.
    let status =
        unsafe { grug_model_load_buffer(file.as_ptr(), file.len(), mode, &options, &mut model, &mut err) };
    assert_eq!(status, GRUG_OK, "{}", message(&err));
    model
}

fn session_of(model: *const grug_model) -> *mut grug_session {
    let (mut session, mut err) = (null_mut(), fresh());
    // SAFETY: the arguments are as the header wants them.
    let status = unsafe { grug_session_new(model, null(), &mut session, &mut err) };
    assert_eq!(status, GRUG_OK, "{}", message(&err));
    session
}

fn warm() -> *mut grug_sampler {
    let mut options: grug_sampler_options = zeroed();
    options.size = size_of::<grug_sampler_options>();
    options.temperature = 1.0;
    options.top_k = 9;
    let (mut sampler, mut err) = (null_mut(), fresh());
    // SAFETY: the arguments are as the header wants them.
    assert_eq!(unsafe { grug_sampler_new(&options, &mut sampler, &mut err) }, GRUG_OK, "{}", message(&err));
    sampler
}

#[test]
fn a_session_from_its_beginning_to_its_end() {
    let file = model_file();
    let (model, mut err) = (load(&file, GRUG_LOAD_BORROW), fresh());
    let (session, sampler) = (session_of(model), warm());
    // SAFETY: the arguments are as the header wants them, and every handle is freed once.
    unsafe {
        grug_model_free(model);
        assert_eq!(grug_session_feed(session, b"ab".as_ptr(), 2, &mut err), GRUG_OK);
        let (mut text, mut n) = ([0u8; 3], 0);
        let stop = grug_bytes { data: b"\0\x01\x02\x03".as_ptr(), len: 4 };
        let status =
            grug_session_generate(session, sampler, &stop, 1, text.as_mut_ptr(), 3, &mut n, &mut err);
        assert_eq!((status, n), (GRUG_STOP_CAPACITY, 3), "{}", message(&err));
        assert_eq!(grug_session_position(session), 5);
        let byte = grug_session_next(session, null_mut(), &mut err);
        assert!((0..256).contains(&byte));

        let mut other = null_mut();
        assert_eq!(grug_session_fork(session, &mut other, &mut err), GRUG_OK);
        let mut logits = [[0f32; 256]; 2];
        assert_eq!(grug_session_get_logits(session, logits[0].as_mut_ptr().cast(), &mut err), GRUG_OK);
        assert_eq!(grug_session_get_logits(other, logits[1].as_mut_ptr().cast(), &mut err), GRUG_OK);
        assert_eq!(logits[0], logits[1]);
        grug_session_free(other);

        let mut len = 0;
        assert_eq!(grug_session_save(session, null_mut(), &mut len, &mut err), GRUG_ESPACE);
        let mut state = vec![0u8; len];
        assert_eq!(grug_session_save(session, state.as_mut_ptr(), &mut len, &mut err), GRUG_OK);
        assert_eq!(grug_session_rewind(session, 1, &mut err), GRUG_OK, "{}", message(&err));
        assert_eq!(grug_session_restore(session, state.as_ptr(), len, &mut err), GRUG_OK);
        state[len / 2] ^= 1;
        assert_eq!(grug_session_restore(session, state.as_ptr(), len, &mut err), GRUG_EFORMAT);
        assert_eq!(grug_session_position(session), 6);

        let (mut nats, mut total) = ([0f32; 2], 0.0);
        assert_eq!(
            grug_session_score(session, b"xy".as_ptr(), 2, nats.as_mut_ptr(), &mut total, &mut err),
            GRUG_OK
        );
        assert!(total > 0.0 && nats.iter().all(|v| *v > 0.0));
        assert_eq!(grug_session_reset(session, &mut err), GRUG_OK);
        grug_session_free(session);
        grug_sampler_free(sampler);
    }
}

#[test]
fn what_a_model_is() {
    let file = model_file();
    let (model, mut err) = (load(&file, GRUG_LOAD_COPY), fresh());
    drop(file);
    let mut info: grug_model_info = zeroed();
    info.size = size_of::<grug_model_info>();
    // SAFETY: the arguments are as the header wants them, and every handle is freed once.
    unsafe {
        assert_eq!(grug_model_get_info(model, &mut info, &mut err), GRUG_OK);
        assert_eq!((info.context_bytes, info.end_byte), (6, -1));
        let mut value = [0 as c_char; 16];
        let mut len = value.len();
        let status = grug_model_get_metadata(model, c"note".as_ptr(), value.as_mut_ptr(), &mut len, &mut err);
        assert_eq!((status, len), (GRUG_OK, 4), "{}", message(&err));
        assert_eq!(
            grug_model_get_metadata(model, c"none".as_ptr(), null_mut(), &mut len, &mut err),
            GRUG_ENOTFOUND
        );
        grug_model_free(model);
    }
}

#[test]
fn a_model_with_fewer_positions_than_its_context_says_what_sessions_have() {
    let file = model_file_of("attention = \"bidirectional\"\npositions = \"learned\"\nmax_positions = 4\n");
    let (model, mut err) = (load(&file, GRUG_LOAD_COPY), fresh());
    let mut info: grug_model_info = zeroed();
    info.size = size_of::<grug_model_info>();
    let mut options: grug_session_options = zeroed();
    options.size = size_of::<grug_session_options>();
    let mut session = null_mut();
    // SAFETY: the arguments are as the header wants them, and every handle is freed once.
    unsafe {
        assert_eq!(grug_model_get_info(model, &mut info, &mut err), GRUG_OK);
        assert_eq!((info.context_bytes, info.rewind_bytes), (4, 4));
        options.max_context = info.context_bytes;
        let status = grug_session_new(model, &options, &mut session, &mut err);
        assert_eq!(status, GRUG_OK, "{}", message(&err));
        grug_session_free(session);
        grug_model_free(model);
    }
}

#[test]
fn wrong_arguments_are_errors() {
    let (mut model, mut err) = (null_mut(), fresh());
    // SAFETY: NULL and lengths of 0 are what the functions must bear; nothing else here is unusual.
    unsafe {
        assert_eq!(
            grug_model_load_buffer(null(), 9, GRUG_LOAD_COPY, null(), &mut model, &mut err),
            GRUG_EINVAL
        );
        assert!(message(&err).contains("data is NULL"));
        assert_eq!(
            grug_model_load_buffer(null(), 0, GRUG_LOAD_COPY, null(), &mut model, &mut err),
            GRUG_EFORMAT
        );
        assert_eq!(grug_session_new(null(), null(), &mut null_mut(), null_mut()), GRUG_EINVAL);
        assert_eq!(grug_session_feed(null_mut(), b"a".as_ptr(), 1, &mut err), GRUG_EINVAL);
        assert_eq!(grug_session_position(null()), 0);
        let wrong = grug_sampler_options { size: 3, ..zeroed() };
        assert_eq!(grug_sampler_new(&wrong, &mut null_mut(), &mut err), GRUG_EINVAL);
        assert!(message(&err).contains("sizeof(grug_sampler_options)"));
        grug_session_free(null_mut());
        grug_model_free(null_mut());
        grug_sampler_free(null_mut());
        grug_cancel_free(null_mut());
    }
}

/// Two threads and a token: one call at a time, and the token from anywhere.
#[test]
fn threads_are_told_busy_and_canceled() {
    struct Shared(*mut grug_session, *mut grug_cancel);
    // SAFETY: sessions and tokens may be used from any thread (header, THREADS).
    unsafe impl Sync for Shared {}
    let file = model_file();
    let model = load(&file, GRUG_LOAD_BORROW);
    let mut options: grug_session_options = zeroed();
    options.size = size_of::<grug_session_options>();
    options.cancel = grug_cancel_new();
    let mut session = null_mut();
    // SAFETY: the arguments are as the header wants them.
    assert_eq!(unsafe { grug_session_new(model, &options, &mut session, null_mut()) }, GRUG_OK);
    let shared = Shared(session, options.cancel.cast_mut());
    let shared = &shared;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..if cfg!(miri) { 3 } else { 1000 } {
                    // SAFETY: as above; a handle in use by another thread is refused.
                    let status = unsafe { grug_session_feed(shared.0, b"a".as_ptr(), 1, null_mut()) };
                    assert!(matches!(status, GRUG_OK | GRUG_EBUSY | GRUG_ECANCELED), "{status}");
                }
            });
        }
        // SAFETY: as above.
        scope.spawn(|| unsafe { grug_cancel_trigger(shared.1) });
    });
    // SAFETY: every handle is freed once, and nobody is in a call.
    unsafe {
        assert_eq!(grug_session_feed(session, b"a".as_ptr(), 1, null_mut()), GRUG_ECANCELED);
        grug_cancel_reset(shared.1);
        assert_eq!(grug_session_feed(session, b"a".as_ptr(), 1, null_mut()), GRUG_OK);
        grug_cancel_free(shared.1);
        grug_session_free(session);
        grug_model_free(model);
    }
}
