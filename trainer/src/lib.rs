//! Training of GrugV3 models.
#![deny(unsafe_code)]
pub mod config;
pub mod dataset;
pub mod schedule;
pub mod telemetry;
