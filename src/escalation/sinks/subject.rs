//! The subject of a NATS message: words and placeholders -> tokens that NATS takes.
//!
//! What stands for a placeholder is one token or part of one, whatever the value holds: all but letters,
//! digits, hyphens and underscores becomes an underscore, so that no session can choose a subject.

use crate::escalation::life::Occurrence;

/// Longest subject as written, in bytes.
const MAX_SUBJECT: usize = 256;
/// Longest value of a placeholder, in characters.
const MAX_VALUE: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Severity,
    Policy,
    Rule,
    Event,
    Session,
    Channel,
}

impl Placeholder {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "severity" => Self::Severity,
            "policy" => Self::Policy,
            "rule" => Self::Rule,
            "event" => Self::Event,
            "session" => Self::Session,
            "channel" => Self::Channel,
            _ => return None,
        })
    }

    fn of(self, occurrence: &Occurrence) -> String {
        let escalation = &occurrence.escalation;
        match self {
            Self::Severity => escalation.severity.name().to_owned(),
            Self::Policy => token(&escalation.policy),
            Self::Rule => token(&escalation.rule),
            Self::Event => occurrence.kind.name().to_owned(),
            Self::Session => token(&escalation.session_id),
            Self::Channel => escalation.channel.to_string(),
        }
    }
}

/// `value` as one token, never empty.
fn token(value: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let token: String = value.chars().take(MAX_VALUE).map(clean).collect();
    if token.is_empty() { "_".to_owned() } else { token }
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Word(String),
    Value(Placeholder),
}

/// A subject with placeholders.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Subject(Vec<Part>);

impl Subject {
    /// Reads `text`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        if text.len() > MAX_SUBJECT {
            return Err(format!("it has {} bytes, {MAX_SUBJECT} are the most", text.len()));
        }
        if text.split('.').any(str::is_empty) {
            return Err("a part between two dots is empty".to_owned());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((word, behind)) = rest.split_once('{') {
            let (name, behind) = behind.split_once('}').ok_or("a brace is not closed")?;
            let value = Placeholder::named(name).ok_or_else(|| {
                format!(
                    "unknown placeholder {name:?}; known are severity, policy, rule, event, session, \
                     channel"
                )
            })?;
            parts.push(Part::Word(checked(word)?));
            parts.push(Part::Value(value));
            rest = behind;
        }
        parts.push(Part::Word(checked(rest)?));
        Ok(Self(parts))
    }

    /// The subject of an occurrence.
    pub(super) fn of(&self, occurrence: &Occurrence) -> String {
        let parts = self.0.iter().map(|part| match part {
            Part::Word(word) => word.clone(),
            Part::Value(value) => value.of(occurrence),
        });
        parts.collect()
    }

    /// What a stream for all these subjects takes: the whole words at the beginning, then anything;
    /// `None` if there are no such words.
    pub(super) fn wildcard(&self) -> Option<String> {
        let Some(Part::Word(first)) = self.0.first() else { return None };
        if self.0.len() == 1 {
            return Some(first.clone());
        }
        let (words, _) = first.rsplit_once('.')?;
        Some(format!("{words}.>"))
    }
}

fn checked(word: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_graphic() && !"*>}".contains(c);
    if word.starts_with('$') || !word.chars().all(allowed) {
        return Err("it holds blanks, wildcards or what is reserved".to_owned());
    }
    Ok(word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escalation::life::Kind;
    use crate::escalation::sinks::sample::{SAMPLE_TIME, sample};
    use proptest::prelude::*;

    #[test]
    fn placeholders_become_tokens() {
        let subject = Subject::new("undertone.escalations.{severity}.{policy}").unwrap();
        let occurrence = sample(Kind::Raised, "s", SAMPLE_TIME);
        assert_eq!(subject.of(&occurrence), "undertone.escalations.high.care-call");
        assert_eq!(subject.wildcard().unwrap(), "undertone.escalations.>");
        assert_eq!(Subject::new("a.b").unwrap().wildcard().unwrap(), "a.b");
        assert_eq!(Subject::new("{policy}.b").unwrap().wildcard(), None);
    }

    #[test]
    fn subjects_that_nats_would_not_take_are_refused() {
        for text in
            ["", "a..b", ".a", "a.", "a b", "a.*", "a.>", "a.{x}", "a.{policy", "a}", "$JS.a"]
        {
            assert!(Subject::new(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_value_makes_another_token(session in ".{0,80}", policy in ".{0,80}") {
            let mut occurrence = sample(Kind::Raised, &session, SAMPLE_TIME);
            occurrence.escalation.policy = policy;
            let subject = Subject::new("a.{session}.{policy}").unwrap().of(&occurrence);
            prop_assert_eq!(subject.split('.').count(), 3);
            prop_assert!(subject.split('.').all(|token| !token.is_empty()));
            prop_assert!(subject.is_ascii() && !subject.contains(['*', '>', ' ']));
        }
    }
}
