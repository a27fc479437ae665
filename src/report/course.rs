//! The course of signals under rules: an SVG file that stands by itself.
//!
//! One block per rule, one strip per condition: its value over time, where it turns on and off (dashed),
//! and below it when there was voice. A rule's escalations are shaded over all of its strips. Black on
//! white with fixed colours, for such a drawing is mailed and printed; they are those of the reports'
//! light page. Lines are told apart by dashes and shades by words, so that nothing rests on colour alone.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::axis::{Axis, px, width_px};

const INK: &str = "#1b1d22";
const SOFT: &str = "#565c66";
const GRID: &str = "#e6e9ee";
const VALUE: &str = "#0072b2";
const ON: &str = "#d55e00";
const OFF: &str = "#008a65";
const VOICE: &str = "#8a919c";

const WIDTH: f64 = 960.0;
const LEFT: f64 = 52.0;
/// Room for the thresholds' names.
const RIGHT: f64 = 84.0;
const TITLE_HEIGHT: f64 = 64.0;
/// A rule's heading, and the words over its escalations, if there are any.
const HEAD_HEIGHT: f64 = 30.0;
const SPAN_HEIGHT: f64 = 14.0;
/// A condition's name, its strip, and the voice below it.
const NAME_HEIGHT: f64 = 18.0;
const STRIP_HEIGHT: f64 = 84.0;
const VOICE_HEIGHT: f64 = 12.0;
const AXIS_HEIGHT: f64 = 44.0;
/// Two names closer than this, in px, are set apart.
const LINE_HEIGHT: f64 = 13.0;

/// A time while an escalation was in force.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Its beginning, seconds.
    pub from: f64,
    /// Its end, seconds.
    pub to: f64,
    /// Whether it was still in force at the end of the recording.
    pub open: bool,
}

/// One condition over time.
#[derive(Debug, Clone)]
pub struct Strip {
    name: String,
    on: f64,
    off: f64,
    points: Vec<(f64, Option<f64>)>,
}

impl Strip {
    /// A condition by its name, where it turns on and off, and its value at each second; no value where
    /// there was too little speech.
    pub fn new(
        name: impl Into<String>,
        on: f64,
        off: f64,
        points: impl IntoIterator<Item = (f64, Option<f64>)>,
    ) -> Self {
        let finite = |(at, value): (f64, Option<f64>)| (at, value.filter(|v| v.is_finite()));
        let points = points.into_iter().filter(|(at, _)| at.is_finite()).map(finite).collect();
        Self { name: name.into(), on, off, points }
    }

    /// 0 to 1 or -1 to 1 if that holds everything, else what does.
    fn range(&self) -> (f64, f64) {
        let values = self.points.iter().filter_map(|(_, value)| *value);
        let all = values.chain([self.on, self.off]);
        let (low, high) = all.fold((0.0_f64, 1.0_f64), |(l, h), v| (l.min(v), h.max(v)));
        match (low < 0.0, high > 1.0) {
            (true, false) => (low.min(-1.0), 1.0),
            (false, true) => Axis::new("").fit([0.0, high].into_iter(), true),
            (false, false) => (0.0, 1.0),
            (true, true) => (low, high),
        }
    }
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Block {
    name: String,
    severity: String,
    strips: Vec<Strip>,
    spans: Vec<Span>,
    voice: Vec<(f64, f64)>,
}

impl Block {
    /// A rule by its name, and how severe it is.
    pub fn new(name: impl Into<String>, severity: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            severity: severity.into(),
            strips: Vec::new(),
            spans: Vec::new(),
            voice: Vec::new(),
        }
    }

    /// Adds a condition.
    #[must_use]
    pub fn strip(mut self, strip: Strip) -> Self {
        self.strips.push(strip);
        self
    }

    /// Adds an escalation; in order.
    #[must_use]
    pub fn span(mut self, span: Span) -> Self {
        self.spans.push(span);
        self
    }

    fn head_height(&self) -> f64 {
        HEAD_HEIGHT + if self.spans.is_empty() { 0.0 } else { SPAN_HEIGHT }
    }

    fn height(&self) -> f64 {
        self.head_height() + self.strips.len() as f64 * (NAME_HEIGHT + STRIP_HEIGHT + VOICE_HEIGHT)
    }

    /// The shade of its escalations.
    fn shade(&self) -> &'static str {
        match self.severity.as_str() {
            "high" => "#d55e00",
            "medium" => "#e0a800",
            "low" => "#4d7fd1",
            _ => "#6b6f76",
        }
    }
}

/// The whole drawing.
#[derive(Debug, Clone)]
pub struct Course {
    title: String,
    seconds: f64,
    blocks: Vec<Block>,
    voice: Vec<(f64, f64)>,
}

impl Course {
    /// An empty drawing of so many seconds.
    pub fn new(title: impl Into<String>, seconds: f64) -> Self {
        let seconds = if seconds.is_finite() { seconds.max(0.1) } else { 0.1 };
        Self { title: title.into(), seconds, blocks: Vec::new(), voice: Vec::new() }
    }

    /// When there was voice, from and to in seconds, for the blocks that are added from now on. Pieces
    /// that touch become one.
    #[must_use]
    pub fn voice(mut self, pieces: impl IntoIterator<Item = (f64, f64)>) -> Self {
        self.voice.clear();
        for (from, to) in pieces {
            match self.voice.last_mut() {
                Some(last) if from <= last.1 + 1e-6 => last.1 = to,
                _ => self.voice.push((from, to)),
            }
        }
        self
    }

    /// Adds a rule.
    #[must_use]
    pub fn block(mut self, mut block: Block) -> Self {
        block.voice.clone_from(&self.voice);
        self.blocks.push(block);
        self
    }

    /// The SVG.
    pub fn render(&self) -> String {
        let blocks: f64 = self.blocks.iter().map(Block::height).sum();
        let height = TITLE_HEIGHT + blocks + AXIS_HEIGHT;
        let mut top = TITLE_HEIGHT;
        let mut body = Vec::new();
        for block in &self.blocks {
            body.push(self.draw_block(block, top));
            top += block.height();
        }
        let size = format!("0 0 {} {}", px(WIDTH), px(height));
        let drawing = html! {
            svg xmlns="http://www.w3.org/2000/svg" viewBox=(size) width=(px(WIDTH))
                height=(px(height)) role="img" aria-label=(self.title) font-size="12"
                font-family="system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif" {
                title { (self.title) }
                rect width="100%" height="100%" fill="#ffffff" {}
                text x="12" y="24" font-size="16" font-weight="600" fill=(INK) {
                    (shortened(&self.title, WIDTH - 24.0, 16.0))
                }
                (legend())
                @for part in &body { (part) }
                (self.draw_axis(top))
            }
        };
        drawing.into_string()
    }

    fn x(&self, at: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (at / self.seconds).clamp(0.0, 1.0)
    }

    fn draw_block(&self, block: &Block, top: f64) -> Markup {
        let first = top + block.head_height();
        let bottom = top + block.height();
        let mut next_free = LEFT;
        let mut spans = Vec::new();
        for span in &block.spans {
            let (from, to) = (self.x(span.from), self.x(span.to));
            let words = spoken(&block.severity, span);
            let place = place(from, width_px(&words), next_free);
            if let Some((_, _, end)) = place {
                next_free = end;
            }
            let words = place.map(|(at, anchor, _)| (at, anchor, words));
            spans.push((from, (to - from).max(1.5), words));
        }
        html! {
            path d=(format!("M12 {}H{}", px(top), px(WIDTH - 12.0))) stroke="#d5d9e0" {}
            text x="12" y=(px(top + 19.0)) font-size="13" font-weight="600" fill=(INK) {
                (shortened(&block.name, WIDTH - 150.0, 13.0)) " · " (block.severity)
            }
            @for (from, width, words) in &spans {
                rect x=(px(*from)) y=(px(first)) width=(px(*width)) height=(px(bottom - first))
                    fill=(block.shade()) fill-opacity="0.18" {}
                path d=(format!("M{} {}V{}", px(*from), px(first - 12.0), px(bottom)))
                    stroke=(block.shade()) stroke-width="1.5" {}
                @if let Some((at, anchor, words)) = words {
                    text x=(px(*at)) text-anchor=(anchor) y=(px(first - 3.0)) fill=(INK) font-size="11.5" {
                        (words)
                    }
                }
            }
            @for (index, strip) in block.strips.iter().enumerate() {
                @let at = first + index as f64 * (NAME_HEIGHT + STRIP_HEIGHT + VOICE_HEIGHT);
                (self.draw_strip(strip, at, &block.voice))
            }
        }
    }

    fn draw_strip(&self, strip: &Strip, top: f64, voice: &[(f64, f64)]) -> Markup {
        let range = strip.range();
        let above = top + NAME_HEIGHT;
        let y = |value: f64| {
            let share = (value - range.0) / (range.1 - range.0);
            above + STRIP_HEIGHT * (1.0 - share.clamp(0.0, 1.0))
        };
        let ticks = Axis::new("").ticks_in(range, 3.0);
        let right = WIDTH - RIGHT;
        let (on, off) = (y(strip.on), y(strip.off));
        let (on_name, off_name) = apart(on, off);
        let below = above + STRIP_HEIGHT;
        html! {
            text x=(px(LEFT)) y=(px(top + 13.0)) fill=(INK) {
                (shortened(&strip.name, WIDTH - LEFT - RIGHT, 12.0))
            }
            @for (value, text) in &ticks {
                path d=(format!("M{} {}H{}", px(LEFT), px(y(*value)), px(right))) stroke=(GRID) {}
                text x=(px(LEFT - 6.0)) y=(px(y(*value) + 4.0)) text-anchor="end" fill=(SOFT)
                    font-size="11" { (text) }
            }
            @for (value, line, name, colour, dash) in
                [(strip.on, on, on_name, ON, "8 4"), (strip.off, off, off_name, OFF, "2 3")] {
                path d=(format!("M{} {}H{}", px(LEFT), px(line), px(right))) stroke=(colour)
                    stroke-width="1.4" stroke-dasharray=(dash) {}
                text x=(px(right + 6.0)) y=(px(name + 4.0)) fill=(INK) font-size="11" {
                    @if colour == ON { "on " } @else { "off " } (super::short(value))
                }
            }
            @for line in traces(&strip.points, |at| self.x(at), y) {
                path d=(line) fill="none" stroke=(VALUE) stroke-width="1.8"
                    stroke-linejoin="round" {}
            }
            @for (from, to) in voice {
                rect x=(px(self.x(*from))) y=(px(below + 4.0)) height="4" fill=(VOICE)
                    width=(px((self.x(*to) - self.x(*from)).max(0.5))) {}
            }
        }
    }

    fn draw_axis(&self, top: f64) -> Markup {
        let right = WIDTH - RIGHT;
        let step = step(self.seconds);
        let count = (self.seconds / step).floor() as u32;
        html! {
            path d=(format!("M{} {}H{}", px(LEFT), px(top + 4.0), px(right))) stroke=(SOFT) {}
            @for index in 0..=count {
                @let at = f64::from(index) * step;
                path d=(format!("M{} {}v5", px(self.x(at)), px(top + 4.0))) stroke=(SOFT) {}
                text x=(px(self.x(at))) y=(px(top + 22.0)) text-anchor="middle" fill=(SOFT) {
                    (minutes(at))
                }
            }
            text x=(px(WIDTH - 12.0)) y=(px(top + 22.0)) text-anchor="end" fill=(SOFT) { "min:s" }
        }
    }
}

/// What an escalation is called over its shade.
fn spoken(severity: &str, span: &Span) -> String {
    let end = if span.open { ", in force to the end" } else { "" };
    format!("raised {}, {severity}{end}", minutes(span.from))
}

/// Where words so wide stand that belong to `from`, which end of them stands there, and what is free behind
/// them: to the right of it, else to its left. Words that would stand on others are left out; the shade
/// stays.
fn place(from: f64, width: f64, next_free: f64) -> Option<(f64, &'static str, f64)> {
    let right = from + 4.0;
    if from >= next_free && right + width < WIDTH {
        return Some((right, "start", right + width + 6.0));
    }
    let left = from - 4.0;
    let fits = left - width >= next_free && right + width >= WIDTH;
    fits.then_some((left, "end", from))
}

fn legend() -> Markup {
    let mark = |x: f64, colour: &str, dash: &str, name: &str| {
        html! {
            path d=(format!("M{} 45h26", px(x))) stroke=(colour) stroke-width="1.8"
                stroke-dasharray=(dash) {}
            text x=(px(x + 32.0)) y="49" fill=(SOFT) { (name) }
        }
    };
    html! {
        (mark(12.0, VALUE, "none", "value"))
        (mark(90.0, ON, "8 4", "turns on"))
        (mark(190.0, OFF, "2 3", "turns off"))
        rect x="290" y="43" width="26" height="4" fill=(VOICE) {}
        text x="322" y="49" fill=(SOFT) { "voice" }
        rect x="374" y="38" width="26" height="14" fill="#d55e00" fill-opacity="0.18" {}
        path d="M374 38v14" stroke="#d55e00" stroke-width="1.5" {}
        text x="406" y="49" fill=(SOFT) { "escalation in force" }
    }
}

/// The heights of two names beside their lines, set apart if they would touch.
fn apart(one: f64, other: f64) -> (f64, f64) {
    let lacking = LINE_HEIGHT - (one - other).abs();
    if lacking <= 0.0 {
        return (one, other);
    }
    let shift = if one < other { -lacking / 2.0 } else { lacking / 2.0 };
    (one + shift, other - shift)
}

/// A path for each run of values without a gap.
fn traces(
    points: &[(f64, Option<f64>)],
    x: impl Fn(f64) -> f64,
    y: impl Fn(f64) -> f64,
) -> Vec<String> {
    let mut paths = Vec::new();
    let mut path = String::new();
    for (at, value) in points {
        match value {
            Some(value) => {
                let command = if path.is_empty() { 'M' } else { 'L' };
                let _ = write!(path, "{command}{} {}", px(x(*at)), px(y(*value)));
            }
            None if path.is_empty() => {}
            None => paths.push(std::mem::take(&mut path)),
        }
    }
    if !path.is_empty() {
        paths.push(path);
    }
    paths
}

/// Seconds between two ticks: at most ten of them, at times that people count in.
fn step(seconds: f64) -> f64 {
    const STEPS: [f64; 12] =
        [0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0];
    let fits = |step: &f64| seconds / step <= 10.0;
    STEPS.into_iter().find(fits).unwrap_or_else(|| (seconds / 36_000.0).ceil() * 3_600.0)
}

/// 3:07, and 0:00.5 where tenths are needed.
fn minutes(seconds: f64) -> String {
    let tenths = (seconds * 10.0).round() as u64;
    let (minute, second, tenth) = (tenths / 600, tenths / 10 % 60, tenths % 10);
    if tenth == 0 {
        format!("{minute}:{second:02}")
    } else {
        format!("{minute}:{second:02}.{tenth}")
    }
}

/// `text`, its middle left out if it is wider than `width` px at `size` px.
fn shortened(text: &str, width: f64, size: f64) -> String {
    let most = (width / (width_px("x") * size / 12.0)).max(8.0) as usize;
    let characters: Vec<char> = text.chars().collect();
    if characters.len() <= most {
        return text.to_owned();
    }
    let half = (most - 1) / 2;
    let start = characters.iter().take(half);
    let end = characters.iter().skip(characters.len() - half);
    start.chain(&['…']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course() -> Course {
        let wave = (0..60).map(|k| (f64::from(k), (k % 20 != 0).then_some(f64::from(k) / 60.0)));
        let block = Block::new("A <rule> & more", "high")
            .strip(Strip::new("mean of distress", 0.8, 0.6, wave))
            .strip(Strip::new("seconds without speech", 60.0, 0.0, [(0.0, Some(2.0))]))
            .span(Span { from: 50.0, to: 60.0, open: true });
        Course::new("care-call on \"x.wav\"", 60.0).voice([(0.0, 1.0), (1.0, 2.0)]).block(block)
    }

    #[test]
    fn a_drawing_stands_by_itself_and_everything_in_it_is_escaped() {
        let svg = course().render();
        assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""), "{svg}");
        assert!(svg.contains("A &lt;rule&gt; &amp; more") && !svg.contains("<rule>"));
        assert!(svg.contains("raised 0:50, high, in force to the end"));
        assert!(svg.contains("on 0.8") && svg.contains("off 0.6"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert_eq!(svg.matches("height=\"4\"").count(), 3, "voice that touches is one piece");
        assert_eq!(svg, course().render());
    }

    #[test]
    fn a_value_that_is_missing_interrupts_its_line() {
        let points = [(0.0, Some(0.0)), (1.0, Some(0.5)), (2.0, None), (3.0, Some(1.0))];
        assert_eq!(traces(&points, |x| x, |y| y), ["M0 0L1 0.5", "M3 1"]);
    }

    #[test]
    fn words_stand_beside_their_line_and_never_on_others_or_beyond_the_edge() {
        assert_eq!(place(100.0, 80.0, LEFT), Some((104.0, "start", 190.0)));
        assert_eq!(place(100.0, 80.0, 101.0), None);
        let late = WIDTH - 90.0;
        assert_eq!(place(late, 120.0, LEFT), Some((late - 4.0, "end", late)));
        assert_eq!(place(WIDTH - 90.0, 120.0, WIDTH - 180.0), None);
    }

    #[test]
    fn ranges_hold_the_values_and_the_thresholds() {
        let range = |on, off, value| Strip::new("", on, off, [(0.0, value)]).range();
        assert_eq!(range(0.8, 0.6, Some(0.3)), (0.0, 1.0));
        assert_eq!(range(-0.4, -0.2, Some(0.3)), (-1.0, 1.0));
        let (low, high) = range(60.0, 0.0, Some(75.0));
        assert!(low == 0.0 && high >= 75.0);
        assert_eq!(range(0.8, 0.6, Some(f64::NAN)), (0.0, 1.0));
    }

    #[test]
    fn names_stand_apart_and_ticks_are_times_that_people_count_in() {
        let (one, other) = apart(50.0, 54.0);
        assert!(other - one >= LINE_HEIGHT);
        assert_eq!(apart(10.0, 50.0), (10.0, 50.0));
        assert_eq!(step(600.0), 60.0);
        assert_eq!(step(7.0), 1.0);
        assert_eq!(step(36_001.0), 7_200.0);
        assert_eq!((minutes(187.0), minutes(0.5)), ("3:07".to_owned(), "0:00.5".to_owned()));
    }

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(shortened("short", 200.0, 12.0), "short");
        let long = shortened(&"x".repeat(100), 200.0, 12.0);
        assert!(long.contains('…') && width_px(&long) <= 200.0);
    }
}
