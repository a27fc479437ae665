//! What commands say, on standard output and standard error, where the reader may have gone.
//!
//! `undertone policy list | head -1` closes the pipe after a line. `println!` panics then. Here:
//! - `tell!` drops what nobody reads any more, and the command goes on: it may have files to write;
//! - [`stdout`] is for what would go on for long: a write fails, and the command ends quietly, with 0;
//! - `complain!` never fails.

use std::fmt;
use std::io::{self, ErrorKind, Write};

/// The reader of standard output has gone.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
struct ReaderGone;

/// Says a line on standard output. An error is the disk's, or the like.
macro_rules! tell {
    ($($text:tt)*) => { $crate::commands::output::say(format_args!($($text)*), "\n") };
}

/// Says something on standard output, without an end of line.
macro_rules! put {
    ($($text:tt)*) => { $crate::commands::output::say(format_args!($($text)*), "") };
}

/// Says a line on standard error.
macro_rules! complain {
    ($($text:tt)*) => { $crate::commands::output::complaint(format_args!($($text)*), "\n") };
}

/// As `tell!` and `put!` do.
///
/// # Errors
/// If it can be written neither to a reader nor to nobody, such as to a full disk.
pub(super) fn say(text: fmt::Arguments<'_>, end: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.write_all(end.as_bytes())) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// As `complain!` does.
pub(super) fn complaint(text: fmt::Arguments<'_>, end: &str) {
    // There is nowhere left to say that it could not be said.
    let mut out = io::stderr().lock();
    let _ = out.write_fmt(text).and_then(|()| out.write_all(end.as_bytes()));
}

/// Standard output, whose errors tell whether the reader has gone.
pub(super) fn stdout() -> Out<io::StdoutLock<'static>> {
    Out(io::stdout().lock())
}

/// See [`stdout`].
pub(super) struct Out<W>(W);

fn marked(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::BrokenPipe => io::Error::new(ErrorKind::BrokenPipe, ReaderGone),
        _ => error,
    }
}

impl<W: Write> Write for Out<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(marked)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(marked)
    }
}

/// Whether a command failed only because nobody reads its output any more.
pub(super) fn reader_gone(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let error = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        error.and_then(|inner| inner.downcast_ref::<ReaderGone>()).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_told_from_other_pipes_and_a_full_disk() {
        let fail = |kind| Out(Broken(kind)).write_all(b"x").context("somewhere").unwrap_err();
        assert!(reader_gone(&fail(ErrorKind::BrokenPipe)));
        assert!(!reader_gone(&fail(ErrorKind::StorageFull)));
        let other = anyhow::Error::from(io::Error::from(ErrorKind::BrokenPipe));
        assert!(!reader_gone(&other), "a connection's");
        let json = serde_json::to_writer(Out(Broken(ErrorKind::BrokenPipe)), "x").unwrap_err();
        assert!(reader_gone(&io::Error::from(json).into()));
    }
}
