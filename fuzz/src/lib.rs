//! What the fuzz targets share: valid files to start from.

#[path = "../../tests/pth/mod.rs"]
pub mod pth;

pub mod small;

#[path = "../../tests/calls/mod.rs"]
pub mod calls;
