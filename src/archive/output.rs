//! The output: what is there already, and how a part is added to it.
//!
//! ```text
//! OUTPUT/_undertone.json                                    what all results come from
//! OUTPUT/clips/part-00003-of-00016-00000012.parquet         a part
//! OUTPUT/utterances/part-00003-of-00016-00000012.parquet    its twin
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use object_store::Error::NotFound;
use object_store::path::Path as Key;
use parquet::errors::ParquetError;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::error::ArchiveError;
use super::find::Version;
use super::location::Location;
use super::origin::Origin;
use super::part::PartName;
use super::plan::{Earlier, Entry, Torn};
use super::row::{ClipRow, FailureCode, UtteranceRow};
use super::schema::{CLIPS, SCHEMA, UTTERANCES};
use super::shard::Shard;
use super::store::{Store, StoreSettings};
use super::table::{Cell, each_row, note, write_table};

/// Says what all results come from. Readers of folders of tables pass over names that begin so.
const ORIGIN: &str = "_undertone.json";
/// Parts that are read at once: enough to hide a store's latency; a full one has some 20 MB in memory.
const READERS: usize = 4;
/// How often a part is put again whose name is said to be taken although there is none.
const MAX_CONFLICTS: u32 = 5;
/// The key under which a part says who wrote it.
const WRITER: &str = "undertone.writer";
/// The columns by which what is done is known.
const KNOWN_BY: [&str; 7] =
    ["path", "bytes", "etag", "last_modified", "analyzed_at", "utterances", "error_code"];

/// Where one shard's results go.
#[derive(Debug)]
pub struct Output {
    store: Store,
    origin: Origin,
    shard: Shard,
    /// Tells this process's parts from those of another one on the same shard.
    writer: String,
    next: u32,
}

/// A part that was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Added {
    /// Its clips.
    pub(super) clips: usize,
}

impl Output {
    /// Opens the output at `location`, or begins one.
    ///
    /// # Errors
    /// [`ArchiveError::OtherResults`] if what is there comes from something else than `origin`; others if it
    /// cannot be reached.
    pub async fn open(
        location: &Location,
        settings: &StoreSettings,
        origin: Origin,
        shard: Shard,
    ) -> Result<Self, ArchiveError> {
        Self::with(Store::open(location, settings)?, origin, shard).await
    }

    /// As [`Self::open`], in a store that is open.
    pub(super) async fn with(
        store: Store,
        origin: Origin,
        shard: Shard,
    ) -> Result<Self, ArchiveError> {
        let at = store.below(ORIGIN);
        if !store.create(&at, origin.to_json().into()).await? {
            let written = store.read(&at).await?;
            let differences = origin.differences(&written).map_err(|error| {
                foreign(&store, &at, &error.to_string(), "name another --output, or remove it")
            })?;
            if !differences.is_empty() {
                return Err(ArchiveError::OtherResults { output: store.shown(), differences });
            }
        }
        let writer = Uuid::now_v7().to_string();
        Ok(Self { store, origin, shard, writer, next: 0 })
    }

    /// The output, as people write it.
    pub fn shown(&self) -> String {
        self.store.shown()
    }

    /// Reads what is done of this shard, by workers on it or on shards of another number. Also gives the
    /// parts that this worker is to mend.
    ///
    /// # Errors
    /// [`ArchiveError`] if a part cannot be read.
    pub async fn earlier(&mut self) -> Result<(Earlier, Vec<Torn>), ArchiveError> {
        // Clips first: a part whose clips are seen here and whose twin is not is torn, or just being
        // written by another worker, who then finds its twin written or writes it before we do.
        let clips = self.names("clips").await?;
        let twins = self.names("utterances").await?;
        let own = clips.iter().filter(|name| name.shard == self.shard);
        self.next = own.map(|name| name.number + 1).max().unwrap_or(0);
        let mends =
            |name: &PartName| self.shard.mends(name.shard) && !twins.contains(&name.to_string());
        let mut earlier = Earlier::default();
        let mut torn = Vec::new();
        let wanted: Vec<PartName> =
            clips.into_iter().filter(|name| self.shard.meets(name.shard) || mends(name)).collect();
        let mut waiting = wanted.into_iter();
        let mut reading = JoinSet::new();
        loop {
            while reading.len() < READERS
                && let Some(name) = waiting.next()
            {
                let store = self.store.clone();
                reading
                    .spawn(async move { read_part(&store, name).await.map(|rows| (name, rows)) });
            }
            let Some(read) = reading.join_next().await else {
                return Ok((earlier, torn));
            };
            let (name, rows) = read.map_err(|error| ArchiveError::Engine {
                path: self.shown(),
                reason: error.to_string(),
            })??;
            if mends(&name) {
                let spoke = |row: &&Row| row.utterances > 0;
                let clips = rows.iter().filter(spoke).map(|r| (r.path.clone(), r.entry.clone()));
                torn.push(Torn { name, clips: clips.collect() });
            }
            for row in rows.into_iter().filter(|row| self.shard.owns(&row.path)) {
                earlier.add(row.path, row.entry);
            }
        }
    }

    async fn names(&self, table: &str) -> Result<Names, ArchiveError> {
        let mut names = Names::default();
        let take = |meta: object_store::ObjectMeta| {
            let name = meta.location.filename().unwrap_or_default();
            if let Ok(part) = name.parse() {
                names.parts.push(part);
                names.texts.insert(name.to_owned());
            }
        };
        self.store.list(&self.store.below(table), take).await?;
        Ok(names)
    }

    /// Adds a part with those of `rows` that say something new: another worker on this shard may have been
    /// first, and what it has added is taken into `earlier`. No part for no rows.
    ///
    /// # Errors
    /// [`ArchiveError`] if it cannot be written.
    ///
    /// # Cancellation
    /// Dropping the future leaves no part, a torn one, or the whole.
    pub(super) async fn add(
        &mut self,
        mut rows: Vec<ClipRow>,
        earlier: &mut Earlier,
    ) -> Result<Added, ArchiveError> {
        rows.sort_by(|a, b| a.path.cmp(&b.path));
        let mut conflicts = MAX_CONFLICTS;
        loop {
            rows.retain(|row| !earlier.makes_needless(row));
            for row in &mut rows {
                row.analyzed_at_us = earlier.after(&row.path, row.analyzed_at_us);
            }
            if rows.is_empty() {
                return Ok(Added { clips: 0 });
            }
            let name = PartName { shard: self.shard, number: self.next };
            let clips = write_table(CLIPS, &rows, &self.origin, self.notes("clips"))?;
            let at = self.store.below(&name.clips());
            self.next += 1;
            if !self.store.create(&at, clips).await? {
                let theirs = match self.store.read(&at).await {
                    // S3 also says so of two puts at once, of which none may have come through.
                    Err(ArchiveError::Store { cause: NotFound { .. }, .. }) if conflicts > 0 => {
                        conflicts -= 1;
                        self.next = name.number;
                        continue;
                    }
                    theirs => theirs?,
                };
                if !self.is_own(&theirs) {
                    for row in part_rows(&self.store, &at, theirs)? {
                        earlier.add(row.path, row.entry);
                    }
                    continue;
                }
            }
            let utterances: Vec<UtteranceRow> = rows.iter().flat_map(ClipRow::utterances).collect();
            self.add_twin(name, &utterances).await?;
            for row in &rows {
                earlier.add(row.path.clone(), Entry::of(row));
            }
            return Ok(Added { clips: rows.len() });
        }
    }

    /// Whether a part is ours after all: a put that was answered too late and tried again finds itself.
    fn is_own(&self, part: &Bytes) -> bool {
        let writer = note(part.clone(), WRITER).ok().flatten();
        writer.as_deref() == Some(&self.writer)
    }

    /// Writes the twin of a part, unless it is there.
    ///
    /// # Errors
    /// [`ArchiveError`] if it cannot be written.
    pub(super) async fn add_twin(
        &self,
        name: PartName,
        rows: &[UtteranceRow],
    ) -> Result<(), ArchiveError> {
        let bytes = write_table(UTTERANCES, rows, &self.origin, self.notes("utterances"))?;
        self.store.create(&self.store.below(&name.utterances()), bytes).await?;
        Ok(())
    }

    /// What a file says of itself.
    fn notes(&self, table: &str) -> Vec<(String, String)> {
        let model = &self.origin.model;
        [
            ("undertone.schema", SCHEMA.to_string()),
            ("undertone.table", table.to_owned()),
            ("undertone.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("undertone.model.name", model.name.clone()),
            ("undertone.model.version", model.version.clone()),
            ("undertone.model.sha256", model.sha256.clone()),
            ("undertone.origin", self.origin.to_json()),
            ("undertone.shard", self.shard.to_string()),
            (WRITER, self.writer.clone()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }
}

/// Names of parts in one of the two folders.
#[derive(Debug, Default)]
struct Names {
    parts: Vec<PartName>,
    texts: BTreeSet<String>,
}

impl Names {
    fn iter(&self) -> impl Iterator<Item = &PartName> {
        self.parts.iter()
    }

    fn into_iter(self) -> impl Iterator<Item = PartName> {
        self.parts.into_iter()
    }

    fn contains(&self, name: &str) -> bool {
        self.texts.contains(name)
    }
}

/// What of a row of clips tells whether it is done.
struct Row {
    path: Arc<str>,
    entry: Entry,
    utterances: i64,
}

async fn read_part(store: &Store, name: PartName) -> Result<Vec<Row>, ArchiveError> {
    let at = store.below(&name.clips());
    part_rows(store, &at, store.read(&at).await?)
}

fn part_rows(store: &Store, at: &Key, part: Bytes) -> Result<Vec<Row>, ArchiveError> {
    let (mut rows, mut complete) = (Vec::new(), true);
    let each = |cells: Vec<Cell>| match row(&cells) {
        Some(row) => rows.push(row),
        None => complete = false,
    };
    each_row(part, &KNOWN_BY, each).map_err(|error| unreadable(store, at, &error))?;
    if complete {
        return Ok(rows);
    }
    Err(foreign(store, at, "its rows are not those of clips", "remove what is not ours"))
}

fn row(cells: &[Cell]) -> Option<Row> {
    let [path, bytes, etag, modified, analyzed, utterances, error] = cells else {
        return None;
    };
    let version = Version {
        bytes: u64::try_from(bytes.whole()?).ok()?,
        etag: etag.text().map(ToOwned::to_owned),
        modified_us: modified.whole()?,
    };
    // A code of a newer build is a failure that we know nothing else of.
    let code = |name| FailureCode::from_name(name).unwrap_or(FailureCode::Internal);
    Some(Row {
        path: path.text()?.into(),
        entry: Entry { version, analyzed_at_us: analyzed.whole()?, failed: error.text().map(code) },
        utterances: utterances.whole().unwrap_or_default(),
    })
}

fn unreadable(store: &Store, at: &Key, error: &ParquetError) -> ArchiveError {
    foreign(store, at, &error.to_string(), "it is damaged or not ours: move it away and run again")
}

fn foreign(store: &Store, at: &Key, problem: &str, remedy: &str) -> ArchiveError {
    ArchiveError::Foreign {
        object: store.path_of(at),
        problem: problem.to_owned(),
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::{Failure, Heard, Utterance};
    use super::*;
    use crate::model::Manifest;
    use crate::wire::parse::{ClipSettings, Defaults, default_analysis};
    use object_store::memory::InMemory;

    async fn output() -> Output {
        let toml = include_str!("../../tests/data/models/tiny-steps/model.toml");
        let analysis = default_analysis(&Defaults::default());
        let settings = ClipSettings { analysis, separate_channels: false };
        let origin = Origin::new(&Manifest::parse(toml).unwrap(), &settings);
        let store = Store::from_parts(Arc::new(InMemory::new()), "memory://");
        Output::with(store, origin, Shard::WHOLE).await.unwrap()
    }

    fn row(path: &str, outcome: Result<Heard, Failure>) -> ClipRow {
        let version = Version { bytes: 3, etag: Some("\"x\"".to_owned()), modified_us: -7 };
        ClipRow { path: path.into(), version, analyzed_at_us: 1 << 40, outcome }
    }

    #[tokio::test]
    async fn what_is_written_is_what_is_read_of_it() {
        let mut output = output().await;
        let spoke = Heard { utterances: vec![Utterance::default(); 2], ..Heard::default() };
        let code = FailureCode::Damaged;
        let failure = Failure { code, message: "why".to_owned() };
        let rows =
            vec![row("b", Ok(spoke)), row("a", Err(failure)), row("c", Ok(Heard::default()))];
        output.add(rows.clone(), &mut Earlier::default()).await.unwrap();
        let (earlier, torn) = output.earlier().await.unwrap();
        assert_eq!((earlier.len(), torn.len()), (3, 0));
        for row in &rows {
            assert_eq!(earlier.get(&row.path), Some(&Entry::of(row)));
        }
    }

    #[tokio::test]
    async fn a_put_that_was_answered_too_late_is_known_again() {
        let mut output = output().await;
        let spoke = Heard { utterances: vec![Utterance::default()], ..Heard::default() };
        let rows = vec![row("a", Ok(spoke))];
        let name = PartName { shard: Shard::WHOLE, number: 0 };
        let part = write_table(CLIPS, &rows, &output.origin, output.notes("clips")).unwrap();
        assert!(output.store.create(&output.store.below(&name.clips()), part).await.unwrap());
        let added = output.add(rows, &mut Earlier::default()).await.unwrap();
        assert_eq!((added.clips, output.next), (1, 1));
        let (earlier, torn) = output.earlier().await.unwrap();
        assert_eq!((earlier.len(), torn.len()), (1, 0));
    }
}
