//! What stands around the service: models listed, health, reflection, gRPC-Web, a documented protocol.

use std::net::SocketAddr;

use prost::Message as _;
use tokio_stream::StreamExt as _;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use undertone::wire::v1;

use crate::support::{Server, channel, http_exchange, http_get};

#[tokio::test]
async fn models_are_listed_with_their_licences_the_default_first() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let listed = client.list_models(v1::ListModelsRequest {}).await.unwrap().into_inner().models;
    let names: Vec<&str> = listed.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["tiny-steps", "tiny-window", "tiny-waveform", "tiny-dimensions"]);
    let defaults: Vec<bool> = listed.iter().map(|m| m.is_default).collect();
    assert_eq!(defaults, [true, false, false, false]);
    assert_eq!(listed[0].kind(), v1::ModelKind::StreamingMfcc);
    assert_eq!(listed[1].kind(), v1::ModelKind::WindowMfcc);
    assert_eq!(listed[2].kind(), v1::ModelKind::WindowWaveform);
    assert!(!listed[2].training_data[0].commercial_use);
    assert_eq!(listed[2].labels.len(), 4);
    assert!(listed[3].labels.is_empty());
    for (name, expected) in [("", 0), ("tiny-waveform", 2)] {
        let request = v1::GetModelRequest { name: name.to_owned() };
        let model = client.get_model(request).await.unwrap().into_inner().model.unwrap();
        assert_eq!(model, listed[expected]);
        assert_eq!(model.sha256.len(), 64);
    }
}

#[tokio::test]
async fn health_is_serving_for_the_service_and_for_the_whole() {
    let server = Server::start().await;
    let mut health = HealthClient::new(channel(server.grpc).await);
    for service in ["", "undertone.v1.EmotionService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let request = HealthCheckRequest { service: "nobody".to_owned() };
    assert_eq!(health.check(request).await.unwrap_err().code(), tonic::Code::NotFound);
    assert_eq!(http_get(server.http, "/healthz").await.0, 200);
    assert_eq!(http_get(server.http, "/readyz").await.0, 200);
}

macro_rules! reflected {
    ($version:ident, $address:expr) => {{
        use tonic_reflection::pb::$version::ServerReflectionRequest;
        use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
        let mut client = ServerReflectionClient::new(channel($address).await);
        let ask = |message| ServerReflectionRequest {
            host: String::new(),
            message_request: Some(message),
        };
        let requests = tokio_stream::iter([
            ask(MessageRequest::ListServices(String::new())),
            ask(MessageRequest::FileContainingSymbol("undertone.v1.Estimate".to_owned())),
        ]);
        let answers = client.server_reflection_info(requests).await.unwrap().into_inner();
        let answers: Vec<_> = answers.map(|answer| answer.unwrap()).collect().await;
        let Some(MessageResponse::ListServicesResponse(services)) = &answers[0].message_response
        else {
            panic!("{:?}", answers[0]);
        };
        let names: Vec<String> = services.service.iter().map(|s| s.name.clone()).collect();
        let Some(MessageResponse::FileDescriptorResponse(files)) = &answers[1].message_response
        else {
            panic!("{:?}", answers[1]);
        };
        (names, files.file_descriptor_proto.clone())
    }};
}

#[tokio::test]
async fn reflection_answers_in_both_versions() {
    let server = Server::start().await;
    for (names, files) in [reflected!(v1, server.grpc), reflected!(v1alpha, server.grpc)] {
        assert!(names.iter().any(|name| name == "undertone.v1.EmotionService"), "{names:?}");
        assert!(names.iter().any(|name| name == "grpc.health.v1.Health"), "{names:?}");
        let file = prost_types::FileDescriptorProto::decode(files[0].as_slice()).unwrap();
        assert_eq!(file.package(), "undertone.v1");
    }
}

#[tokio::test]
async fn reflection_can_be_turned_off() {
    let server = Server::with(|settings| settings.reflection = false).await;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    let mut client = ServerReflectionClient::new(channel(server.grpc).await);
    let answer = client.server_reflection_info(tokio_stream::empty()).await;
    assert_eq!(answer.unwrap_err().code(), tonic::Code::Unimplemented);
}

/// A gRPC-Web request over HTTP/1.1: status and raw body. `body` holds length-prefixed messages.
pub(crate) async fn grpc_web(address: SocketAddr, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/grpc-web+proto\r\n\
         X-Grpc-Web: 1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    http_exchange(address, &[head.as_bytes(), body].concat()).await
}

#[tokio::test]
async fn grpc_web_is_answered_over_http_1() {
    let server = Server::start().await;
    let path = "/undertone.v1.EmotionService/ListModels";
    let (status, body) = grpc_web(server.grpc, path, &[0; 5]).await;
    assert_eq!(status, 200);
    let (message, trailers) =
        body[5..].split_at(u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize);
    let models = v1::ListModelsResponse::decode(message).unwrap().models;
    assert_eq!(models.len(), 4);
    // The trailers come as a last message with the highest bit of its flags set.
    assert_eq!(trailers[0], 0x80);
    assert!(String::from_utf8_lossy(&trailers[5..]).contains("grpc-status:0"));
}

/// Every element of every message, enum and service, with the comment above it.
#[test]
fn every_message_field_value_and_method_of_the_protocol_is_documented() {
    let descriptors = prost_types::FileDescriptorSet::decode(undertone::wire::DESCRIPTORS).unwrap();
    let mut checked = 0;
    let mut bare = Vec::new();
    for file in descriptors.file.iter().filter(|file| file.package() == "undertone.v1") {
        let info = file.source_code_info.as_ref().expect("the comments are kept");
        for path in elements(file) {
            let location = info.location.iter().find(|location| location.path == path);
            let comment = location.map_or("", |location| location.leading_comments());
            checked += 1;
            if comment.trim().is_empty() {
                bare.push(format!("{} {path:?}", file.name()));
            }
        }
    }
    assert!(checked > 150, "{checked}");
    assert!(bare.is_empty(), "without a comment: {bare:#?}");
}

/// Paths as `SourceCodeInfo` has them: field numbers of `descriptor.proto` and indices.
fn elements(file: &prost_types::FileDescriptorProto) -> Vec<Vec<i32>> {
    const MESSAGES: i32 = 4;
    const ENUMS: i32 = 5;
    const SERVICES: i32 = 6;
    let mut paths = Vec::new();
    for (index, message) in file.message_type.iter().enumerate() {
        message_elements(vec![MESSAGES, index as i32], message, &mut paths);
    }
    for (index, values) in file.enum_type.iter().enumerate() {
        enum_elements(vec![ENUMS, index as i32], values, &mut paths);
    }
    for (index, service) in file.service.iter().enumerate() {
        let path = vec![SERVICES, index as i32];
        for method in 0..service.method.len() {
            paths.push([&path[..], &[2, method as i32]].concat());
        }
        paths.push(path);
    }
    paths
}

fn message_elements(
    path: Vec<i32>,
    message: &prost_types::DescriptorProto,
    paths: &mut Vec<Vec<i32>>,
) {
    // The entries of a map are a message that nobody wrote.
    if message.options.as_ref().is_some_and(|options| options.map_entry()) {
        return;
    }
    for field in 0..message.field.len() {
        paths.push([&path[..], &[2, field as i32]].concat());
    }
    for (index, nested) in message.nested_type.iter().enumerate() {
        message_elements([&path[..], &[3, index as i32]].concat(), nested, paths);
    }
    for (index, values) in message.enum_type.iter().enumerate() {
        enum_elements([&path[..], &[4, index as i32]].concat(), values, paths);
    }
    paths.push(path);
}

fn enum_elements(
    path: Vec<i32>,
    values: &prost_types::EnumDescriptorProto,
    paths: &mut Vec<Vec<i32>>,
) {
    for value in 0..values.value.len() {
        paths.push([&path[..], &[2, value as i32]].concat());
    }
    paths.push(path);
}
