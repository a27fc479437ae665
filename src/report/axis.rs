//! Axes: what is measured, over which range, where the ticks stand and how numbers read.

use maud::{Markup, html};

/// Width of a character of tick text (12 px), in px: an average over digits and lower-case letters of
/// common system fonts, a little on the wide side.
const CHARACTER_PX: f64 = 6.8;

/// One axis: its label, and if wanted its range and ticks.
#[derive(Debug, Clone)]
pub struct Axis {
    pub(super) label: String,
    range: Option<(f64, f64)>,
    ticks: Option<Vec<(f64, String)>>,
    percent: bool,
}

impl Axis {
    /// An axis that fits its range and ticks to the data. The label says what and in which unit
    /// ("Time, s").
    pub fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), range: None, ticks: None, percent: false }
    }

    /// From `low` to `high`, whatever the data.
    #[must_use]
    pub fn range(mut self, low: f64, high: f64) -> Self {
        self.range = (low < high).then_some((low, high));
        self
    }

    /// Numbers are shares in [0, 1] and read as per cent.
    #[must_use]
    pub fn percent(mut self) -> Self {
        self.percent = true;
        self
    }

    /// Ticks at these values with these texts.
    #[must_use]
    pub fn ticks(mut self, ticks: impl IntoIterator<Item = (f64, String)>) -> Self {
        self.ticks = Some(ticks.into_iter().collect());
        self
    }

    /// A value of this axis as text, for tables and labels: three significant digits.
    pub(super) fn text(&self, value: f64) -> String {
        if self.percent {
            return super::percent(value, 1);
        }
        let decimals = match value.abs() {
            v if v >= 100.0 || v.fract() == 0.0 => 0,
            v if v >= 10.0 => 1,
            v if v >= 1.0 => 2,
            _ => 3,
        };
        super::number(value, decimals)
    }

    /// The range that shows all of `values` and ends on ticks, with zero in it if `zero`.
    pub(super) fn fit(&self, values: impl Iterator<Item = f64>, zero: bool) -> (f64, f64) {
        if let Some(range) = self.range {
            return range;
        }
        let start = if zero { (0.0, 0.0) } else { (f64::INFINITY, f64::NEG_INFINITY) };
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold(start, |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return (0.0, 1.0);
        }
        if low == high {
            return if zero && low == 0.0 { (0.0, 1.0) } else { (low - 0.5, high + 0.5) };
        }
        let step = step(high - low, 5.0);
        ((low / step).floor() * step, (high / step).ceil() * step)
    }

    /// The ticks within a range, about `count` of them.
    pub(super) fn ticks_in(&self, (low, high): (f64, f64), count: f64) -> Vec<(f64, String)> {
        if let Some(ticks) = &self.ticks {
            let inside = |tick: &&(f64, String)| (low..=high).contains(&tick.0);
            return ticks.iter().filter(inside).cloned().collect();
        }
        let step = step(high - low, count.max(1.0));
        let shown = if self.percent { step * 100.0 } else { step };
        let decimals = (-shown.log10().floor()).max(0.0) as usize;
        let first = (low / step - 1e-9).ceil() as i64;
        let last = (high / step + 1e-9).floor() as i64;
        (first..=last)
            .map(|i| {
                let value = i as f64 * step;
                let text = if self.percent {
                    super::percent(value, decimals)
                } else {
                    super::number(value, decimals)
                };
                (value, text)
            })
            .collect()
    }
}

/// The step of 1, 2 or 5 times a power of ten that cuts `span` into about `count` pieces.
fn step(span: f64, count: f64) -> f64 {
    let rough = (span / count).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    let times = match rough / power {
        x if x < 1.5 => 1.0,
        x if x < 3.5 => 2.0,
        x if x < 7.5 => 5.0,
        _ => 10.0,
    };
    times * power
}

/// A coordinate, short: a tenth of a pixel is enough.
pub(super) fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// About how wide `text` is, in px.
pub(super) fn width_px(text: &str) -> f64 {
    text.chars().count() as f64 * CHARACTER_PX
}

/// The rectangle that data is drawn in, in px of the drawing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Area {
    /// Within a drawing of `width` by `height`, leaving room for the texts of both axes and `right` px.
    pub(super) fn new(
        (width, height): (f64, f64),
        y_ticks: &[(f64, String)],
        below: f64,
        right: f64,
    ) -> Self {
        let widest = y_ticks.iter().map(|(_, text)| width_px(text)).fold(0.0, f64::max);
        let (left, top) = (widest + 30.0, 10.0);
        Self {
            left,
            top,
            width: (width - left - right).max(1.0),
            height: (height - top - below).max(1.0),
        }
    }

    pub(super) fn right(&self) -> f64 {
        self.left + self.width
    }

    pub(super) fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// Where `value` of the range lies from left to right.
    pub(super) fn x(&self, value: f64, (low, high): (f64, f64)) -> f64 {
        self.left + self.width * ((value - low) / (high - low)).clamp(0.0, 1.0)
    }

    /// Where `value` of the range lies from bottom to top.
    pub(super) fn y(&self, value: f64, (low, high): (f64, f64)) -> f64 {
        self.bottom() - self.height * ((value - low) / (high - low)).clamp(0.0, 1.0)
    }

    /// The vertical axis: grid, ticks and label, at the left.
    pub(super) fn y_axis(
        &self,
        label: &str,
        ticks: &[(f64, String)],
        range: (f64, f64),
        grid: bool,
    ) -> Markup {
        let middle = self.top + self.height / 2.0;
        html! {
            @for (value, text) in ticks {
                @let y = self.y(*value, range);
                @let reach = if grid { self.right() } else { self.left - 4.0 };
                path class=(if grid { "grid" } else { "edge" })
                    d=(format!("M{} {}H{}", px(self.left), px(y), px(reach))) {}
                text x=(px(self.left - 7.0)) y=(px(y + 4.0)) text-anchor="end" { (text) }
            }
            text.axis x=(px(-middle)) y="11" transform="rotate(-90)" text-anchor="middle" { (label) }
        }
    }

    /// The horizontal axis: ticks and label, below.
    pub(super) fn x_axis(&self, label: &str, ticks: &[(f64, String)], range: (f64, f64)) -> Markup {
        html! {
            @for (value, text) in ticks {
                @let x = self.x(*value, range);
                path.edge d=(format!("M{} {}v4", px(x), px(self.bottom()))) {}
                text x=(px(x)) y=(px(self.bottom() + 17.0)) text-anchor="middle" { (text) }
            }
            (self.x_label(label, 36.0))
        }
    }

    /// The label of the horizontal axis, `below` px under the area.
    pub(super) fn x_label(&self, label: &str, below: f64) -> Markup {
        let middle = self.left + self.width / 2.0;
        html! {
            text.axis x=(px(middle)) y=(px(self.bottom() + below)) text-anchor="middle" { (label) }
        }
    }

    /// The line along the bottom, or all round.
    pub(super) fn edge(&self, all_round: bool) -> Markup {
        let (left, right) = (px(self.left), px(self.right()));
        let (top, bottom) = (px(self.top), px(self.bottom()));
        let path = if all_round {
            format!("M{left} {top}H{right}V{bottom}H{left}Z")
        } else {
            format!("M{left} {bottom}H{right}")
        };
        html! { path.edge d=(path) {} }
    }
}

/// The drawing, `size` px wide and high at its natural size.
pub(super) fn svg(alt: &str, (width, height): (f64, f64), body: &Markup) -> Markup {
    html! {
        svg.chart role="img" aria-label=(alt) viewBox=(format!("0 0 {} {}", px(width), px(height)))
            style=(format!("max-width:{}px", px(width))) { (body) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis, range: (f64, f64), count: f64) -> Vec<String> {
        axis.ticks_in(range, count).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn ticks_are_round_numbers_within_the_range() {
        let axis = Axis::new("n");
        assert_eq!(texts(&axis, (0.0, 1.0), 5.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(&axis, (0.0, 2_400.0), 5.0), ["0", "500", "1,000", "1,500", "2,000"]);
        assert_eq!(texts(&axis, (-0.3, 0.3), 3.0), ["-0.2", "0.0", "0.2"]);
        let shares = Axis::new("share").percent();
        assert_eq!(
            texts(&shares, (0.0, 0.5), 5.0),
            ["0 %", "10 %", "20 %", "30 %", "40 %", "50 %"]
        );
    }

    #[test]
    fn a_range_holds_the_data_and_never_is_empty() {
        let axis = Axis::new("n");
        assert_eq!(axis.fit([3.0, 97.0].into_iter(), true), (0.0, 100.0));
        assert_eq!(axis.fit(std::iter::empty(), true), (0.0, 1.0));
        assert_eq!(axis.fit([f64::NAN].into_iter(), false), (0.0, 1.0));
        assert_eq!(axis.fit([0.0].into_iter(), true), (0.0, 1.0));
        let (low, high) = axis.fit([5.0, 5.0].into_iter(), false);
        assert!(low < 5.0 && 5.0 < high);
        assert_eq!(Axis::new("n").range(1.0, 1.0).fit([0.0, 4.0].into_iter(), true), (0.0, 4.0));
    }
}
