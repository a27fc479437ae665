//! Requests in JSON, as they come over WebSocket.

use prost::Message as _;
use undertone::wire::{json, v1};

/// Text becomes a request or is refused; a request is one that the protocol itself takes.
pub fn json_request(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(request) = json::request(text) {
        let bytes = request.encode_to_vec();
        assert_eq!(v1::StreamEmotionRequest::decode(bytes.as_slice()).as_ref(), Ok(&request));
    }
}
