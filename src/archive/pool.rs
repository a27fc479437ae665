//! Clips under way side by side, in whatever order they are done.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::error::ArchiveError;
use super::fetch::{Bounds, Done, Fetcher};
use super::find::Clip;
use super::hear::Hear;

/// Clips, waiting and under way.
pub(super) struct Pool<H> {
    fetcher: Arc<Fetcher<H>>,
    waiting: std::vec::IntoIter<Clip>,
    /// At most [`Fetcher::ahead`].
    running: JoinSet<Result<Done, ArchiveError>>,
}

impl<H: Hear> Pool<H> {
    pub(super) fn new(clips: Vec<Clip>, hearer: Arc<H>, bounds: Bounds) -> Self {
        let fetcher = Arc::new(Fetcher::new(hearer, bounds));
        Self { fetcher, waiting: clips.into_iter(), running: JoinSet::new() }
    }

    /// The next clip that is done; `None` when all are.
    ///
    /// # Errors
    /// [`ArchiveError::Engine`] if the model cannot be run.
    ///
    /// # Cancellation
    /// Safe: what is under way goes on.
    pub(super) async fn next(&mut self) -> Option<Result<Done, ArchiveError>> {
        while self.running.len() < self.fetcher.ahead()
            && let Some(clip) = self.waiting.next()
        {
            let fetcher = self.fetcher.clone();
            self.running.spawn(async move { fetcher.hear(clip).await });
        }
        let joined = self.running.join_next().await?;
        Some(joined.unwrap_or_else(|error| {
            let reason = error.to_string();
            Err(ArchiveError::Engine { path: "a clip".to_owned(), reason })
        }))
    }
}
