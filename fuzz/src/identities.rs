//! Body of the target for who may call: files of identities, and the header with a token.

use std::io;
use std::path::Path;

use undertone::secrets::Secrets;
use undertone::server::identity::{Identities, bearer};
use undertone::yaml::YamlError;

/// Files that a file of identities names are not read.
struct Nothing;

impl Secrets for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn file(&self, _: &Path) -> io::Result<String> {
        Err(io::Error::other("no files here"))
    }
}

/// Any bytes as a header: refused, or a token that is a part of them. As a file: refused with a place within
/// it, or identities with names of their own.
pub fn identities_parse(data: &[u8]) {
    if let Ok(token) = bearer(data) {
        assert!(!token.is_empty() && token.is_ascii() && !token.contains(' '));
        assert!(data.windows(token.len()).any(|part| part == token.as_bytes()));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Identities::parse(text, &Nothing) {
        Ok(identities) => {
            let mut names: Vec<&str> = identities.all().iter().map(|one| &*one.name).collect();
            names.extend(identities.issuers().map(|(name, _)| name));
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "two of one name");
        }
        Err(YamlError::Shape { line, .. } | YamlError::Field { line, .. }) => {
            // The end of the text may be told as the line behind it. YAML knows more breaks than these.
            let breaks = text.matches(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
            assert!(usize::try_from(line).expect("a small number") <= breaks + 2, "line {line}");
        }
    }
}
