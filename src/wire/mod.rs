//! The protocol: generated code, parsing (theirs to ours) and rendering (ours to theirs).
//!
//! In: messages that anybody may have written. Out: settings that can be run, or every violation with
//! its field's path. Nothing behind this module sees a message that was not checked.

pub mod codec;
pub mod event;
pub mod json;
pub mod parse;
pub mod render;

use tonic::Code;

/// Generated from `proto/undertone/v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::large_enum_variant,
    clippy::indexing_slicing,
    reason = "generated; the proto carries the documentation"
)]
pub mod v1 {
    tonic::include_proto!("undertone.v1");
}

/// The compiled `proto/`, for server reflection.
pub const DESCRIPTORS: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/undertone.v1.descriptors"));

/// The name of a code as gRPC's documentation writes it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
