//! Signals that end a command cleanly.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code when interrupted: 128 and SIGINT.
pub(super) const INTERRUPTED: u8 = 130;

/// The first signal, SIGTERM or Ctrl-C, cancels `stop`; a second one ends the process at once, as people at a terminal
/// expect, with `last_word` if there is something to say.
///
/// # Errors
/// If the operating system lets nobody listen for signals.
///
/// # Cancellation
/// Signals are not heeded any more.
pub(super) async fn stop_on_signal(
    stop: CancellationToken,
    last_word: Option<&str>,
) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    if let Some(word) = last_word {
        complain!("undertone: {word}");
    }
    std::process::exit(INTERRUPTED.into());
}
