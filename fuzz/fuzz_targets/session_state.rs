//! Any bytes as a saved session: an error that changes nothing, or a session that goes on.
#![no_main]

use grug::{Session, SessionOptions};
use grug_fuzz::small::{patched, with_model};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    with_model(|model| {
        let mut session = Session::new(model, &SessionOptions::default()).expect("a session");
        session.feed(b"before").expect("six bytes");
        // Magic, version and fingerprint of a valid one; flags, counts and bytes as they come.
        let valid = &session.save()[..32];
        for state in [data.to_vec(), patched(data, valid, 12..16, true)] {
            let position = session.position();
            if session.restore(&state).is_err() {
                assert_eq!(session.position(), position);
            }
            session.logits().expect("a prediction");
            let n = session.position().min(u64::from(data.first().copied().unwrap_or(0)));
            let _ = session.rewind(n);
            session.feed(b"after").expect("five bytes");
            session.logits().expect("a prediction");
        }
    });
});
