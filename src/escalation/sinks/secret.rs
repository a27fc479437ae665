//! Secrets: read once from the environment or from files, and never shown.

use std::fmt;

/// A text that nobody may see: `Debug` prints "redacted", and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    /// `text` without the line break that editors and secret stores put at its end.
    pub(super) fn new(text: &str) -> Self {
        Self(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// The text, for the one place that must send it or sign with it.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// `text` with every appearance of the secret covered.
    pub(super) fn cover(&self, text: &str) -> String {
        // Covering something as short as this would tell what it is.
        const SHORTEST: usize = 4;
        if self.0.len() < SHORTEST { text.to_owned() } else { text.replace(&self.0, "[redacted]") }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redacted")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_in_no_debug_output_and_loses_its_line_break() {
        let secret = Secret::new("hunter2-and-more\r\n");
        assert_eq!(secret.reveal(), "hunter2-and-more");
        assert_eq!(format!("{secret:?}"), "redacted");
        assert_eq!(secret.cover("got hunter2-and-more!"), "got [redacted]!");
    }
}
