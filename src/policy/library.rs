//! The policies that a session can name: those built in and those of a folder, read again as they change.
//!
//! A file that goes bad leaves the policy of before in place, and says so. Sessions keep the policy that
//! they began with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::{MAX_BYTES, Policy, embedded};

/// Why a folder of policies cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// A folder or file that cannot be read.
    #[error("{path}: {problem}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A file that is no policy.
    #[error("{}:{line}:{column}: {problem}", path.display())]
    Policy {
        /// Which.
        path: PathBuf,
        /// Where in it, from 1.
        line: u32,
        /// Where in the line, from 1.
        column: u32,
        /// What is wrong.
        problem: String,
    },
    /// Two files with one name.
    #[error("{} and {} are both named {name:?}; give each policy a name of its own", first.display(), second.display())]
    Twice {
        /// The name.
        name: String,
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
}

/// What a look at the folder has led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reload {
    /// Policies that are new or have changed, by name and version.
    pub changed: Vec<(String, String)>,
    /// Policies that are no more.
    pub removed: Vec<String>,
    /// What is wrong and was not wrong in the same way before.
    pub problems: Vec<LibraryError>,
}

#[derive(Debug)]
struct Shelf {
    policies: BTreeMap<String, Arc<Policy>>,
    /// What each file held when it was last good: its policy's name and the hash of its text is part of the
    /// version, so the version tells whether it has changed.
    files: BTreeMap<PathBuf, String>,
    problems: Vec<LibraryError>,
}

/// The policies.
#[derive(Debug)]
pub struct Library {
    folder: Option<PathBuf>,
    shelf: RwLock<Shelf>,
}

impl Library {
    /// Those built in, and those of `folder`, which go before ones built in of the same name.
    ///
    /// # Errors
    /// [`LibraryError`] for the first file that cannot be used: at the start everything must be good.
    pub fn open(folder: Option<&Path>) -> Result<Self, LibraryError> {
        let mut policies = BTreeMap::new();
        for (name, text) in embedded() {
            let policy = Policy::parse(text).map_err(|error| LibraryError::Policy {
                path: PathBuf::from(format!("built-in {name}")),
                line: error.line,
                column: error.column,
                problem: error.message(),
            })?;
            policies.insert((*name).to_owned(), Arc::new(policy));
        }
        let mut files = BTreeMap::new();
        if let Some(folder) = folder {
            let read = read_folder(folder)?;
            let mut seen: BTreeMap<String, PathBuf> = BTreeMap::new();
            for (path, policy) in read {
                let policy = policy?;
                let name = policy.name().to_owned();
                if let Some(first) = seen.insert(name.clone(), path.clone()) {
                    return Err(LibraryError::Twice { name, first, second: path });
                }
                files.insert(path, name.clone());
                policies.insert(name, Arc::new(policy));
            }
        }
        let shelf = Shelf { policies, files, problems: Vec::new() };
        Ok(Self { folder: folder.map(Path::to_owned), shelf: RwLock::new(shelf) })
    }

    /// The policy of that name.
    pub fn get(&self, name: &str) -> Option<Arc<Policy>> {
        self.read().policies.get(name).cloned()
    }

    /// All, by name.
    pub fn list(&self) -> Vec<Arc<Policy>> {
        self.read().policies.values().cloned().collect()
    }

    /// The names, in words.
    pub fn names(&self) -> String {
        self.read().policies.keys().cloned().collect::<Vec<_>>().join(", ")
    }

    /// The folder that is looked at, if any.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Shelf> {
        self.shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the folder. What is good replaces what was; what is bad leaves it. Blocks on the disk.
    pub fn reload(&self) -> Reload {
        let mut reload = Reload::default();
        let Some(folder) = &self.folder else {
            return reload;
        };
        let read = read_folder(folder);
        let mut shelf = self.shelf.write().unwrap_or_else(PoisonError::into_inner);
        let problems = match read {
            Ok(read) => shelf.replace(read, &mut reload),
            Err(problem) => vec![problem],
        };
        reload.problems =
            problems.iter().filter(|problem| !shelf.problems.contains(problem)).cloned().collect();
        shelf.problems = problems;
        reload
    }
}

impl Shelf {
    fn replace(
        &mut self,
        read: Vec<(PathBuf, Result<Policy, LibraryError>)>,
        reload: &mut Reload,
    ) -> Vec<LibraryError> {
        let mut problems = Vec::new();
        let mut files: BTreeMap<PathBuf, String> = BTreeMap::new();
        let mut good: BTreeMap<String, Policy> = BTreeMap::new();
        for (path, policy) in read {
            match policy {
                Ok(policy) => {
                    let name = policy.name().to_owned();
                    let first = files.iter().find(|(_, taken)| **taken == name);
                    if let Some((first, _)) = first {
                        problems.push(LibraryError::Twice {
                            name,
                            first: first.clone(),
                            second: path,
                        });
                        continue;
                    }
                    files.insert(path, name.clone());
                    good.insert(name, policy);
                }
                Err(problem) => {
                    problems.push(problem);
                    // The policy of before stays.
                    if let Some(name) = self.files.get(&path) {
                        files.insert(path, name.clone());
                    }
                }
            }
        }
        let removed: Vec<String> = self
            .files
            .values()
            .filter(|name| !files.values().any(|n| n == *name))
            .cloned()
            .collect();
        for name in removed {
            self.policies.remove(&name);
            // One built in comes back from behind it.
            let built_in = embedded().iter().find(|(built_in, _)| *built_in == name);
            if let Some(policy) = built_in.and_then(|(_, text)| Policy::parse(text).ok()) {
                self.policies.insert(name.clone(), Arc::new(policy));
            }
            reload.removed.push(name);
        }
        for (name, policy) in good {
            let version = policy.version().to_owned();
            if self.policies.get(&name).is_none_or(|old| old.version() != version) {
                self.policies.insert(name.clone(), Arc::new(policy));
                reload.changed.push((name, version));
            }
        }
        self.files = files;
        problems
    }
}

type Read = Vec<(PathBuf, Result<Policy, LibraryError>)>;

/// Every `.yaml` and `.yml` file of the folder, by name.
fn read_folder(folder: &Path) -> Result<Read, LibraryError> {
    let refuse = |path: &Path, error: &std::io::Error| LibraryError::Read {
        path: path.to_owned(),
        problem: error.to_string(),
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| refuse(folder, &error))? {
        let path = entry.map_err(|error| refuse(folder, &error))?.path();
        let is_yaml = path.extension().is_some_and(|end| end == "yaml" || end == "yml");
        // A mounted ConfigMap has folders and links whose names begin with two dots.
        let is_hidden =
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_yaml && !is_hidden {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths.into_iter().map(|path| (path.clone(), read_policy(&path))).collect())
}

/// One policy file.
///
/// # Errors
/// [`LibraryError`] with file, line and column.
pub fn read_policy(path: &Path) -> Result<Policy, LibraryError> {
    let read = |problem: String| LibraryError::Read { path: path.to_owned(), problem };
    let length = std::fs::metadata(path).map_err(|error| read(error.to_string()))?.len();
    if length > MAX_BYTES as u64 {
        return Err(read(format!("has {length} bytes, at most {MAX_BYTES} are read")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| read(error.to_string()))?;
    Policy::parse(&text).map_err(|error| LibraryError::Policy {
        path: path.to_owned(),
        line: error.line,
        column: error.column,
        problem: error.message(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, over: &str) -> String {
        format!(
            "schema: undertone.policy/v1\nname: {name}\nversion: \"1\"\ndescription: For a test.\n\
             rules:\n  - name: one\n    title: One\n    severity: low\n    \
             when: {{level: {{of: distress, over: {over}, on: 0.7, off: 0.5}}}}\n    reason: distress\n"
        )
    }

    #[test]
    fn a_folder_is_read_again_and_a_file_gone_bad_leaves_the_old_policy() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ward.yaml");
        std::fs::write(&file, policy("ward", "10s")).unwrap();
        std::fs::write(folder.path().join("notes.txt"), "no policy").unwrap();
        let library = Library::open(Some(folder.path())).unwrap();
        let first = library.get("ward").unwrap();
        assert!(library.get("care-call").is_some(), "those built in are there too");
        assert_eq!(library.reload(), Reload::default(), "nothing has changed");

        std::fs::write(&file, policy("ward", "20s")).unwrap();
        let reload = library.reload();
        assert_eq!(reload.changed.len(), 1);
        let second = library.get("ward").unwrap();
        assert_ne!(first.version(), second.version());

        std::fs::write(&file, policy("ward", "never")).unwrap();
        let reload = library.reload();
        assert!(
            matches!(&reload.problems[..], [LibraryError::Policy { line: 9, .. }]),
            "{reload:?}"
        );
        assert_eq!(library.get("ward").unwrap().version(), second.version());
        assert_eq!(library.reload(), Reload::default(), "a problem is told once");

        std::fs::remove_file(&file).unwrap();
        assert_eq!(library.reload().removed, ["ward"]);
        assert!(library.get("ward").is_none());
    }

    #[test]
    fn one_of_a_folder_goes_before_one_built_in_which_comes_back_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.yaml");
        let built_in = Library::open(None).unwrap().get("care-call").unwrap();
        std::fs::write(&file, policy("care-call", "10s")).unwrap();
        let library = Library::open(Some(folder.path())).unwrap();
        assert_ne!(library.get("care-call").unwrap().version(), built_in.version());
        std::fs::remove_file(&file).unwrap();
        library.reload();
        assert_eq!(library.get("care-call").unwrap().version(), built_in.version());
    }

    #[test]
    fn at_the_start_everything_must_be_good() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            std::fs::write(folder.path().join(file), text).unwrap();
        };
        write("a.yaml", "schema: undertone.policy/v1\nname: [");
        let error = Library::open(Some(folder.path())).unwrap_err();
        assert!(matches!(error, LibraryError::Policy { .. }), "{error}");
        write("a.yaml", &policy("same", "10s"));
        write("b.yaml", &policy("same", "10s"));
        let error = Library::open(Some(folder.path())).unwrap_err();
        assert!(matches!(error, LibraryError::Twice { .. }), "{error}");
        let missing = folder.path().join("none");
        assert!(matches!(Library::open(Some(&missing)), Err(LibraryError::Read { .. })));
    }
}
