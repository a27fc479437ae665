//! Where secrets come from: files that people write only name them.

use std::io;
use std::path::Path;

/// Where secrets come from.
pub trait Secrets {
    /// The value of an environment variable; `None` where it is not set or no text.
    fn variable(&self, name: &str) -> Option<String>;

    /// The text of a file.
    ///
    /// # Errors
    /// If it cannot be read or is no text.
    fn file(&self, path: &Path) -> io::Result<String>;
}
