//! Where events go: the live view, lines of text, or lines of JSON.

use std::io::{self, IsTerminal as _, Stdout, Write as _};
use std::time::Duration;

use super::events::{to_json, to_text, utterance_text};
use super::screen::Screen;
use crate::commands::client::Response;
use crate::commands::output::stdout;

/// How events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Live on a terminal, else text.
    Auto,
    /// Bars that move, redrawn in place.
    Live,
    /// One line per event.
    Text,
    /// One JSON object per event.
    Json,
}

/// Shows what comes.
pub(super) struct Output {
    to: To,
    several_channels: bool,
}

enum To {
    Live(Box<Screen<io::BufWriter<Stdout>>>),
    Text,
    Json,
}

impl Output {
    /// `several_channels` if events must say which channel they are about.
    pub(super) fn new(format: Format, several_channels: bool) -> io::Result<Self> {
        let live = match format {
            Format::Auto => io::stdout().is_terminal(),
            Format::Live => true,
            Format::Text | Format::Json => false,
        };
        let to = if live {
            To::Live(Box::new(Screen::new(io::BufWriter::new(io::stdout()))?))
        } else if format == Format::Json {
            To::Json
        } else {
            To::Text
        };
        Ok(Self { to, several_channels })
    }

    /// Shows an event.
    pub(super) fn show(&mut self, response: &Response) -> io::Result<()> {
        let text = || to_text(response, self.several_channels);
        match &mut self.to {
            To::Live(screen) => match response {
                Response::Started(started) => {
                    screen.started(started);
                    screen.refresh()
                }
                Response::Estimate(estimate) => {
                    screen.estimate(estimate);
                    screen.refresh()
                }
                Response::Finished(_) => {
                    screen.end()?;
                    writeln!(stdout(), "{}", text())
                }
                Response::Utterance(u) => screen.say(&utterance_text(u, self.several_channels)),
                _ => screen.say(&text()),
            },
            To::Text => writeln!(stdout(), "{}", text()),
            To::Json => writeln!(stdout(), "{}", to_json(response)),
        }
    }

    /// Says something about the way to the server.
    pub(super) fn note(&mut self, note: &str) -> io::Result<()> {
        match &mut self.to {
            To::Live(screen) => screen.say(note),
            To::Text | To::Json => writeln!(io::stderr().lock(), "undertone: {note}"),
        }
    }

    /// Time has passed: so much audio has been sent.
    pub(super) fn tick(&mut self, sent: Duration) -> io::Result<()> {
        match &mut self.to {
            To::Live(screen) => {
                screen.sent(sent);
                screen.refresh()
            }
            To::Text | To::Json => Ok(()),
        }
    }
}

impl Drop for Output {
    /// Whatever happens, the cursor comes back.
    fn drop(&mut self) {
        if let To::Live(screen) = &mut self.to {
            // There is nobody to tell if the terminal has gone.
            let _ = screen.end();
        }
    }
}
