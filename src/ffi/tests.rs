//! What a panic inside a call does to real handles: it spoils those of the call, and nothing else.

use std::ffi::CString;
use std::ptr::{null, null_mut};

use super::error::{GRUG_EPANIC, GRUG_OK, grug_error};
use super::model::*;
use super::session::*;
use crate::config::ModelConfig;
use crate::init::write_initial_model;
use crate::pool::Pool;

fn fresh() -> grug_error {
    grug_error { status: 0, message: [0; 252] }
}

fn text(err: &grug_error) -> String {
    err.message.iter().map(|&c| c as u8 as char).take_while(|&c| c != '\0').collect()
}

fn load() -> *mut grug_model {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let config = "context_bytes = 8\nembedding_dim = 4\nd_model = 4\nn_heads = 2\nn_layers = 1\npositions = \"rotary\"";
    write_initial_model(&path, &ModelConfig::from_toml(config).unwrap(), 1).unwrap();
    let path = CString::new(path.to_str().unwrap()).unwrap();
    let mut model = null_mut();
    // SAFETY: the path is NUL-terminated, and the others are NULL or may be written.
    let status = unsafe { grug_model_load_file(path.as_ptr(), null(), &mut model, null_mut()) };
    assert_eq!(status, GRUG_OK);
    model
}

fn session(model: *const grug_model) -> *mut grug_session {
    let mut session = null_mut();
    // SAFETY: the model is alive, and the others are NULL or may be written.
    assert_eq!(unsafe { grug_session_new(model, null(), &mut session, null_mut()) }, GRUG_OK);
    session
}

fn feed(session: *mut grug_session, err: &mut grug_error) -> i32 {
    // SAFETY: the session is alive, and the bytes are there.
    unsafe { grug_session_feed(session, b"bytes".as_ptr(), 5, err) }
}

#[test]
fn a_panic_in_a_call_spoils_its_session_alone() {
    let model = load();
    let (broken, other) = (session(model), session(model));
    let mut err = fresh();
    assert_eq!(feed(broken, &mut err), GRUG_OK);
    // SAFETY: the session is alive.
    let status = unsafe { call(broken, &mut err, |_| panic!("on purpose")) };
    assert_eq!((status, err.status), (GRUG_EPANIC, GRUG_EPANIC));
    assert_eq!(text(&err), "internal error: on purpose");

    err = fresh();
    assert_eq!(feed(broken, &mut err), GRUG_EPANIC);
    assert!(text(&err).contains("free it"), "{}", text(&err));
    let mut fork = null_mut();
    // SAFETY: the session is alive, and fork may be written.
    assert_eq!(unsafe { grug_session_fork(broken, &mut fork, null_mut()) }, GRUG_EPANIC);
    assert!(fork.is_null());
    // SAFETY: the session is alive.
    assert_eq!(unsafe { grug_session_position(broken) }, 5);

    // What the call did not use goes on, and the model makes new sessions.
    assert_eq!(feed(other, &mut err), GRUG_OK);
    let third = session(model);
    assert_eq!(feed(third, &mut err), GRUG_OK);
    // SAFETY: each is freed once; the broken one can be freed as well.
    unsafe {
        grug_session_free(broken);
        grug_session_free(third);
        grug_model_free(model);
        assert_eq!(feed(other, &mut err), GRUG_OK);
        grug_session_free(other);
    }
}

#[test]
fn a_panic_on_a_worker_reaches_the_call() {
    let model = load();
    let session = session(model);
    let mut err = fresh();
    // SAFETY: the session is alive.
    let status = unsafe {
        call(session, &mut err, |_| {
            Pool::new(3)?.run(64, |chunk| assert!(chunk != 63, "chunk {chunk} on purpose"));
            Ok(GRUG_OK)
        })
    };
    assert_eq!(status, GRUG_EPANIC);
    assert_eq!(text(&err), "internal error: chunk 63 on purpose");
    // SAFETY: each is freed once.
    unsafe {
        grug_session_free(session);
        grug_model_free(model);
    }
}
