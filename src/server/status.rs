//! Every error of a session or a clip, as `google.rpc.Status`: one match, no wildcard.
//!
//! Codes: `INVALID_ARGUMENT` for configuration and format, `FAILED_PRECONDITION` for the wrong order,
//! `ALREADY_EXISTS` for a name that is taken, `ABORTED` for a stream whose session goes on in another, `NOT_FOUND` for a model, `RESOURCE_EXHAUSTED` for limits and
//! capacity, `OUT_OF_RANGE` for a stream that is too long, `DEADLINE_EXCEEDED` for time-outs, `DATA_LOSS` for
//! audio that cannot be decoded, `UNAUTHENTICATED` where it is not known who calls, `PERMISSION_DENIED` where it is
//! and does not suffice, `UNAVAILABLE` while draining, `INTERNAL` for our own faults.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::identity::Refusal;
use super::places::Full;
use crate::audio::{AudioError, ErrorKind};
use crate::escalation::StoreError;
use crate::model::EngineError;
use crate::session::admission::Refused;
use crate::session::clip::ClipError;
use crate::session::token::TokenError;
use crate::session::{AnalysisError, ResumeError, SessionError};
use crate::wire::parse::Violation;

/// The domain of our reasons in `ErrorInfo`.
const DOMAIN: &str = "undertone";
/// When a client may try again on a server that is full: streams end every few seconds there.
const RETRY_WHEN_FULL: Duration = Duration::from_secs(2);

fn status(
    code: Code,
    message: String,
    reason: &str,
    change: impl FnOnce(&mut ErrorDetails),
) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, HashMap::new());
    change(&mut details);
    Status::with_error_details(code, message, details)
}

fn plain(code: Code, message: String, reason: &str) -> Status {
    status(code, message, reason, |_| {})
}

fn field(code: Code, message: String, reason: &str, name: &str) -> Status {
    let description = message.clone();
    status(code, message, reason, |details| {
        details.add_bad_request_violation(name, description);
    })
}

/// Violations as one `INVALID_ARGUMENT` that names every field.
pub fn invalid(violations: &[Violation]) -> Status {
    let message = violations
        .iter()
        .map(|violation| format!("{} {}", violation.field, violation.problem))
        .collect::<Vec<_>>()
        .join("; ");
    status(Code::InvalidArgument, message, "INVALID_REQUEST", |details| {
        for violation in violations {
            details.add_bad_request_violation(violation.field, &violation.problem);
        }
    })
}

/// A session's error, for its client.
pub fn of_session(error: &SessionError) -> Status {
    let text = error.to_string();
    match error {
        SessionError::Invalid(violations) => invalid(violations),
        SessionError::ConfigMissing { .. } => {
            field(Code::FailedPrecondition, text, "CONFIG_MISSING", "config")
        }
        SessionError::ConfigTwice => {
            field(Code::FailedPrecondition, text, "CONFIG_TWICE", "config")
        }
        SessionError::NoModel { .. } => no_model(error, "config.model"),
        SessionError::NoPolicy { .. } => no_policy(error, "config.policy_name"),
        SessionError::NoStore => plain(Code::FailedPrecondition, text, "NO_ESCALATION_STORE"),
        SessionError::NoInline { .. } => no_inline(error, "config.policy_yaml"),
        SessionError::Resume(error) => of_resume(error),
        SessionError::Replaced(_) => plain(Code::Aborted, text, "TAKEN_OVER"),
        SessionError::IdTaken(_) => {
            field(Code::AlreadyExists, text, "SESSION_ID_TAKEN", "config.session_id")
        }
        SessionError::Full { .. } => {
            status(Code::ResourceExhausted, text, "SERVER_FULL", |details| {
                details.set_retry_info(Some(RETRY_WHEN_FULL));
            })
        }
        SessionError::Refused(refused) => of_refused(refused),
        SessionError::Draining => status(Code::Unavailable, text, "DRAINING", |details| {
            details.set_retry_info(Some(Duration::ZERO));
        }),
        SessionError::ChunkTooLarge { .. } => {
            field(Code::ResourceExhausted, text, "CHUNK_TOO_LARGE", "audio.data")
        }
        SessionError::TooLong { .. } => plain(Code::OutOfRange, text, "STREAM_TOO_LONG"),
        SessionError::TooFast { retry, .. } => {
            let retry = *retry;
            status(Code::ResourceExhausted, text, "AUDIO_TOO_FAST", move |details| {
                details.set_retry_info(Some(retry));
            })
        }
        SessionError::Idle { .. } => plain(Code::DeadlineExceeded, text, "IDLE_TIMEOUT"),
        SessionError::Unread { .. } => plain(Code::DeadlineExceeded, text, "RESPONSES_UNREAD"),
        SessionError::Vanished => plain(Code::Cancelled, text, "CLIENT_GONE"),
        SessionError::TooLarge(_) => plain(Code::ResourceExhausted, text, "MESSAGE_TOO_LARGE"),
        SessionError::Transport(_) => plain(Code::InvalidArgument, text, "MESSAGE_REFUSED"),
        SessionError::Analysis(error) => of_analysis(error, "audio.data"),
    }
}

fn of_resume(error: &ResumeError) -> Status {
    let code = match error {
        ResumeError::Token(
            TokenError::NoToken | TokenError::Refused | TokenError::TooLarge { .. },
        ) => Code::InvalidArgument,
        ResumeError::Token(TokenError::Random) => Code::Internal,
        ResumeError::Token(
            TokenError::Expired { .. }
            | TokenError::UnknownKey { .. }
            | TokenError::OtherVersion { .. },
        )
        | ResumeError::Content(_)
        | ResumeError::Model(_)
        | ResumeError::Off => Code::FailedPrecondition,
    };
    field(code, error.to_string(), error.reason(), "config.resume_token")
}

/// A quota that is used up, or a server without room: what it is, and when to come back.
pub fn of_refused(refused: &Refused) -> Status {
    let text = refused.to_string();
    let reason = match refused {
        Refused::Streams { .. } => "QUOTA_STREAMS",
        Refused::Audio { .. } => "QUOTA_AUDIO",
        Refused::Load(_) => "SERVER_OVERLOADED",
    };
    let description = text.clone();
    status(Code::ResourceExhausted, text, reason, |details| {
        details.set_retry_info(Some(refused.retry()));
        match refused {
            Refused::Streams { identity, .. } | Refused::Audio { identity, .. } => {
                details.add_quota_failure_violation(format!("identity:{identity}"), description);
            }
            Refused::Load(pressure) => {
                let cause = [("cause".to_owned(), pressure.name().to_owned())];
                details.set_error_info(reason, DOMAIN, HashMap::from(cause));
            }
        }
    })
}

/// As many calls that carry clips as may be received at once.
pub(super) fn too_many_clips(full: Full) -> Status {
    no_place(full, "clips under way", "TOO_MANY_CLIPS")
}

fn no_place(full: Full, what: &str, reason: &str) -> Status {
    let text = match full {
        Full::All { limit } => format!("the server has {limit} {what} and takes no more now"),
        Full::Share { share } => format!(
            "there are {share} {what} of this tenant or identity already, which is its share \
             (max_share)"
        ),
    };
    status(Code::ResourceExhausted, text, reason, |details| {
        details.set_retry_info(Some(RETRY_WHEN_FULL));
    })
}

/// A call that took longer than that setting lets it, its request included.
pub fn call_timeout(setting: &str, limit: Duration) -> Status {
    let text = format!("the call was not over within {limit:?} ({setting})");
    plain(Code::DeadlineExceeded, text, "CALL_TIMEOUT")
}

/// A message that is larger than its method takes, in the decoder's words.
pub fn too_large(words: &str) -> Status {
    plain(Code::ResourceExhausted, words.to_owned(), "MESSAGE_TOO_LARGE")
}

/// A model that there is not; `name` is the field that asks for it.
pub fn no_model(error: &SessionError, name: &str) -> Status {
    field(Code::NotFound, error.to_string(), "MODEL_NOT_FOUND", name)
}

/// A policy that there is not; `name` is the field that asks for it.
pub fn no_policy(error: &SessionError, name: &str) -> Status {
    field(Code::NotFound, error.to_string(), "POLICY_NOT_FOUND", name)
}

/// Policies of clients are not taken; `name` is the field that has one.
pub fn no_inline(error: &SessionError, name: &str) -> Status {
    field(Code::PermissionDenied, error.to_string(), "INLINE_POLICY_REFUSED", name)
}

/// When a client may ask again while the store is down.
const RETRY_STORE: Duration = Duration::from_secs(1);

/// The store cannot be used now.
pub fn of_store(error: &StoreError) -> Status {
    let text = format!("the escalation store cannot be used now: {error}");
    status(Code::Unavailable, text, "STORE_DOWN", |details| {
        details.set_retry_info(Some(RETRY_STORE));
    })
}

/// The store is down; the log says why.
pub fn store_down() -> Status {
    let text = "the escalation store is down; try again".to_owned();
    status(Code::Unavailable, text, "STORE_DOWN", |details| {
        details.set_retry_info(Some(RETRY_STORE));
    })
}

/// No escalation has that id.
pub fn no_escalation(name: &str) -> Status {
    let text = "there is no escalation with this id".to_owned();
    field(Code::NotFound, text, "ESCALATION_NOT_FOUND", name)
}

/// A call came past the gate, which is a defect of the service.
pub fn no_identity() -> Status {
    plain(Code::Internal, "the call has no identity".to_owned(), "NO_IDENTITY")
}

/// What is asked for is another tenant's.
pub fn other_tenant(name: &str) -> Status {
    let text = "this identity sees what is its own tenant's only".to_owned();
    field(Code::PermissionDenied, text, "OTHER_TENANT", name)
}

/// There is no store, so that there are no escalations.
pub fn no_store() -> Status {
    let text = SessionError::NoStore.to_string();
    plain(Code::FailedPrecondition, text, "NO_ESCALATION_STORE")
}

/// A session that is not live here.
pub fn no_session(id: &str) -> Status {
    let text = format!("no session {id:?} is live on this server, nor has one ended there lately");
    field(Code::NotFound, text, "SESSION_NOT_FOUND", "id")
}

/// No more watches.
pub(super) fn too_many_watchers(full: Full) -> Status {
    no_place(full, "watches", "TOO_MANY_WATCHES")
}

/// When a client may ask again while an issuer's keys cannot be had.
const RETRY_KEYS: Duration = Duration::from_secs(10);

/// A call that is not let in.
pub fn of_refusal(refusal: &Refusal) -> Status {
    let (text, reason) = (refusal.to_string(), refusal.reason());
    match refusal {
        Refusal::TokenMissing { .. }
        | Refusal::TokenUnknown
        | Refusal::TokenExpired
        | Refusal::TokenInvalid { .. }
        | Refusal::CertificateUnknown { .. }
        | Refusal::SignatureMissing { .. }
        | Refusal::SignatureInvalid { .. } => plain(Code::Unauthenticated, text, reason),
        Refusal::KeysUnavailable => status(Code::Unavailable, text, reason, |details| {
            details.set_retry_info(Some(RETRY_KEYS));
        }),
        Refusal::RoleMissing { .. } => plain(Code::PermissionDenied, text, reason),
        Refusal::UnknownMethod { .. } => plain(Code::Unimplemented, text, reason),
    }
}

/// The server is about to end.
pub fn draining() -> Status {
    of_session(&SessionError::Draining)
}

/// A clip's error, for its client.
pub fn of_clip(error: &ClipError) -> Status {
    match error {
        ClipError::TooLong { .. } => {
            field(Code::OutOfRange, error.to_string(), "CLIP_TOO_LONG", "content")
        }
        ClipError::Analysis(error) => of_analysis(error, "content"),
    }
}

fn of_analysis(error: &AnalysisError, name: &str) -> Status {
    match error {
        AnalysisError::Audio(error) => of_audio(error, name),
        AnalysisError::Engine(error) => of_engine(error),
    }
}

/// Audio that cannot be used; `name` is the field it came in.
pub fn of_audio(error: &AudioError, name: &str) -> Status {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Format => field(Code::InvalidArgument, text, "AUDIO_FORMAT", name),
        ErrorKind::Data => field(Code::DataLoss, text, "AUDIO_UNDECODABLE", name),
        ErrorKind::Order => field(Code::FailedPrecondition, text, "AUDIO_AFTER_END", name),
        ErrorKind::Io => field(Code::DataLoss, text, "AUDIO_UNREADABLE", name),
        ErrorKind::Internal => plain(Code::Internal, text, "AUDIO_INTERNAL"),
    }
}

fn of_engine(error: &EngineError) -> Status {
    let text = error.to_string();
    match error {
        EngineError::Failed { .. } => status(Code::Unavailable, text, "ENGINE_FAILED", |details| {
            // The process ends and is started again, or another replica answers.
            details.set_retry_info(Some(Duration::from_secs(1)));
        }),
        EngineError::NotFinite { .. } => plain(Code::Internal, text, "MODEL_OUTPUT"),
    }
}

/// The label of a session's end in the metrics.
pub fn outcome(error: &SessionError) -> &'static str {
    match error {
        SessionError::Invalid(_)
        | SessionError::ConfigMissing { .. }
        | SessionError::ConfigTwice
        | SessionError::NoModel { .. }
        | SessionError::NoPolicy { .. }
        | SessionError::NoStore
        | SessionError::NoInline { .. }
        | SessionError::IdTaken(_)
        | SessionError::Resume(_)
        | SessionError::Transport(_) => "invalid",
        SessionError::Full { .. } => "full",
        SessionError::Replaced(_) => "taken_over",
        SessionError::Refused(_) => "refused",
        SessionError::Draining => "draining",
        SessionError::ChunkTooLarge { .. }
        | SessionError::TooLarge(_)
        | SessionError::TooLong { .. }
        | SessionError::TooFast { .. } => "limit",
        SessionError::Idle { .. } => "idle",
        SessionError::Unread { .. } => "unread",
        SessionError::Vanished => "vanished",
        SessionError::Analysis(AnalysisError::Audio(_)) => "bad_audio",
        SessionError::Analysis(AnalysisError::Engine(_)) => "engine",
    }
}
