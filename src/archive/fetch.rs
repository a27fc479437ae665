//! One clip: its bytes fetched into what room there is, then heard when there is a place.

use std::sync::Arc;

use object_store::path::Path as Key;
use tokio::sync::Semaphore;

use super::error::{ArchiveError, advice};
use super::find::{Clip, Source, Version};
use super::hear::{Audio, Hear, HearError};
use super::row::{Failure, FailureCode, Heard};
use super::store::Store;

/// How much is under way at once.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Clips being heard; 1 at least.
    pub jobs: usize,
    /// Largest object, bytes.
    pub object_bytes: u64,
    /// Objects in memory, bytes; as many as the largest object has at least.
    pub buffered_bytes: u64,
}

/// A clip that is done.
#[derive(Debug)]
pub struct Done {
    /// As it was found.
    pub clip: Clip,
    /// What it was when it was read.
    pub version: Version,
    /// What came of it.
    pub outcome: Result<Heard, Failure>,
}

/// Fetches clips and has them heard, within bounds.
#[derive(Debug)]
pub struct Fetcher<H> {
    hearer: Arc<H>,
    bounds: Bounds,
    /// One permit per clip that is heard.
    places: Semaphore,
    /// One permit per KiB in memory: a semaphore gives no more than 32 bits can count at once.
    room: Semaphore,
}

const KIB: u64 = 1 << 10;

impl<H: Hear> Fetcher<H> {
    /// Has clips heard by `hearer`.
    pub fn new(hearer: Arc<H>, bounds: Bounds) -> Self {
        let jobs = bounds.jobs.max(1);
        let most = u64::from(u32::MAX) * KIB;
        let buffered = bounds.buffered_bytes.max(bounds.object_bytes).clamp(KIB, most);
        let bounds = Bounds {
            jobs,
            object_bytes: bounds.object_bytes.min(buffered),
            buffered_bytes: buffered,
        };
        let room = buffered.div_ceil(KIB) as usize;
        Self { hearer, bounds, places: Semaphore::new(jobs), room: Semaphore::new(room) }
    }

    /// Clips that should be under way: twice those that are heard, so that the next ones are fetched meanwhile.
    pub fn ahead(&self) -> usize {
        2 * self.bounds.jobs
    }

    /// Fetches a clip and has it heard.
    ///
    /// # Errors
    /// [`ArchiveError::Engine`] if the model cannot be run. What is wrong with the clip stands in its outcome.
    ///
    /// # Cancellation
    /// Dropping the future stops the work.
    pub async fn hear(&self, clip: Clip) -> Result<Done, ArchiveError> {
        let mut version = clip.version.clone();
        let outcome = match self.outcome(&clip, &mut version).await {
            Ok(heard) => Ok(heard),
            Err(HearError::Clip(failure)) => Err(failure),
            Err(HearError::Engine(reason)) => {
                return Err(ArchiveError::Engine { path: clip.path, reason });
            }
        };
        Ok(Done { clip, version, outcome })
    }

    async fn outcome(&self, clip: &Clip, version: &mut Version) -> Result<Heard, HearError> {
        // Neither semaphore is ever closed, so that a permit always comes.
        let (audio, _room) = match &clip.source {
            Source::File(path) => (Audio::File(path.clone()), None),
            Source::Object(store, key) => {
                self.check_size(version.bytes)?;
                let kib = version.bytes.div_ceil(KIB).max(1) as u32;
                let room = self.room.acquire_many(kib).await.ok();
                (self.fetch(store, key, version).await?, room)
            }
        };
        let _place = self.places.acquire().await.ok();
        self.hearer.hear(clip, audio).await
    }

    /// Reads an object. `version` becomes what it was then, if that is another one than was listed.
    async fn fetch(
        &self,
        store: &Store,
        key: &Key,
        version: &mut Version,
    ) -> Result<Audio, HearError> {
        let unreadable = |error: object_store::Error| {
            refuse(FailureCode::Unreadable, format!("{error}{}", advice(&error)))
        };
        let got = store.get(key).await.map_err(unreadable)?;
        let now = Version::of(&got.meta);
        // Times of the two answers may have other precisions: tags and sizes only.
        let other_tag = matches!((&now.etag, &version.etag), (Some(a), Some(b)) if a != b);
        if other_tag || now.bytes != version.bytes {
            *version = now;
        }
        self.check_size(version.bytes)?;
        Ok(Audio::Memory(got.bytes().await.map_err(unreadable)?))
    }

    fn check_size(&self, bytes: u64) -> Result<(), HearError> {
        let most = self.bounds.object_bytes;
        if bytes <= most {
            return Ok(());
        }
        let message = format!("it has {bytes} bytes, more than {most} (--max-object-bytes)");
        Err(refuse(FailureCode::TooLarge, message))
    }
}

fn refuse(code: FailureCode, message: String) -> HearError {
    HearError::Clip(Failure { code, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use tokio::task::JoinSet;

    /// Counts how many it hears at once.
    #[derive(Default)]
    struct Counter {
        now: AtomicUsize,
        most: AtomicUsize,
    }

    impl Hear for Counter {
        async fn hear(&self, _: &Clip, audio: Audio) -> Result<Heard, HearError> {
            assert!(matches!(audio, Audio::Memory(bytes) if bytes.len() == 1 << 20));
            let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(now, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.now.fetch_sub(1, Ordering::Relaxed);
            Ok(Heard::default())
        }
    }

    async fn clips(count: usize) -> (Arc<InMemory>, Vec<Clip>) {
        let inner = Arc::new(InMemory::new());
        let store = Store::from_parts(inner.clone(), "memory://");
        let mut clips = Vec::new();
        for number in 0..count {
            let key = Key::from(format!("{number}.wav"));
            inner.put(&key, vec![0; 1 << 20].into()).await.unwrap();
            let version = Version::of(&inner.head(&key).await.unwrap());
            let source = Source::Object(store.clone(), key.clone());
            clips.push(Clip { path: store.path_of(&key), version, source });
        }
        (inner, clips)
    }

    /// How many of twelve objects of 1 MiB are heard at once at most.
    async fn at_once(jobs: usize, buffered_bytes: u64) -> usize {
        let counter = Arc::new(Counter::default());
        let bounds = Bounds { jobs, object_bytes: 1 << 20, buffered_bytes };
        let fetcher = Arc::new(Fetcher::new(counter.clone(), bounds));
        let mut running = JoinSet::new();
        for clip in clips(12).await.1 {
            let fetcher = fetcher.clone();
            running.spawn(async move { fetcher.hear(clip).await.unwrap().outcome.unwrap() });
        }
        assert_eq!(running.join_all().await.len(), 12);
        counter.most.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn neither_places_nor_memory_are_exceeded_and_both_are_used() {
        assert_eq!(at_once(3, 64 << 20).await, 3);
        assert_eq!(at_once(8, 2 << 20).await, 2);
        // Less than one object is room for one.
        assert_eq!(at_once(8, 0).await, 1);
    }

    #[tokio::test]
    async fn an_object_that_changed_since_it_was_listed_is_told_as_what_it_is_now() {
        let (inner, mut clips) = clips(2).await;
        let bounds = Bounds { jobs: 1, object_bytes: 1 << 20, buffered_bytes: 1 << 20 };
        let fetcher = Fetcher::new(Arc::new(Counter::default()), bounds);
        let same = clips.remove(0);
        let listed = same.version.clone();
        assert_eq!(fetcher.hear(same).await.unwrap().version, listed);
        let key = Key::from("1.wav");
        inner.put(&key, vec![0; (1 << 20) + 1].into()).await.unwrap();
        let done = fetcher.hear(clips.remove(0)).await.unwrap();
        assert_eq!(done.version, Version::of(&inner.head(&key).await.unwrap()));
        // And it has grown beyond the limit.
        assert_eq!(done.outcome.unwrap_err().code, FailureCode::TooLarge);
    }
}
