//! Why, in words: templates with the values of the moment in them.
//!
//! A reason is a Jinja template of values, filters and `if`. It has no loops, no variables of its own and no
//! multiplication, so that what it makes is never much longer than itself. Variables that do not exist are
//! refused when the policy is read. A value that is not known, for want of speech, reads "unknown".
//!
//! | variable | what |
//! |---|---|
//! | `distress`, `valence`, `arousal`, each emotion, each group | mean over the rule's longest window |
//! | `seconds` | whole seconds since the condition began to hold |
//! | `silence` | whole seconds without speech |
//! | `rule`, `severity`, `channel` | of the rule; the channel's number, from 0 |
//!
//! Filters: `percent` (0.63 -> "63 %"), `round`, `upper`, `lower`, `title`. Tests: `none`, for what is not
//! known.

use std::sync::LazyLock;

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, filters};

use super::fault::Problem;
use super::rules::Group;
use crate::emotion::{EMOTIONS, Emotion};

/// Longest reason that is told, characters.
const MAX_CHARS: usize = 500;
/// Instructions of one rendering: a template of 2,000 characters has fewer.
const FUEL: u64 = 20_000;
/// What the values of a moment are called, besides emotions and groups.
const MEANS: [&str; 3] = ["distress", "valence", "arousal"];
/// The other variables.
const FACTS: [&str; 5] = ["seconds", "silence", "rule", "severity", "channel"];
/// Words of the template language.
const WORDS: [&str; 18] = [
    "and", "block", "elif", "else", "endif", "false", "filter", "for", "if", "in", "is", "loop",
    "none", "not", "or", "self", "set", "true",
];

/// Whether a group may not have this name.
pub(super) fn reserved(name: &str) -> bool {
    FACTS.contains(&name) || WORDS.contains(&name)
}

/// A checked template.
#[derive(Debug, Clone)]
pub(super) struct Reason(String);

/// The values of a moment.
#[derive(Debug, Clone)]
pub(super) struct Facts<'a> {
    /// Signals and groups with their means; `None` without speech.
    pub(super) means: Vec<(&'a str, Option<f64>)>,
    pub(super) seconds: u64,
    pub(super) silence: u64,
    pub(super) rule: &'a str,
    pub(super) severity: &'static str,
    pub(super) channel: u32,
}

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::empty();
    environment.set_fuel(Some(FUEL));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_filter("percent", percent);
    environment.add_filter("round", round);
    environment.add_filter("upper", filters::upper);
    environment.add_filter("lower", filters::lower);
    environment.add_filter("title", filters::title);
    environment.add_test("none", |value: &Value| value.is_none());
    environment.set_formatter(|out, state, value| {
        if value.is_none() {
            out.write_str("unknown").map_err(Error::from)
        } else {
            minijinja::escape_formatter(out, state, value)
        }
    });
    environment
});

/// 0.634 -> "63 %".
fn percent(value: Value) -> Result<Value, Error> {
    if value.is_none() {
        return Ok(value);
    }
    Ok(Value::from(format!("{} %", fixed(100.0 * number(value)?, 0))))
}

/// To so many digits behind the point, at first none.
fn round(value: Value, digits: Option<usize>) -> Result<Value, Error> {
    if value.is_none() {
        return Ok(value);
    }
    // Values have six.
    Ok(Value::from(fixed(number(value)?, digits.unwrap_or_default().min(6))))
}

fn fixed(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$}");
    match text.strip_prefix('-') {
        // Nobody wants to read of -0.
        Some(rest) if rest.chars().all(|c| matches!(c, '0' | '.')) => rest.to_owned(),
        _ => text,
    }
}

fn number(value: Value) -> Result<f64, Error> {
    f64::try_from(value).map_err(|_| Error::new(ErrorKind::InvalidOperation, "is no number"))
}

impl Reason {
    /// Checks a template: its words, its variables, and that it renders with all values and with none.
    pub(super) fn parse(text: &str, groups: &[Group]) -> Result<Self, Problem> {
        check_words(text)?;
        let template = ENVIRONMENT.template_from_str(text).map_err(|error| problem(&error))?;
        let means: Vec<&str> = names(groups).collect();
        let known = |name: &str| means.contains(&name) || FACTS.contains(&name);
        let mut unknown: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        unknown.retain(|name| !known(name));
        if !unknown.is_empty() {
            unknown.sort();
            let known: Vec<&str> = means.iter().copied().chain(FACTS).collect();
            return Err(Problem::Variables { names: unknown, known: known.join(", ") });
        }
        let reason = Self(text.to_owned());
        for value in [Some(0.5), None] {
            let facts = Facts {
                means: means.iter().map(|name| (*name, value)).collect(),
                seconds: 1,
                silence: 1,
                rule: "rule",
                severity: "low",
                channel: 0,
            };
            reason.rendered(&facts).map_err(|error| problem(&error))?;
        }
        Ok(reason)
    }

    /// The reason with `facts` in it, at most 500 characters on one line; `otherwise` if they make the
    /// template fail after all, for a raise must not be lost for its words.
    pub(super) fn render(&self, facts: &Facts<'_>, otherwise: &str) -> String {
        let text = self.rendered(facts).unwrap_or_else(|_| otherwise.to_owned());
        let mut words = String::with_capacity(text.len());
        for word in text.split_whitespace() {
            if !words.is_empty() {
                words.push(' ');
            }
            words.push_str(word);
        }
        match words.char_indices().nth(MAX_CHARS) {
            Some(_) => words.chars().take(MAX_CHARS - 1).chain(['…']).collect(),
            None => words,
        }
    }

    fn rendered(&self, facts: &Facts<'_>) -> Result<String, Error> {
        let text = |s: &str| Value::from(s);
        let mean = |value: &Option<f64>| {
            value.map_or(Value::from(()), |v| Value::from((1000.0 * v).round() / 1000.0))
        };
        let means = facts.means.iter().map(|(name, value)| (*name, mean(value)));
        let others = [
            ("seconds", Value::from(facts.seconds)),
            ("silence", Value::from(facts.silence)),
            ("rule", text(facts.rule)),
            ("severity", text(facts.severity)),
            ("channel", Value::from(facts.channel)),
        ];
        ENVIRONMENT.render_str(&self.0, Value::from_pairs(means.chain(others)))
    }
}

/// The names of all means.
pub(super) fn names<'a>(groups: &'a [Group]) -> impl Iterator<Item = &'a str> {
    let means: [&'a str; 3] = MEANS;
    let emotions: [&'a str; EMOTIONS] = Emotion::ALL.map(Emotion::name);
    means.into_iter().chain(emotions).chain(groups.iter().map(|group| group.name.as_str()))
}

/// Refuses all of the language with which a short text makes a long one.
fn check_words(text: &str) -> Result<(), Problem> {
    let refuse = |message: &str| Err(Problem::Template { message: message.to_owned() });
    if text.contains('*') {
        return refuse("a reason has no asterisks: it does not multiply");
    }
    for rest in text.split("{%").skip(1) {
        let rest = rest.trim_start_matches(['-', '+']).trim_start();
        let word: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
        if !matches!(word.as_str(), "if" | "elif" | "else" | "endif") {
            return refuse("of statements a reason has `if`, `elif`, `else` and `endif`");
        }
    }
    Ok(())
}

fn problem(error: &Error) -> Problem {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let message = match error.line() {
        Some(line) if line > 1 => format!("{what} (in its line {line})"),
        _ => what,
    };
    Problem::Template { message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(percent(Value::from(0.634)).unwrap().as_str(), Some("63 %"));
        assert_eq!(percent(Value::from(-0.004)).unwrap().as_str(), Some("0 %"));
        assert_eq!(round(Value::from(-0.04), Some(1)).unwrap().as_str(), Some("0.0"));
        assert_eq!(round(Value::from(-0.25), Some(99)).unwrap().as_str(), Some("-0.250000"));
        assert!(round(Value::from("x"), None).is_err());
    }
}
