//! The fuzz targets, and what they share: valid files to start from.

#[path = "../../tests/pth/mod.rs"]
pub mod pth;

pub mod small;

#[path = "../../tests/calls/mod.rs"]
pub mod calls;

#[path = "../../tests/c_calls/mod.rs"]
pub mod c_calls;

pub mod targets;
