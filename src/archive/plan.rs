//! What is to be done: the clips that there are, less those that are done. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::find::{Clip, Version};
use super::part::PartName;
use super::row::{ClipRow, FailureCode};
use super::shard::Shard;

/// What a table says of a clip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was analysed.
    pub version: Version,
    /// When, microseconds since 1970 UTC.
    pub analyzed_at_us: i64,
    /// Set if it could not be.
    pub failed: Option<FailureCode>,
}

impl Entry {
    pub(super) fn of(row: &ClipRow) -> Self {
        Self {
            version: row.version.clone(),
            analyzed_at_us: row.analyzed_at_us,
            failed: row.outcome.as_ref().err().map(|failure| failure.code),
        }
    }

    /// Whether a clip of this version need not be analysed again.
    fn settles(&self, version: &Version, retry_failed: bool) -> bool {
        let stands = match self.failed {
            None => true,
            // The clip may be fine: it is the store that was not.
            Some(FailureCode::Unreadable) => false,
            Some(_) => !retry_failed,
        };
        stands && self.version.same_as(version)
    }
}

/// What the tables say of a shard's clips: of each the row that holds.
#[derive(Debug, Clone, Default)]
pub struct Earlier {
    entries: HashMap<Arc<str>, Entry>,
}

impl Earlier {
    /// Takes a row in; the latest of a path stays.
    pub fn add(&mut self, path: Arc<str>, entry: Entry) {
        let stays = self.get(&path).is_none_or(|old| old.analyzed_at_us <= entry.analyzed_at_us);
        if stays {
            self.entries.insert(path, entry);
        }
    }

    /// The row that holds of a path.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// How many clips there are rows of.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether `row` says nothing new: another worker was there first, or it failed again as before.
    pub(super) fn makes_needless(&self, row: &ClipRow) -> bool {
        let Some(entry) = self.get(&row.path) else {
            return false;
        };
        let failed = row.outcome.as_ref().err().map(|failure| failure.code);
        // What could not be read just now says nothing against what another one has found.
        let says_more = entry.failed.is_some()
            && entry.failed != failed
            && failed != Some(FailureCode::Unreadable);
        entry.version.same_as(&row.version) && !says_more
    }

    /// A time for a new row of `path`: `now_us`, but after every other one.
    pub(super) fn after(&self, path: &str, now_us: i64) -> i64 {
        self.get(path).map_or(now_us, |entry| now_us.max(entry.analyzed_at_us + 1))
    }
}

/// A part whose twin is missing: its writer ended between the two.
#[derive(Debug, Clone)]
pub struct Torn {
    pub(super) name: PartName,
    /// Its clips that have utterances.
    pub(super) clips: Vec<(Arc<str>, Entry)>,
}

/// A torn part and those of its clips that are as they were.
#[derive(Debug)]
pub struct Mending {
    pub(super) torn: Torn,
    pub(super) clips: Vec<Clip>,
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// Parts to mend first.
    pub mending: Vec<Mending>,
    /// The clips to analyse, by path.
    pub todo: Vec<Clip>,
    /// Clips that are done.
    pub done: usize,
    /// Those among them that could not be analysed.
    pub failed: usize,
}

impl Plan {
    /// What there is to do of `clips`, each path once, after what was done `earlier`. With `retry_failed`
    /// those that could not be analysed are tried again. Clips of other shards may be among them for the sake
    /// of what is `torn`.
    pub fn new(
        mut clips: Vec<Clip>,
        shard: Shard,
        earlier: &Earlier,
        torn: Vec<Torn>,
        retry_failed: bool,
    ) -> Self {
        clips.sort_by(|a, b| a.path.cmp(&b.path));
        clips.dedup_by(|a, b| a.path == b.path);
        let mending = torn.into_iter().map(|torn| torn.with(&clips)).collect();
        let mut plan = Self { mending, ..Self::default() };
        for clip in clips.into_iter().filter(|clip| shard.owns(&clip.path)) {
            match earlier.get(&clip.path) {
                Some(entry) if entry.settles(&clip.version, retry_failed) => {
                    plan.done += 1;
                    plan.failed += usize::from(entry.failed.is_some());
                }
                _ => plan.todo.push(clip),
            }
        }
        plan
    }
}

impl Torn {
    /// The paths of its clips that must be heard again.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.clips.iter().map(|(path, _)| &**path)
    }

    /// With its clips out of `sorted` ones.
    fn with(self, sorted: &[Clip]) -> Mending {
        let find = |(path, entry): &(Arc<str>, Entry)| {
            let at = sorted.binary_search_by(|clip| clip.path.as_str().cmp(path)).ok()?;
            sorted.get(at).filter(|clip| clip.version.same_as(&entry.version)).cloned()
        };
        let clips = self.clips.iter().filter_map(find).collect();
        Mending { torn: self, clips }
    }
}

#[cfg(test)]
mod tests {
    use super::super::find::Source;
    use super::*;
    use proptest::prelude::*;

    fn version(etag: &str) -> Version {
        Version { bytes: 1, etag: Some(etag.to_owned()), modified_us: 0 }
    }

    fn clip(path: &str, etag: &str) -> Clip {
        Clip { path: path.to_owned(), version: version(etag), source: Source::File(path.into()) }
    }

    fn entry(etag: &str, analyzed_at_us: i64, failed: Option<FailureCode>) -> Entry {
        Entry { version: version(etag), analyzed_at_us, failed }
    }

    fn plan_for(clips: Vec<Clip>, earlier: &Earlier, retry_failed: bool) -> Plan {
        Plan::new(clips, Shard::WHOLE, earlier, Vec::new(), retry_failed)
    }

    fn paths(plan: &Plan) -> Vec<&str> {
        plan.todo.iter().map(|clip| clip.path.as_str()).collect()
    }

    #[test]
    fn what_is_done_is_not_done_again_and_what_changed_is() {
        let mut earlier = Earlier::default();
        earlier.add("a".into(), entry("1", 5, None));
        earlier.add("b".into(), entry("1", 5, None));
        earlier.add("gone".into(), entry("1", 5, None));
        let found = || vec![clip("c", "1"), clip("b", "2"), clip("a", "1"), clip("c", "1")];
        let plan = plan_for(found(), &earlier, false);
        assert_eq!((paths(&plan), plan.done, plan.failed), (vec!["b", "c"], 1, 0));
        // The later row holds, whichever is read first.
        earlier.add("b".into(), entry("2", 9, None));
        earlier.add("b".into(), entry("1", 7, None));
        assert_eq!(paths(&plan_for(found(), &earlier, false)), ["c"]);
    }

    #[test]
    fn failures_stand_until_they_are_to_be_tried_again_but_unreadable_ones_never_do() {
        let mut earlier = Earlier::default();
        for code in FailureCode::ALL {
            earlier.add(code.name().into(), entry("1", 5, Some(code)));
        }
        let found = || FailureCode::ALL.map(|code| clip(code.name(), "1")).to_vec();
        let plan = plan_for(found(), &earlier, false);
        assert_eq!((paths(&plan), plan.done, plan.failed), (vec!["unreadable"], 4, 4));
        let plan = plan_for(found(), &earlier, true);
        assert_eq!((plan.todo.len(), plan.done, plan.failed), (5, 0, 0));
    }

    #[test]
    fn a_row_is_needless_if_it_says_nothing_new() {
        let failed = |code| Err(super::super::row::Failure { code, message: String::new() });
        let row = |etag: &str, outcome| ClipRow {
            path: "a".into(),
            version: version(etag),
            analyzed_at_us: 9,
            outcome,
        };
        let heard = || Ok(super::super::row::Heard::default());
        let (damaged, unreadable) = (FailureCode::Damaged, FailureCode::Unreadable);
        for (before, outcome, needless) in [
            (None, heard(), true),
            (None, failed(damaged), true),
            (Some(damaged), heard(), false),
            (Some(damaged), failed(damaged), true),
            (Some(damaged), failed(unreadable), true),
            (Some(unreadable), failed(damaged), false),
        ] {
            let mut earlier = Earlier::default();
            assert!(!earlier.makes_needless(&row("1", outcome.clone())));
            earlier.add("a".into(), entry("1", 5, before));
            assert_eq!(earlier.makes_needless(&row("1", outcome.clone())), needless, "{before:?}");
            assert!(!earlier.makes_needless(&row("2", outcome)));
        }
    }

    #[test]
    fn a_new_row_is_later_than_the_one_it_replaces_whatever_the_clock_says() {
        let mut earlier = Earlier::default();
        earlier.add("a".into(), entry("1", 100, None));
        assert_eq!(earlier.after("a", 50), 101);
        assert_eq!(earlier.after("a", 500), 500);
        assert_eq!(earlier.after("b", 50), 50);
    }

    proptest! {
        #[test]
        fn shards_partition_any_listing(
            names in prop::collection::vec("[a-z0-9/ ]{1,12}", 0..60),
            count in 1_u32..12,
        ) {
            let clips = || -> Vec<Clip> { names.iter().map(|name| clip(name, "1")).collect() };
            let whole = plan_for(clips(), &Earlier::default(), false);
            let mut parts: Vec<String> = (0..count)
                .map(|index| Shard::new(index, count).unwrap())
                .flat_map(|shard| {
                    // Whatever it is given, it does its own.
                    Plan::new(clips(), shard, &Earlier::default(), Vec::new(), false).todo
                })
                .map(|clip| clip.path)
                .collect();
            parts.sort();
            prop_assert_eq!(parts, paths(&whole));
        }
    }
}
