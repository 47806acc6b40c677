//! libgrug.
#![deny(unsafe_code)]
