//! Compiles `proto/` with protox (no protoc needed) into `OUT_DIR`, and keeps the file descriptor set
//! for server reflection.

#![allow(clippy::disallowed_methods, reason = "cargo talks to build scripts by environment")]

use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=models/undertone-four");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = protox::compile(
        [
            "undertone/v1/emotion_service.proto",
            "undertone/v1/escalation_service.proto",
            "undertone/v1/session_service.proto",
        ],
        ["proto"],
    )?;
    std::fs::write(out.join("undertone.v1.descriptors"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Audio is taken as `Bytes`: a view into the HTTP/2 frame, not a copy.
        .bytes(".")
        // The largest messages come once a stream; unboxed they would set the size of all others, and
        // of each stream's queues.
        .boxed(".undertone.v1.StreamEmotionRequest.message.config")
        .boxed(".undertone.v1.StreamEmotionResponse.message.started")
        .boxed(".undertone.v1.StreamEmotionResponse.message.estimate")
        .boxed(".undertone.v1.StreamEmotionResponse.message.utterance")
        .boxed(".undertone.v1.StreamEmotionResponse.message.finished")
        .boxed(".undertone.v1.StreamEmotionResponse.message.escalation")
        .codec_path("crate::wire::codec::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}
