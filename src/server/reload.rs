//! Files that change while the server runs: looked at every so often.
//!
//! What always holds: what cannot be used leaves in force what was, and is tried again at each look until it
//! can be used, since a file may name another one that comes later. The same fault is told once. A look
//! that panics is a fault and not the last look.

use std::fmt::Display;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::telemetry::metrics;

/// Looks at files of this `kind` every `pause` until `stop`. `look` blocks on the file system, and says whether
/// others are in force now.
pub(super) async fn keep<E: Display + Send + 'static>(
    kind: &'static str,
    pause: Duration,
    stop: CancellationToken,
    look: impl Fn() -> Result<bool, E> + Clone + Send + 'static,
) {
    let mut told = None;
    // Cut off while it waits: a look blocks and ends.
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let fault = match tokio::task::spawn_blocking(look.clone()).await {
            Ok(Ok(changed)) => {
                if changed {
                    metrics().secret_reload(kind, "changed");
                    tracing::info!("{kind} in force for what is new");
                }
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(panic) => Some(panic.to_string()),
        };
        if let Some(error) = fault.as_ref().filter(|_| fault != told) {
            metrics().secret_reload(kind, "refused");
            tracing::error!(error, "{kind} refused; those before stay in force");
        }
        told = fault;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn looks_go_on_after_a_fault_and_after_a_panic() {
        let looks = Arc::new(AtomicUsize::new(0));
        let stop = CancellationToken::new();
        let look = {
            let (looks, stop) = (looks.clone(), stop.clone());
            move || match looks.fetch_add(1, Ordering::SeqCst) {
                0 => Err("cannot be read"),
                1 => panic!("in a look"),
                _ => {
                    stop.cancel();
                    Ok(true)
                }
            }
        };
        let kept = keep("tests", Duration::from_millis(1), stop, look);
        tokio::time::timeout(Duration::from_secs(30), kept).await.expect("it ends with the third");
        assert_eq!(looks.load(Ordering::SeqCst), 3);
    }
}
