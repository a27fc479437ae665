//! Why something could not be done, for whoever asked, mostly a language model: what, which field, the stable
//! reason, and what to do now.
//!
//! In: the service's `google.rpc.Status`, and what is wrong with a tool's arguments. Out: a tool's error, whose
//! text has all of it, or an error of the protocol, where a resource or a prompt cannot be had.

use std::error::Error as _;
use std::fmt;

use rmcp::ErrorData;
use rmcp::model::{CallToolResult, ContentBlock, MetaObject};
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::wire::code_name;

/// Where the same stands in a tool's error for programs, beside its text.
const META: &str = "undertone/error";

/// Why something could not be done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Failure(Box<What>);

#[derive(Debug, Clone, PartialEq, Serialize)]
struct What {
    /// The gRPC code as the specification writes it, such as `NOT_FOUND`.
    code: &'static str,
    /// What happened.
    message: String,
    /// Arguments that cannot be used, each with what is wrong about it.
    fields: Vec<Field>,
    /// The stable reason, such as `ROLE_MISSING`.
    reason: String,
    /// What to do now.
    remedy: String,
    /// Seconds to wait before another attempt, where that may help.
    retry_after_s: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Field {
    name: String,
    problem: String,
}

impl Failure {
    fn new(what: What) -> Self {
        Self(Box::new(what))
    }

    /// An argument that cannot be used: what is wrong about it, and what would be right.
    pub(super) fn argument(name: &str, problem: impl Into<String>, remedy: &str) -> Self {
        let problem = problem.into();
        Self::new(What {
            code: "INVALID_ARGUMENT",
            message: format!("{name} {problem}"),
            fields: vec![Field { name: name.to_owned(), problem }],
            reason: "INVALID_REQUEST".to_owned(),
            remedy: remedy.to_owned(),
            retry_after_s: None,
        })
    }

    /// Arguments that are not what the schema says, in serde's words.
    pub(super) fn arguments(error: &serde_json::Error) -> Self {
        let words = error.to_string();
        // "missing field `session_id`", "unknown field `x`, expected ...": the first name is the field's.
        let field = words
            .contains(" field `")
            .then(|| words.split('`').nth(1))
            .flatten()
            .unwrap_or("arguments")
            .to_owned();
        Self::argument(&field, format!("cannot be used: {words}"), "see the tool's input schema")
    }

    /// The credentials of this process cannot be read.
    pub(super) fn credentials(problem: String) -> Self {
        Self::new(What {
            code: "UNAUTHENTICATED",
            message: problem,
            fields: Vec::new(),
            reason: "CREDENTIALS_UNREADABLE".to_owned(),
            remedy:
                "mend the file or the variable that `undertone mcp` was told of, and call again"
                    .to_owned(),
            retry_after_s: None,
        })
    }

    /// Whoever asked does not want it any more.
    pub(super) fn cancelled() -> Self {
        Self::from(Status::cancelled("the client cancelled it"))
    }

    /// With what helps in this case.
    pub(super) fn with_remedy(mut self, remedy: &str) -> Self {
        remedy.clone_into(&mut self.0.remedy);
        self
    }

    /// With what helps where there is no such thing.
    pub(super) fn if_missing(self, remedy: &str) -> Self {
        if self.0.code == "NOT_FOUND" { self.with_remedy(remedy) } else { self }
    }

    /// As a tool says it.
    pub(super) fn into_tool_error(self) -> CallToolResult {
        let mut result = CallToolResult::error(vec![ContentBlock::text(self.to_string())]);
        // Not as structured content: some clients hold that to the schema of what goes well.
        if let Ok(value) = serde_json::to_value(&self) {
            let mut meta = MetaObject::default();
            meta.insert(META.to_owned(), value);
            result.meta = Some(meta);
        }
        result
    }

    /// As the protocol says it, where there is no tool.
    pub(super) fn into_protocol_error(self, uri: &str) -> ErrorData {
        let message = format!("{uri}: {self}");
        let data = serde_json::to_value(&self).ok();
        match self.0.code {
            "NOT_FOUND" => ErrorData::resource_not_found(message, data),
            "INVALID_ARGUMENT" => ErrorData::invalid_params(message, data),
            _ => ErrorData::internal_error(message, data),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let What { code, message, fields, reason, remedy, .. } = &*self.0;
        write!(f, "{code}: {message}")?;
        for Field { name, problem } in fields {
            write!(f, "\nfield: {name}: {problem}")?;
        }
        write!(f, "\nreason: {reason}\nremedy: {remedy}")
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let fields = details.bad_request().map_or_else(Vec::new, |bad| {
            let fields = bad.field_violations.iter();
            fields
                .map(|v| Field { name: v.field.clone(), problem: v.description.clone() })
                .collect()
        });
        let retry = details.retry_info().and_then(|info| info.retry_delay);
        let info = details.error_info();
        let reason = info.map_or_else(|| code_name(status.code()), |info| &info.reason).to_owned();
        let remedy = match retry {
            Some(delay) => format!("call again in {:.1} s", delay.as_secs_f64()),
            None => remedy(&status, &reason).to_owned(),
        };
        Self::new(What {
            code: code_name(status.code()),
            message: in_words(&status),
            fields,
            reason,
            remedy,
            retry_after_s: retry.map(|retry| retry.as_secs_f64()),
        })
    }
}

/// What the server says or, if the way to it broke, what broke: `Connection refused` rather than `transport error`.
fn in_words(status: &Status) -> String {
    let Some(mut root) = status.source() else {
        return status.message().to_owned();
    };
    while let Some(cause) = root.source() {
        root = cause;
    }
    format!("the server cannot be reached: {root}")
}

fn remedy(status: &Status, reason: &str) -> &'static str {
    match (reason, status.code()) {
        (_, Code::Unavailable | Code::Unknown) if status.source().is_some() => {
            "is the server running where `undertone mcp --target` says (`undertone serve` starts one; over TLS the \
             target is https://)? Call again when it is: nothing need be restarted here"
        }
        ("ROLE_MISSING", _) => {
            "whoever runs the server can give this identity the role (docs/security.md); calling again changes nothing"
        }
        (_, Code::Unauthenticated) => {
            "a good token is needed: over HTTP in the header `Authorization: Bearer ...` of the client's configuration, \
             over stdio by `--token-file` or UNDERTONE_TOKEN"
        }
        (_, Code::Unimplemented) => {
            "this server is of another version, or has this turned off (escalation_store); calling again changes nothing"
        }
        (_, Code::InvalidArgument | Code::OutOfRange) => "correct the fields that are named",
        (_, Code::DeadlineExceeded) => "ask for less, or call again",
        (_, Code::Unavailable | Code::ResourceExhausted | Code::Aborted) => "call again later",
        (_, Code::DataLoss) => {
            "the file cannot be decoded: give it as wav, flac, ogg (Vorbis), mp3, m4a, aiff or mkv"
        }
        (_, Code::Cancelled) => "call again if it is wanted after all",
        _ => "see the server's log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::time::Duration;
    use tonic_types::ErrorDetails;

    fn refused(code: Code, reason: &str, change: impl FnOnce(&mut ErrorDetails)) -> Failure {
        let mut details = ErrorDetails::new();
        details.set_error_info(reason, "undertone", HashMap::new());
        change(&mut details);
        Status::with_error_details(code, "no", details).into()
    }

    #[test]
    fn a_failure_tells_field_reason_and_remedy() {
        let failure = refused(Code::InvalidArgument, "INVALID_REQUEST", |details| {
            details.add_bad_request_violation("page_size", "is 900");
        });
        assert_eq!(
            failure.to_string(),
            "INVALID_ARGUMENT: no\nfield: page_size: is 900\nreason: INVALID_REQUEST\n\
             remedy: correct the fields that are named"
        );
        let failure = refused(Code::ResourceExhausted, "TOO_MANY_CLIPS", |details| {
            details.set_retry_info(Some(Duration::from_secs(2)));
        });
        assert!(failure.to_string().ends_with("remedy: call again in 2.0 s"), "{failure}");
        assert_eq!(failure.0.retry_after_s, Some(2.0));
        let failure = refused(Code::PermissionDenied, "ROLE_MISSING", |_| {});
        assert!(failure.0.remedy.contains("the role"), "{failure}");
    }

    #[test]
    fn a_server_that_says_nothing_of_itself_has_a_reason_and_a_remedy_too() {
        let failure = Failure::from(Status::unimplemented(""));
        assert_eq!(failure.0.reason, "UNIMPLEMENTED");
        assert!(failure.0.remedy.contains("another version"), "{failure}");
    }

    #[test]
    fn what_is_wrong_with_arguments_names_the_argument() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Arguments {
            #[expect(dead_code, reason = "only its name matters")]
            session_id: String,
        }
        let of =
            |text: &str| Failure::arguments(&serde_json::from_str::<Arguments>(text).unwrap_err());
        assert_eq!(of("{}").0.fields[0].name, "session_id");
        assert_eq!(of(r#"{"tone": 1}"#).0.fields[0].name, "tone");
        assert_eq!(of(r#"{"session_id": 1}"#).0.fields[0].name, "arguments");
    }

    #[test]
    fn a_tools_error_has_all_of_it_in_its_text_and_for_programs() {
        let result = Failure::argument("minutes", "is -1", "0.1 to 60").into_tool_error();
        assert_eq!(result.is_error, Some(true));
        assert!(result.structured_content.is_none());
        let meta = serde_json::to_value(result.meta.unwrap()).unwrap();
        assert_eq!(meta[META]["fields"][0]["name"], "minutes");
        assert_eq!(meta[META]["remedy"], "0.1 to 60");
    }
}
