//! The live view: what has happened scrolls by; below it a block of lines is redrawn in place.
//!
//! No full-screen program: the block is written over, and what was said stays in the terminal's
//! scroll-back. Lines are cut to the terminal's width, since a wrapped line would put all that is above
//! it out of place. Colours are those that people with any colour vision tell apart (Okabe & Ito 2008,
//! "Color Universal Design"), nothing depends on them, and `NO_COLOR` turns them off (crossterm).

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate};
use crossterm::{cursor, queue, terminal};

use super::events::{abstention_text, affect_text, clock, emotion_name, severity_name};
use crate::commands::client::duration;
use crate::wire::v1;

/// Least and greatest width that is drawn, in columns.
const WIDTH: (usize, usize) = (40, 88);
/// Columns before and behind a bar: its name, its percentage.
const NAME: usize = 11;
const NUMBER: usize = 8;

/// Parts of a full block, in eighths.
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// Dimmed text: readable on dark and on light.
const GREY: Color = Color::AnsiValue(245);
const RED: Color = Color::AnsiValue(166);

/// Okabe and Ito's palette in the 256 colours that terminals share.
fn colour(emotion: v1::Emotion) -> Color {
    Color::AnsiValue(match emotion {
        v1::Emotion::Calm => 74,      // sky blue
        v1::Emotion::Happy => 185,    // yellow
        v1::Emotion::Sad => 32,       // blue
        v1::Emotion::Angry => 166,    // vermilion
        v1::Emotion::Fear => 175,     // reddish purple
        v1::Emotion::Disgust => 36,   // bluish green
        v1::Emotion::Surprise => 214, // orange
        v1::Emotion::Neutral | v1::Emotion::Unspecified => 250,
    })
}

/// A stretch of text in one colour.
struct Ink {
    text: String,
    colour: Option<Color>,
    bold: bool,
}

fn plain(text: impl Into<String>) -> Ink {
    Ink { text: text.into(), colour: None, bold: false }
}

fn tinted(text: impl Into<String>, colour: Color) -> Ink {
    Ink { text: text.into(), colour: Some(colour), bold: false }
}

fn bold(text: impl Into<String>) -> Ink {
    Ink { text: text.into(), colour: None, bold: true }
}

type Line = Vec<Ink>;

/// `share` of `columns`, to an eighth of a column.
fn bar(share: f32, columns: usize) -> String {
    let eighths = (share.clamp(0.0, 1.0) * (columns * 8) as f32).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.extend(EIGHTHS.get(eighths % 8));
    }
    let drawn = bar.chars().count();
    bar + &" ".repeat(columns.saturating_sub(drawn))
}

/// A point of `value` in [-1, 1] on a line with its zero marked.
fn slider(value: f32, columns: usize) -> String {
    let last = columns.saturating_sub(1);
    let at = (f32::midpoint(value.clamp(-1.0, 1.0), 1.0) * last as f32).round() as usize;
    (0..columns)
        .map(|column| match column {
            _ if column == at => '●',
            _ if column == last / 2 => '┼',
            _ => '─',
        })
        .collect()
}

/// The block's picture of the stream.
pub(super) struct Screen<W: Write> {
    out: W,
    /// What the block stands under.
    title: String,
    /// Emotions that get a bar, in the model's order.
    labels: Vec<v1::Emotion>,
    interval: Duration,
    /// The last estimate of each channel.
    lanes: BTreeMap<u32, v1::Estimate>,
    /// Audio sent.
    sent: Duration,
    /// Lines of the block that stand on the terminal now.
    drawn: u16,
}

impl<W: Write> Screen<W> {
    pub(super) fn new(out: W) -> io::Result<Self> {
        let mut screen = Self {
            out,
            title: String::new(),
            labels: Vec::new(),
            interval: Duration::from_millis(500),
            lanes: BTreeMap::new(),
            sent: Duration::ZERO,
            drawn: 0,
        };
        queue!(screen.out, cursor::Hide)?;
        Ok(screen)
    }

    pub(super) fn started(&mut self, started: &v1::Started) {
        let model = started.model.as_ref();
        let name = model.map_or("?", |model| model.name.as_str());
        self.title = format!("{name} · {}", started.session_id);
        self.labels = model.map(|model| model.labels().collect()).unwrap_or_default();
        let interval = started.config.as_ref().and_then(|config| config.estimate_interval);
        self.interval = duration(interval).max(Duration::from_millis(100));
    }

    pub(super) fn estimate(&mut self, estimate: &v1::Estimate) {
        self.lanes.insert(estimate.channel, estimate.clone());
    }

    /// How much audio has been sent.
    pub(super) fn sent(&mut self, sent: Duration) {
        self.sent = sent;
    }

    /// Puts `text` above the block, where it stays.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        self.erase()?;
        queue!(self.out, Print(text), Print("\n"))?;
        self.draw()
    }

    /// Draws the block anew.
    pub(super) fn refresh(&mut self) -> io::Result<()> {
        queue!(self.out, BeginSynchronizedUpdate)?;
        self.erase()?;
        self.draw()?;
        queue!(self.out, EndSynchronizedUpdate)?;
        self.out.flush()
    }

    /// Takes the block away and gives the cursor back.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.erase()?;
        queue!(self.out, cursor::Show)?;
        self.out.flush()
    }

    fn erase(&mut self) -> io::Result<()> {
        queue!(self.out, cursor::MoveToColumn(0))?;
        if self.drawn > 0 {
            queue!(self.out, cursor::MoveUp(self.drawn))?;
        }
        self.drawn = 0;
        queue!(self.out, Clear(ClearType::FromCursorDown))
    }

    fn draw(&mut self) -> io::Result<()> {
        let (columns, rows) = terminal::size().unwrap_or((80, 24));
        let (columns, rows) = (usize::from(columns), usize::from(rows));
        // The last column stays free: some terminals wrap when it is written.
        let width = columns.saturating_sub(1).min(WIDTH.1).max(WIDTH.0);
        let mut lines = self.block(width);
        lines.truncate(rows.saturating_sub(2).max(1));
        for line in &lines {
            write_line(&mut self.out, line, columns.saturating_sub(1))?;
        }
        self.drawn = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        self.out.flush()
    }

    fn block(&self, width: usize) -> Vec<Line> {
        let title =
            vec![bold(format!(" {}", clock(self.sent))), tinted(format!("  {}", self.title), GREY)];
        let mut lines = vec![Line::new(), title];
        let severities = self.lanes.values().map(v1::Estimate::escalation_severity);
        if let Some(severity) = severities.max().filter(|s| *s != v1::Severity::Unspecified) {
            let text = format!(" ! {} escalation in force", severity_name(severity));
            lines.push(vec![tinted(text, RED)]);
        }
        match self.lanes.values().next() {
            None => lines.push(vec![tinted(" no voice yet", GREY)]),
            Some(only) if self.lanes.len() == 1 => self.portrait(only, width, &mut lines),
            Some(_) => {
                lines.extend(self.lanes.values().map(|estimate| self.one_line(estimate, width)));
            }
        }
        lines
    }

    /// Whether the channel has been silent since its estimate: none come without voice.
    fn is_over(&self, estimate: &v1::Estimate) -> bool {
        let silent = self.sent.saturating_sub(duration(estimate.end));
        estimate.speech_ratio == 0.0 || silent > self.interval * 2
    }

    fn voice(&self, estimate: &v1::Estimate) -> Ink {
        if self.is_over(estimate) { tinted("○ silence", GREY) } else { bold("● voice  ") }
    }

    /// All that is known of one channel.
    fn portrait(&self, estimate: &v1::Estimate, width: usize, lines: &mut Vec<Line>) {
        let over = self.is_over(estimate);
        let columns = width.saturating_sub(NAME + NUMBER);
        // From -60 dBFS, a quiet room, to full scale.
        let level = bar((estimate.level_dbfs + 60.0) / 60.0, 12);
        lines.push(vec![
            plain(" "),
            self.voice(estimate),
            tinted(format!("   {:>4.0} dBFS ", estimate.level_dbfs), GREY),
            tinted(level, GREY),
        ]);
        let affect = estimate.affect.clone().unwrap_or_default();
        let top = affect.top();
        let faint = over || estimate.abstains;
        for emotion in &self.labels {
            let score = affect.scores.iter().find(|score| score.emotion() == *emotion);
            let share = score.map_or(0.0, |score| score.probability);
            let name = format!(" {:<width$}", emotion_name(*emotion), width = NAME - 1);
            let bar = bar(share, columns);
            let number = format!(" {:>4.0} %", 100.0 * share);
            lines.push(if faint {
                vec![tinted(name + &bar + &number, GREY)]
            } else if *emotion == top {
                vec![bold(name), tinted(bar, colour(*emotion)), bold(number)]
            } else {
                vec![plain(name), tinted(bar, colour(*emotion)), plain(number)]
            });
        }
        // What stands beside the two sliders takes 34 columns.
        let half = (width.saturating_sub(34) / 2).max(5);
        lines.push(vec![
            plain(" valence  "),
            tinted(slider(affect.valence, half), GREY),
            plain(format!(" {:+.2}   arousal  ", affect.valence)),
            tinted(slider(affect.arousal, half), GREY),
            plain(format!(" {:+.2}", affect.arousal)),
        ]);
        let distress = tinted(bar(affect.distress, half), if faint { GREY } else { RED });
        lines.push(vec![
            plain(" distress "),
            distress,
            plain(format!("  {:.2}   ", affect.distress)),
            verdict(estimate, &affect),
        ]);
    }

    /// The least that is worth seeing of one of several channels.
    fn one_line(&self, estimate: &v1::Estimate, width: usize) -> Line {
        let mut line =
            vec![plain(format!(" channel {}  ", estimate.channel)), self.voice(estimate)];
        let affect = estimate.affect.clone().unwrap_or_default();
        let columns = width.saturating_sub(76).max(8);
        line.push(tinted(format!("  {}", bar(affect.confidence, columns)), colour(affect.top())));
        line.push(plain(" "));
        line.push(match (estimate.abstains, &estimate.affect) {
            (false, Some(affect)) => plain(affect_text(affect)),
            _ => verdict(estimate, &affect),
        });
        line
    }
}

/// The emotion that stands out, or why none does.
fn verdict(estimate: &v1::Estimate, affect: &v1::Affect) -> Ink {
    if estimate.abstains {
        let (reason, speech) = (estimate.abstain_reason(), duration(estimate.speech));
        return tinted(abstention_text(Some(affect), reason, speech), GREY);
    }
    match affect.top() {
        v1::Emotion::Unspecified => plain(""),
        top => bold(format!("{}, confidence {:.2}", emotion_name(top), affect.confidence)),
    }
}

fn write_line(out: &mut impl Write, line: &Line, columns: usize) -> io::Result<()> {
    let mut left = columns;
    for ink in line {
        let text: String = ink.text.chars().take(left).collect();
        left -= text.chars().count();
        if let Some(colour) = ink.colour {
            queue!(out, SetForegroundColor(colour))?;
        }
        if ink.bold {
            queue!(out, SetAttribute(Attribute::Bold))?;
        }
        queue!(out, Print(text))?;
        if ink.colour.is_some() || ink.bold {
            queue!(out, SetAttribute(Attribute::Reset), ResetColor)?;
        }
    }
    queue!(out, Print("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_sliders_are_always_as_wide_as_asked() {
        for share in [-1.0, 0.0, 0.01, 0.5, 0.999, 1.0, 7.0, f32::NAN] {
            assert_eq!(bar(share, 10).chars().count(), 10, "{share}");
            assert_eq!(slider(share, 11).chars().count(), 11, "{share}");
        }
        assert_eq!(bar(0.55, 10), "█████▌    ");
        assert_eq!(slider(0.0, 5), "──●──");
        assert_eq!(slider(1.0, 5), "──┼─●");
    }

    #[test]
    fn what_was_said_stays_above_the_block() {
        let mut screen = Screen::new(Vec::new()).unwrap();
        screen.estimate(&v1::Estimate { speech_ratio: 1.0, ..v1::Estimate::default() });
        screen.refresh().unwrap();
        let lines = screen.drawn;
        assert!(lines > 1);
        screen.out.clear();
        screen.say("an utterance").unwrap();
        let text = String::from_utf8(screen.out.clone()).unwrap();
        // Up over the block, the text, the block again.
        assert!(text.starts_with(&format!("\u{1b}[1G\u{1b}[{lines}A\u{1b}[J")), "{text:?}");
        assert!(text.contains("an utterance\n"));
        assert_eq!(screen.drawn, lines);
    }
}
