//! The message for people: a Jinja template over the occurrence's JSON.
//!
//! A template is checked when it is loaded, on one occurrence of every kind: a name that no occurrence
//! has is refused there. Labels differ from session to session, so any label may be named; one that a
//! session lacks is empty. Rendering never fails: what goes wrong in delivery (a filter on a value that
//! is missing) gives the title and the reason.

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};

use super::payload;
use super::sample::{SAMPLE_TIME, sample};
use crate::escalation::life::{Kind, Occurrence};

/// Longest template, in bytes.
pub(super) const MAX_TEMPLATE: usize = 4096;
/// Longest message, in characters: what chat systems and pagers take. What is longer is cut.
pub(super) const MAX_TEXT: usize = 2000;
/// Steps that a template may take: a thousand times what the default takes.
const FUEL: u64 = 100_000;
/// Its name within the template engine.
const NAME: &str = "text";

/// A template that was checked.
#[derive(Debug)]
pub(super) struct Text(Environment<'static>);

impl Text {
    /// Checks `source`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn new(source: &str) -> Result<Self, String> {
        if source.len() > MAX_TEMPLATE {
            return Err(format!("it has {} bytes, {MAX_TEMPLATE} are the most", source.len()));
        }
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|error| error.to_string())?;
        check(&environment)?;
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        Ok(Self(environment))
    }

    /// The message, never empty, [`MAX_TEXT`] characters at most.
    pub(super) fn render(&self, occurrence: &Occurrence) -> String {
        let text = render(&self.0, occurrence).unwrap_or_else(|error| {
            tracing::warn!(%error, "the text of a sink cannot be rendered; title and reason are sent");
            String::new()
        });
        if text.trim().is_empty() {
            let escalation = &occurrence.escalation;
            return shortened(&format!("{}: {}", escalation.title, escalation.reason), MAX_TEXT);
        }
        shortened(&text, MAX_TEXT)
    }
}

/// The first `most` characters of `text`, with an ellipsis in place of what is left out.
pub(super) fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

fn render(environment: &Environment<'_>, occurrence: &Occurrence) -> Result<String, String> {
    let json = payload::json(occurrence).map_err(|error| error.to_string())?;
    let template = environment.get_template(NAME).map_err(|error| error.to_string())?;
    template.render(Serde(&json)).map_err(|error| match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    })
}

/// Renders an occurrence of every kind that has every label which the template names.
fn check(environment: &Environment<'_>) -> Result<(), String> {
    let template = environment.get_template(NAME).map_err(|error| error.to_string())?;
    let names = template.undeclared_variables(true);
    for kind in Kind::ALL {
        let mut occurrence = sample(kind, "sample", SAMPLE_TIME);
        for name in &names {
            if let Some(label) = name.strip_prefix("escalation.labels.") {
                occurrence.escalation.labels.insert(label.to_owned(), "sample".to_owned());
            }
        }
        render(environment, &occurrence).map_err(|error| {
            format!("{error} (names: {})", {
                let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
                names.sort_unstable();
                names.join(", ")
            })
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(source: &str, kind: Kind) -> String {
        Text::new(source).unwrap().render(&sample(kind, "s", SAMPLE_TIME))
    }

    #[test]
    fn a_template_sees_the_occurrences_json() {
        let text = rendered(
            "{{ kind }} {{ escalation.labels.ward }} {{ escalation.evidence.distress }}",
            Kind::Raised,
        );
        assert_eq!(text, "raised 7 0.81");
    }

    #[test]
    fn an_unknown_name_is_refused_when_loaded() {
        let error = Text::new("{{ escalation.titel }}").unwrap_err();
        assert!(error.contains("escalation.titel"), "{error}");
        assert!(Text::new("{{ titel }}").is_err());
        assert!(Text::new("{{ kind").is_err());
        assert!(Text::new(&"x".repeat(MAX_TEMPLATE + 1)).is_err());
        assert!(
            Text::new(
                "{% for x in range(9999) %}{% for y in range(9999) %}{% endfor %}{% endfor %}"
            )
            .is_err()
        );
    }

    #[test]
    fn a_label_that_a_session_lacks_is_empty() {
        assert_eq!(rendered("[{{ escalation.labels.bed }}]", Kind::Raised), "[]");
    }

    #[test]
    fn a_text_that_fails_or_is_empty_becomes_title_and_reason() {
        let text = Text::new("{{ escalation.evidence.distress|round(1) }}").unwrap();
        let mut occurrence = sample(Kind::Raised, "s", SAMPLE_TIME);
        assert_eq!(text.render(&occurrence), "0.8");
        occurrence.escalation.evidence.distress = None;
        assert!(text.render(&occurrence).starts_with("Sustained distress: "));
        assert!(rendered(" ", Kind::Raised).starts_with("Sustained distress: "));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = rendered("{{ 'ä'*3000 }}", Kind::Raised);
        assert_eq!(text.chars().count(), MAX_TEXT);
        assert!(text.ends_with('…'));
    }
}
