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
    pool: DescriptorPool,
    request: MessageDescriptor,
    response: MessageDescriptor,
}

static KINDS: LazyLock<Option<Kinds>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(DESCRIPTORS).ok()?;
    Some(Kinds {
        request: pool.get_message_by_name("undertone.v1.StreamEmotionRequest")?,
        response: pool.get_message_by_name("undertone.v1.StreamEmotionResponse")?,
        pool,
    })
});

/// What details of errors are made of: google.rpc.
static DETAILS: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(tonic_types::pb::FILE_DESCRIPTOR_SET).ok());

/// A method of the service, whose messages are known by their descriptors alone.
#[derive(Debug, Clone)]
pub struct Method {
    request: MessageDescriptor,
    response: MessageDescriptor,
    /// Whether many requests come.
    pub takes_stream: bool,
    /// Whether many answers go.
    pub gives_stream: bool,
}

impl Method {
    /// The method at `path`, such as `/undertone.v1.EmotionService/ListModels`.
    pub fn at(path: &str) -> Option<Self> {
        let (service, name) = path.strip_prefix('/')?.split_once('/')?;
        let service = KINDS.as_ref()?.pool.get_service_by_name(service)?;
        let method = service.methods().find(|method| method.name() == name)?;
        Some(Self {
            request: method.input(),
            response: method.output(),
            takes_stream: method.is_client_streaming(),
            gives_stream: method.is_server_streaming(),
        })
    }

    /// A request from its JSON.
    ///
    /// # Errors
    /// [`NoMessage`] with line and column. Fields that are not known are refused.
    pub fn read(&self, json: &[u8]) -> Result<Bytes, NoMessage> {
        read(self.request.clone(), json)
    }

    /// A request that comes as protobuf's own bytes.
    ///
    /// # Errors
    /// [`NoMessage`] if they are none of this method.
    pub fn check(&self, bytes: Bytes) -> Result<Bytes, NoMessage> {
        match DynamicMessage::decode(self.request.clone(), bytes.clone()) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(NoMessage(error.to_string())),
        }
    }

    /// The JSON of an answer. `None` if it is no answer of this method, which would be a defect.
    pub fn write(&self, answer: &[u8]) -> Option<Vec<u8>> {
        let mut text = Vec::with_capacity(answer.len() * 4);
        write(self.response.clone(), answer, &mut text)?;
        Some(text)
    }
}

/// A detail of an error as JSON: one of the messages of google.rpc, by its full name.
pub fn detail(name: &str, message: &[u8]) -> Option<serde_json::Value> {
    let kind = DETAILS.as_ref()?.get_message_by_name(name)?;
    let message = DynamicMessage::decode(kind, message).ok()?;
    serde_json::to_value(&message).ok()
}

fn read(kind: MessageDescriptor, json: &[u8]) -> Result<Bytes, NoMessage> {
    let refused = |error: serde_json::Error| NoMessage(error.to_string());
    let options = DeserializeOptions::new();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let message = DynamicMessage::deserialize_with_options(kind, &mut reader, &options);
    let message = message.map_err(refused)?;
    reader.end().map_err(refused)?;
    Ok(Bytes::from(message.encode_to_vec()))
}

fn write(kind: MessageDescriptor, message: &[u8], text: &mut Vec<u8>) -> Option<()> {
    let options = SerializeOptions::new().skip_default_fields(false);
    let message = DynamicMessage::decode(kind, message).ok()?;
    let mut writer = serde_json::Serializer::new(text);
    message.serialize_with_options(&mut writer, &options).ok()
}

/// What a client says.
///
/// # Errors
/// [`NoMessage`] with line and column. Fields that are not known are refused.
pub fn request(text: &str) -> Result<v1::StreamEmotionRequest, NoMessage> {
    let kind = KINDS.as_ref().map(|kinds| kinds.request.clone());
    let kind = kind.ok_or_else(|| NoMessage("the protocol has no descriptors".to_owned()))?;
    let bytes = read(kind, text.as_bytes())?;
    v1::StreamEmotionRequest::decode(bytes).map_err(|error| NoMessage(error.to_string()))
}

/// What a client is told. Empty if it cannot be written, which would be a defect.
pub fn response(response: &v1::StreamEmotionResponse) -> String {
    let written = KINDS.as_ref().and_then(|kinds| {
        let bytes = response.encode_to_vec();
        let mut text = Vec::with_capacity(bytes.len() * 4);
        write(kinds.response.clone(), &bytes, &mut text)?;
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

    #[test]
    fn methods_are_known_by_their_paths() {
        let list = Method::at("/undertone.v1.SessionService/ListSessions").unwrap();
        assert!(!list.takes_stream && !list.gives_stream);
        let request = list.read(br#"{"pageSize": 7, "includeEnded": true}"#).unwrap();
        let request = v1::ListSessionsRequest::decode(request).unwrap();
        assert_eq!((request.page_size, request.include_ended), (7, true));
        let bytes = Bytes::from(request.encode_to_vec());
        assert_eq!(list.check(bytes.clone()), Ok(bytes));
        assert!(list.check(Bytes::from_static(&[0x10, 0xff])).is_err());
        assert!(list.read(br#"{"size": 7}"#).unwrap_err().to_string().contains("size"));
        let answer = v1::ListSessionsResponse::default().encode_to_vec();
        let json: serde_json::Value =
            serde_json::from_slice(&list.write(&answer).unwrap()).unwrap();
        assert_eq!(json, serde_json::json!({"sessions": [], "nextPageToken": ""}));
        assert!(Method::at("/undertone.v1.SessionService/WatchSession").unwrap().gives_stream);
        assert!(Method::at("/undertone.v1.EmotionService/StreamEmotion").unwrap().takes_stream);
        for path in
            ["", "/", "/a/b", "/undertone.v1.SessionService/", "undertone.v1.SessionService"]
        {
            assert!(Method::at(path).is_none(), "{path}");
        }
    }

    #[test]
    fn details_of_errors_are_readable() {
        let info = tonic_types::pb::ErrorInfo { reason: "FULL".to_owned(), ..Default::default() };
        let json = detail("google.rpc.ErrorInfo", &info.encode_to_vec()).unwrap();
        assert_eq!(json["reason"], "FULL");
        assert!(detail("google.rpc.Nothing", &[]).is_none());
        assert!(detail("google.rpc.ErrorInfo", &[0xff]).is_none());
    }
}
