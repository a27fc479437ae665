//! The same work for each of many clips, over all cores.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Somebody asked to stop before the work was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// What a long run tells and is told: called after each clip, from several threads; asked to stop by
/// setting the flag.
pub struct Watch<'a> {
    progress: &'a (dyn Fn() + Sync),
    stop: &'a AtomicBool,
}

impl<'a> Watch<'a> {
    /// Calls `progress` after each clip and stops soon after `stop` is set.
    pub fn new(progress: &'a (dyn Fn() + Sync), stop: &'a AtomicBool) -> Self {
        Self { progress, stop }
    }

    /// Whether to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// `work` of every one of `items`, in their order.
///
/// # Errors
/// [`Interrupted`] if the flag of `watch` was set before the end.
pub(super) fn map<T: Sync, R: Send>(
    items: &[T],
    watch: &Watch<'_>,
    work: impl Fn(&T) -> R + Sync,
) -> Result<Vec<R>, Interrupted> {
    let next = AtomicUsize::new(0);
    let share = || {
        let mut done = Vec::new();
        while !watch.is_stopped() {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            done.push((index, work(item)));
            (watch.progress)();
        }
        done
    };
    let mut results: Vec<(usize, R)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..num_cpus::get()).map(|_| scope.spawn(share)).collect();
        threads
            .into_iter()
            .flat_map(|thread| match thread.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    });
    if results.len() < items.len() {
        return Err(Interrupted);
    }
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items_and_each_is_told() {
        let (stop, told) = (AtomicBool::new(false), AtomicUsize::new(0));
        let tell = || {
            told.fetch_add(1, Ordering::Relaxed);
        };
        let items: Vec<usize> = (0..1_000).collect();
        let doubled = map(&items, &Watch::new(&tell, &stop), |item| item * 2).unwrap();
        assert_eq!(doubled, (0..1_000).map(|i| i * 2).collect::<Vec<_>>());
        assert_eq!(told.into_inner(), 1_000);
    }

    #[test]
    fn work_that_is_stopped_gives_nothing() {
        let stop = AtomicBool::new(false);
        let stopping = || stop.store(true, Ordering::Relaxed);
        let items = vec![(); 1_000];
        assert_eq!(map(&items, &Watch::new(&stopping, &stop), |()| ()), Err(Interrupted));
    }
}
