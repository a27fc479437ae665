//! Dates that can be put forward and back under a running process, by libfaketime: its wall clock leaps, its
//! monotonic clock goes on, as when somebody sets the date of a machine.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The library, where Debian and others put it.
pub(crate) fn library() -> PathBuf {
    let places = walkdir::WalkDir::new("/usr/lib").follow_links(true).into_iter();
    let found = places.filter_map(Result::ok).find(|entry| {
        entry.file_name() == "libfaketimeMT.so.1" || entry.file_name() == "libfaketimeMT.1.dylib"
    });
    found
        .map(walkdir::DirEntry::into_path)
        .expect("libfaketime is missing: apt-get install faketime")
}

/// What makes a process see the date that stands in `file`.
fn variables(library: &Path, file: &Path) -> [String; 4] {
    [
        format!("LD_PRELOAD={}", library.display()),
        format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
        // It looks into the file once a second.
        "FAKETIME_CACHE_DURATION=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
    ]
}

/// The date of some processes.
pub(super) struct Date {
    folder: TempDir,
    command: Vec<String>,
}

impl Date {
    /// As it is.
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let variables = variables(&library(), &folder.path().join("date"));
        let command = std::iter::once("env".to_owned()).chain(variables).collect();
        let date = Self { folder, command };
        date.is("+0");
        date
    }

    /// A process that is started by way of this has this date.
    pub(super) fn command(&self) -> Vec<&str> {
        self.command.iter().map(String::as_str).collect()
    }

    /// From now on, or a second later, it is away from the true one by `offset`, such as `-3h`.
    pub(super) fn is(&self, offset: &str) {
        let (new, file) = (self.folder.path().join("new"), self.folder.path().join("date"));
        std::fs::write(&new, format!("{offset}\n")).unwrap();
        // Never half of it.
        std::fs::rename(new, file).unwrap();
    }
}
