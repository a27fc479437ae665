//! What is wrong with a policy, and where.

use std::fmt::{self, Write as _};

use crate::emotion::UnknownEmotion;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Problem {
    /// The file is too large.
    #[error("the file has {bytes} bytes, and at most {limit} are read")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// It is not YAML, or not of the shape of a policy.
    #[error("{message}")]
    Shape {
        /// What the reader says.
        message: String,
    },
    /// Another version of the format.
    #[error("is {found:?}, and this version reads {known:?}")]
    Schema {
        /// What stands there.
        found: String,
        /// What can be read.
        known: &'static str,
    },
    /// A name that cannot be one.
    #[error("is {found:?}, and must be {wanted}")]
    Name {
        /// What stands there.
        found: String,
        /// What a name is here, in words.
        wanted: &'static str,
    },
    /// The name stands for something already.
    #[error("{name:?} has a meaning already")]
    Taken {
        /// The name.
        name: String,
    },
    /// A text that is empty or too long.
    #[error("must have {min} to {max} characters, not {actual}")]
    Length {
        /// Fewest.
        min: usize,
        /// Most.
        max: usize,
        /// How many it has.
        actual: usize,
    },
    /// Too few or too many of something.
    #[error("must hold {min} to {max} {what}, not {actual}")]
    Count {
        /// Of what.
        what: &'static str,
        /// Fewest.
        min: usize,
        /// Most.
        max: usize,
        /// How many there are.
        actual: usize,
    },
    /// Two of the same name.
    #[error("{name:?} stands here twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// No emotion of this name.
    #[error(transparent)]
    Emotion(#[from] UnknownEmotion),
    /// No signal of this name.
    #[error("unknown signal {name:?}; known are {known}")]
    Signal {
        /// The name.
        name: String,
        /// What there is.
        known: String,
    },
    /// A text that is no duration.
    #[error("{text:?} is no duration; write it like 500ms, 10s, 2m or 1h ({reason})")]
    Duration {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A duration outside its range.
    #[error("must be {min} to {max}, not {actual}")]
    DurationRange {
        /// Shortest.
        min: String,
        /// Longest.
        max: String,
        /// What stands there.
        actual: String,
    },
    /// A number outside its range.
    #[error("must be {min} to {max}, not {actual}")]
    Range {
        /// Least.
        min: f64,
        /// Greatest.
        max: f64,
        /// What stands there.
        actual: f64,
    },
    /// A condition that would turn on and off at the same value.
    #[error("must differ from on ({value}), or the condition would flap")]
    NoHysteresis {
        /// Both.
        value: f64,
    },
    /// A share without its bound, or with two.
    #[error("needs exactly one of `at` and `below`")]
    ShareBound,
    /// Conditions within conditions within conditions.
    #[error("conditions are nested more than {limit} deep")]
    Deep {
        /// The limit.
        limit: usize,
    },
    /// A reason with variables that do not exist.
    #[error("unknown {}; known are {known}", .names.join(", "))]
    Variables {
        /// Those that do not exist, in alphabetical order.
        names: Vec<String>,
        /// What there is.
        known: String,
    },
    /// A reason that is no template, or does what a reason may not.
    #[error("is no template: {message}")]
    Template {
        /// What is wrong.
        message: String,
    },
}

/// What is wrong with a policy, where, and the lines about it.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyError {
    /// Counted from 1; 0 if it is about the file as a whole.
    pub line: u32,
    /// In characters, counted from 1; 0 if it is about the file as a whole.
    pub column: u32,
    /// The way through the document, such as `rules[0].when.level.off`; empty where the YAML reader
    /// found the fault.
    pub path: String,
    /// What is wrong.
    pub problem: Box<Problem>,
    /// The lines about it, and a caret.
    excerpt: String,
}

impl PolicyError {
    /// The faulty line with its number, the line before it, and a caret under the column. Empty if it is
    /// about the file as a whole.
    pub fn excerpt(&self) -> &str {
        &self.excerpt
    }

    /// What is wrong and the way to it, without line and column.
    pub fn message(&self) -> String {
        if self.path.is_empty() {
            self.problem.to_string()
        } else {
            format!("{}: {}", self.path, self.problem)
        }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        f.write_str(&self.message())
    }
}

impl std::error::Error for PolicyError {}

/// A fault before the text about it is known.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) path: String,
    pub(super) problem: Box<Problem>,
}

impl Fault {
    /// With the excerpt from `text`.
    pub(super) fn within(self, text: &str) -> PolicyError {
        PolicyError {
            excerpt: excerpt(text, self.line, self.column),
            line: self.line,
            column: self.column,
            path: self.path,
            problem: self.problem,
        }
    }
}

/// Most characters of a line that an excerpt shows.
const EXCERPT_WIDTH: usize = 120;

fn excerpt(text: &str, line: u32, column: u32) -> String {
    let mut lines = String::new();
    for (number, content) in (1_u32..).zip(text.lines()) {
        if number + 1 < line {
            continue;
        }
        if number > line {
            break;
        }
        // Tabs and control characters would move the caret away from what it points at.
        let shown = content.chars().take(EXCERPT_WIDTH);
        let shown: String = shown.map(|c| if c.is_control() { ' ' } else { c }).collect();
        let _ = writeln!(lines, "{number:>5} | {shown}");
    }
    if !lines.is_empty() {
        let indent = usize::try_from(column).unwrap_or(0).saturating_sub(1).min(EXCERPT_WIDTH);
        let _ = writeln!(lines, "      | {}^", " ".repeat(indent));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_points_at_the_column() {
        let text = "a: 1\nb:\n\tc: é x\nd: 4\n";
        assert_eq!(excerpt(text, 3, 5), "    2 | b:\n    3 |  c: é x\n      |     ^\n");
        assert_eq!(excerpt(text, 1, 1), "    1 | a: 1\n      | ^\n");
        assert_eq!(excerpt(text, 0, 0), "");
        assert_eq!(excerpt(text, 99, 1), "");
    }
}
