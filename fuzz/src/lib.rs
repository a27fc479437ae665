//! The bodies of the fuzz targets, as plain functions of bytes: libFuzzer calls them from
//! `fuzz_targets/`, and the service's own tests include the same files and drive them on stable Rust.

pub mod audio;
pub mod identities;
pub mod json;
pub mod policy;
pub mod resume;
pub mod session;
