//! The protocol's messages as JSON, by its own descriptors: the mapping that protobuf itself defines.
//!
//! In: text that anybody may have written. Out: a message, which is still to be checked, or where it is no such
//! message. And back: fields with default values are written too, so that whoever reads need not know the
//! protocol's defaults; 64-bit integers are texts, as the mapping wants.

use std::sync::LazyLock;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};

use super::{DESCRIPTORS, v1};

/// Text that is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoMessage(String);

/// The descriptors that are used here. They are made by our own build; a test sees that they are there.
struct Kinds {
    request: MessageDescriptor,
    response: MessageDescriptor,
}

static KINDS: LazyLock<Option<Kinds>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(DESCRIPTORS).ok()?;
    Some(Kinds {
        request: pool.get_message_by_name("undertone.v1.StreamEmotionRequest")?,
        response: pool.get_message_by_name("undertone.v1.StreamEmotionResponse")?,
    })
});

/// What a client says.
///
/// # Errors
/// [`NoMessage`] with line and column. Fields that are not known are refused.
pub fn request(text: &str) -> Result<v1::StreamEmotionRequest, NoMessage> {
    let kind = KINDS.as_ref().map(|kinds| kinds.request.clone());
    let kind = kind.ok_or_else(|| NoMessage("the protocol has no descriptors".to_owned()))?;
    let refused = |error: serde_json::Error| NoMessage(error.to_string());
    let options = DeserializeOptions::new();
    let mut reader = serde_json::Deserializer::from_str(text);
    let message = DynamicMessage::deserialize_with_options(kind, &mut reader, &options);
    let message = message.map_err(refused)?;
    reader.end().map_err(refused)?;
    let bytes = Bytes::from(message.encode_to_vec());
    v1::StreamEmotionRequest::decode(bytes).map_err(|error| NoMessage(error.to_string()))
}

/// What a client is told. Empty if it cannot be written, which would be a defect.
pub fn response(response: &v1::StreamEmotionResponse) -> String {
    let options = SerializeOptions::new().skip_default_fields(false);
    let written = KINDS.as_ref().and_then(|kinds| {
        let bytes = response.encode_to_vec();
        let message = DynamicMessage::decode(kinds.response.clone(), bytes.as_slice()).ok()?;
        let mut text = Vec::with_capacity(bytes.len() * 4);
        let mut writer = serde_json::Serializer::new(&mut text);
        message.serialize_with_options(&mut writer, &options).ok()?;
        String::from_utf8(text).ok()
    });
    written.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1::stream_emotion_request::Message as Request;
    use crate::wire::v1::stream_emotion_response::Message as Response;

    #[test]
    fn a_configuration_is_read_as_protobuf_writes_it() {
        let text = r#"{"config": {"audio": {"encoding": "AUDIO_ENCODING_MULAW", "sampleRateHz": 8000},
            "estimateInterval": "0.250s", "labels": {"ward": "7"}, "policyName": "care-call", "resumeToken": "AAE="}}"#;
        let Some(Request::Config(config)) = request(text).unwrap().message else {
            panic!("no configuration");
        };
        let audio = config.audio.unwrap();
        assert_eq!((audio.encoding(), audio.sample_rate_hz), (v1::AudioEncoding::Mulaw, 8_000));
        assert_eq!(config.estimate_interval.unwrap().nanos, 250_000_000);
        assert_eq!(config.labels["ward"], "7");
        assert_eq!(&config.resume_token[..], [0, 1]);
    }

    #[test]
    fn what_is_no_message_is_refused_with_its_place() {
        for (text, word) in [
            ("", "EOF"),
            ("{", "line 1"),
            ("[]", "line 1"),
            ("{\"sing\": {}}", "sing"),
            ("{\"config\": {\"audio\": {\"rate\": 1}}}", "rate"),
            ("{\"config\": {\"audio\": {\"encoding\": \"OPUS\"}}}", "OPUS"),
            ("{\"mark\": {}} {}", "trailing"),
            ("{\"mark\": {}, \"config\": {}}", "message"),
        ] {
            let refusal = request(text).expect_err(text).to_string();
            assert!(refusal.contains(word), "{text}: {refusal}");
        }
    }

    #[test]
    fn fields_with_default_values_are_written() {
        let estimate = v1::Estimate {
            end: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            affect: Some(v1::Affect { top: v1::Emotion::Angry.into(), ..Default::default() }),
            ..Default::default()
        };
        let message = Some(Response::Estimate(estimate.into()));
        let text = response(&v1::StreamEmotionResponse { message });
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let estimate = &json["estimate"];
        assert_eq!(estimate["end"], "1.500s");
        assert_eq!(estimate["affect"]["top"], "EMOTION_ANGRY");
        assert_eq!(estimate["affect"]["valence"], 0.0);
        assert_eq!(estimate["abstains"], false);
        assert_eq!(estimate["escalationIds"], serde_json::json!([]));
        assert_eq!(json.as_object().unwrap().len(), 1, "{text}");
    }
}
