//! libgrug.
#![deny(unsafe_code)]
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod init;
pub mod manifest;
pub mod positions;
pub mod rng;
