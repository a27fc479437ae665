//! Finding recordings: what was typed -> clips, each with what tells its versions apart.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use object_store::ObjectMeta;
use object_store::path::Path as Key;

use super::error::ArchiveError;
use super::location::Location;
use super::store::{Store, StoreSettings};

/// What counts as an audio file inside a folder or below a prefix. What is named itself is always tried.
const EXTENSIONS: [&str; 15] = [
    "wav", "flac", "ogg", "oga", "mp3", "m4a", "mp4", "m4b", "aac", "aiff", "aif", "mkv", "mka",
    "webm", "caf",
];

/// Which content a path had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Size in bytes.
    pub bytes: u64,
    /// The store's tag for the content; files of this machine have none.
    pub etag: Option<String>,
    /// Last change, microseconds since 1970 UTC.
    pub modified_us: i64,
}

impl Version {
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        Self {
            bytes: meta.size,
            etag: meta.e_tag.clone(),
            modified_us: meta.last_modified.timestamp_micros(),
        }
    }

    /// Whether it is the same content, as far as one can tell: by the tags where both have one.
    pub fn same_as(&self, other: &Self) -> bool {
        let rest = match (&self.etag, &other.etag) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => self.modified_us == other.modified_us,
        };
        self.bytes == other.bytes && rest
    }
}

/// Where a clip's bytes are.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file, as it was typed or found.
    File(PathBuf),
    /// An object in a bucket.
    Object(Store, Key),
}

/// A recording to be analysed.
#[derive(Debug, Clone)]
pub struct Clip {
    /// Its name in the tables: `s3://bucket/key` with the key as it is, or an absolute path.
    pub path: String,
    /// What it was when it was found.
    pub version: Version,
    /// Where its bytes are.
    pub source: Source,
}

impl Clip {
    /// Its name for people: a file as it was typed.
    pub fn shown(&self) -> String {
        match &self.source {
            Source::File(path) => path.display().to_string(),
            Source::Object(..) => self.path.clone(),
        }
    }

    fn file(path: PathBuf, wanted: Wanted<'_>) -> std::io::Result<Option<Self>> {
        let absolute = std::path::absolute(&path)?.display().to_string();
        if !wanted(&absolute) {
            return Ok(None);
        }
        let data = std::fs::metadata(&path)?;
        let modified = data.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let version = Version {
            bytes: data.len(),
            etag: None,
            modified_us: modified.map_or(0, |since| since.as_micros() as i64),
        };
        Ok(Some(Self { path: absolute, version, source: Source::File(path) }))
    }

    fn object(store: &Store, meta: ObjectMeta, wanted: Wanted<'_>) -> Option<Self> {
        let path = store.path_of(&meta.location);
        let version = Version::of(&meta);
        let source = Source::Object(store.clone(), meta.location);
        wanted(&path).then_some(Self { path, version, source })
    }
}

/// Which paths are of interest.
type Wanted<'a> = &'a (dyn Fn(&str) -> bool + Sync);

/// What there is at the locations.
#[derive(Debug, Default)]
pub struct Found {
    /// The clips that are wanted, in the order of the locations and by name within each.
    pub clips: Vec<Clip>,
    /// Places that cannot be read or hold no audio, each with the reason.
    pub faults: Vec<String>,
}

/// Looks for audio at `locations`: files and objects that are named, and what is in folders and below
/// prefixes; gives those whose path is `wanted`. `seen` is told how many there are so far, wanted or not.
///
/// # Errors
/// [`ArchiveError`] if a bucket cannot be listed.
pub async fn find(
    locations: &[Location],
    settings: &StoreSettings,
    wanted: Wanted<'_>,
    mut seen: impl FnMut(usize),
) -> Result<Found, ArchiveError> {
    let mut found = Found::default();
    let mut count = 0;
    for location in locations {
        let before = (count, found.faults.len());
        let mut tell = || {
            count += 1;
            seen(count);
        };
        match location {
            Location::Local(path) => find_files(path, wanted, &mut found, &mut tell),
            Location::Bucket(url) => {
                let store = Store::bucket(url, settings)?;
                find_objects(&store, wanted, &mut found, &mut tell).await?;
            }
        }
        if (count, found.faults.len()) == before {
            found.faults.push(format!("{location}: no audio files in there"));
        }
    }
    Ok(found)
}

fn find_files(path: &Path, wanted: Wanted<'_>, found: &mut Found, tell: &mut impl FnMut()) {
    let mut take = |path: PathBuf| {
        tell();
        let shown = path.display().to_string();
        match Clip::file(path, wanted) {
            Ok(clip) => found.clips.extend(clip),
            Err(error) => found.faults.push(format!("{shown}: cannot read the audio: {error}")),
        }
    };
    if !path.is_dir() {
        take(path.to_owned());
        return;
    }
    let mut faults = Vec::new();
    for entry in walkdir::WalkDir::new(path).sort_by_file_name() {
        match entry {
            Ok(entry) if entry.file_type().is_file() && is_audio(extension(entry.path())) => {
                take(entry.into_path());
            }
            Ok(_) => {}
            Err(error) => faults.push(error.to_string()),
        }
    }
    found.faults.append(&mut faults);
}

async fn find_objects(
    store: &Store,
    wanted: Wanted<'_>,
    found: &mut Found,
    tell: &mut impl FnMut(),
) -> Result<(), ArchiveError> {
    let (mut clips, mut below) = (Vec::new(), false);
    let take = |meta: ObjectMeta| {
        below = true;
        if is_audio(meta.location.extension().unwrap_or_default()) {
            tell();
            clips.extend(Clip::object(store, meta, wanted));
        }
    };
    store.list_all(take).await?;
    // A prefix is no object of that name, nearly always: so this comes second.
    if !below && let Some(meta) = store.itself().await? {
        tell();
        clips.extend(Clip::object(store, meta, wanted));
    }
    // Not every store lists in order.
    clips.sort_by(|a, b| a.path.cmp(&b.path));
    found.clips.append(&mut clips);
    Ok(())
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

fn is_audio(extension: &str) -> bool {
    EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;
    use std::sync::Arc;

    #[test]
    fn versions_are_told_apart_by_tag_and_else_by_time() {
        let version = |bytes, etag: Option<&str>, modified_us| Version {
            bytes,
            etag: etag.map(ToOwned::to_owned),
            modified_us,
        };
        assert!(version(1, Some("a"), 1).same_as(&version(1, Some("a"), 2)));
        assert!(!version(1, Some("a"), 1).same_as(&version(1, Some("b"), 1)));
        assert!(!version(1, Some("a"), 1).same_as(&version(2, Some("a"), 1)));
        assert!(version(1, None, 1).same_as(&version(1, Some("a"), 1)));
        assert!(!version(1, None, 1).same_as(&version(1, None, 2)));
    }

    #[tokio::test]
    async fn objects_are_found_recursively_in_order_by_what_they_are_called() {
        let inner = Arc::new(InMemory::new());
        for key in ["b.wav", "a/z.MP3", "a/notes.txt", "a/a.flac", "wav"] {
            inner.put(&Key::from(key), "x".into()).await.unwrap();
        }
        let store = Store::from_parts(inner, "s3://calls/");
        let mut found = Found::default();
        let mut count = 0;
        find_objects(&store, &|_| true, &mut found, &mut || count += 1).await.unwrap();
        let paths: Vec<&str> = found.clips.iter().map(|clip| clip.path.as_str()).collect();
        assert_eq!(paths, ["s3://calls/a/a.flac", "s3://calls/a/z.MP3", "s3://calls/b.wav"]);
        assert_eq!(count, 3);
    }

    #[tokio::test]
    async fn files_have_absolute_paths_and_places_without_audio_are_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.wav"), "x").unwrap();
        let empty = folder.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        let settings = StoreSettings {
            options: Vec::new(),
            retries: 0,
            retry_timeout: std::time::Duration::ZERO,
            timeout: std::time::Duration::ZERO,
        };
        let look = async |path: PathBuf| {
            find(&[Location::Local(path)], &settings, &|_| true, |_| {}).await.unwrap()
        };
        let found = look(folder.path().to_owned()).await;
        assert_eq!(found.clips[0].path, folder.path().join("a.wav").display().to_string());
        assert_eq!((found.clips[0].version.bytes, found.faults.len()), (1, 0));
        assert!(look(empty).await.faults[0].contains("no audio files"));
        let gone = look(folder.path().join("gone.wav")).await;
        assert!(gone.clips.is_empty() && gone.faults[0].contains("gone.wav"), "{gone:?}");
    }
}
