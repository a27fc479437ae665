//! Which role each method needs: one table. What is not in it is refused.

use super::error::Refusal;
use crate::identity::{Identity, Role};

/// What a caller must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody: it is not asked who calls.
    Anybody,
    /// Somebody who is known.
    Known,
    /// Somebody with this role.
    Role(Role),
}

/// Paths of methods, and what each needs. A `*` stands for all methods of a service.
const TABLE: &[(&str, Access)] = &[
    ("/undertone.v1.EmotionService/StreamEmotion", Access::Role(Role::Stream)),
    ("/undertone.v1.EmotionService/AnalyzeAudio", Access::Role(Role::Analyze)),
    ("/undertone.v1.EmotionService/ListModels", Access::Known),
    ("/undertone.v1.EmotionService/GetModel", Access::Known),
    ("/undertone.v1.EmotionService/ListPolicies", Access::Known),
    ("/undertone.v1.EmotionService/GetPolicy", Access::Known),
    ("/undertone.v1.EmotionService/CheckPolicy", Access::Known),
    ("/undertone.v1.EscalationService/ListEscalations", Access::Role(Role::Watch)),
    ("/undertone.v1.EscalationService/GetEscalation", Access::Role(Role::Watch)),
    ("/undertone.v1.EscalationService/WatchEscalations", Access::Role(Role::Watch)),
    ("/undertone.v1.EscalationService/AcknowledgeEscalation", Access::Role(Role::Acknowledge)),
    ("/undertone.v1.SessionService/ListSessions", Access::Role(Role::Watch)),
    ("/undertone.v1.SessionService/GetSession", Access::Role(Role::Watch)),
    ("/undertone.v1.SessionService/WatchSession", Access::Role(Role::Watch)),
    // Probes have no token, and learn nothing but whether there is a service.
    ("/grpc.health.v1.Health/*", Access::Anybody),
    ("/grpc.reflection.v1.ServerReflection/*", Access::Known),
    ("/grpc.reflection.v1alpha.ServerReflection/*", Access::Known),
];

/// What the method at `path`, such as `/undertone.v1.EmotionService/ListModels`, needs; `None` if there is no
/// such method.
pub fn needed(path: &str) -> Option<Access> {
    let fits = |entry: &str| match entry.strip_suffix('*') {
        Some(service) => {
            path.strip_prefix(service).is_some_and(|rest| !rest.is_empty() && !rest.contains('/'))
        }
        None => path == entry,
    };
    TABLE.iter().find(|(entry, _)| fits(entry)).map(|(_, access)| *access)
}

/// Whether `identity` may call the method at `path`, which needs `access`.
///
/// # Errors
/// [`Refusal::RoleMissing`].
pub(super) fn check(identity: &Identity, access: Access, path: &str) -> Result<(), Refusal> {
    match access {
        Access::Role(role) if !identity.may(role) => Err(Refusal::RoleMissing {
            name: identity.name.as_ref().to_owned(),
            role,
            method: path.trim_start_matches('/').to_owned(),
        }),
        Access::Role(_) | Access::Known | Access::Anybody => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_table_is_no_method() {
        for path in [
            "",
            "/",
            "/undertone.v1.EmotionService/",
            "/undertone.v1.EmotionService/Delete",
            "/undertone.v1.EmotionService/ListModels/",
            "/undertone.v1.EmotionService/*",
            "/grpc.health.v1.Health/",
            "/grpc.health.v1.Health/a/b",
            "//grpc.health.v1.Health/Check",
        ] {
            assert_eq!(needed(path), None, "{path}");
        }
        assert_eq!(needed("/grpc.health.v1.Health/Check"), Some(Access::Anybody));
    }
}
