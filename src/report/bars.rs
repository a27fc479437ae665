//! Bars: one number per category and series, side by side or stacked.

use maud::{Markup, html};

use super::axis::{Area, Axis, px, svg, width_px};
use super::{Figure, Table, legend, series_class};

/// Steeper than this would be hard to read, flatter would need more width.
const TURNED_DEGREES: f64 = 38.0;
/// Values are written over bars at least this wide, px.
const LABELLED_PX: f64 = 24.0;

/// A bar chart.
#[derive(Debug, Clone)]
pub struct BarChart {
    caption: String,
    category: String,
    categories: Vec<String>,
    value: Axis,
    series: Vec<Bars>,
    stacked: bool,
    bins: bool,
    size: (f64, f64),
}

#[derive(Debug, Clone)]
struct Bars {
    name: String,
    values: Vec<Option<f64>>,
    intervals: Vec<Option<(f64, f64)>>,
}

impl BarChart {
    /// A chart of `value` over `categories`; `category` says what those are ("emotion").
    pub fn new(
        caption: impl Into<String>,
        category: impl Into<String>,
        categories: impl IntoIterator<Item = impl Into<String>>,
        value: Axis,
    ) -> Self {
        Self {
            caption: caption.into(),
            category: category.into(),
            categories: categories.into_iter().map(Into::into).collect(),
            value,
            series: Vec::new(),
            stacked: false,
            bins: false,
            size: (720.0, 300.0),
        }
    }

    /// Adds a series: a value for each category, `None` where there is none.
    #[must_use]
    pub fn series(
        mut self,
        name: impl Into<String>,
        values: impl IntoIterator<Item = Option<f64>>,
    ) -> Self {
        let values = values.into_iter().map(|value| value.filter(|v| v.is_finite())).collect();
        self.series.push(Bars { name: name.into(), values, intervals: Vec::new() });
        self
    }

    /// Whiskers for the series added last: for each category the low and the high end, such as of a
    /// confidence interval. Side by side only.
    #[must_use]
    pub fn intervals(mut self, ends: impl IntoIterator<Item = Option<(f64, f64)>>) -> Self {
        if let Some(last) = self.series.last_mut() {
            last.intervals = ends.into_iter().collect();
        }
        self
    }

    /// Series stand on top of each other: for counts that add up.
    #[must_use]
    pub fn stacked(mut self) -> Self {
        self.stacked = true;
        self
    }

    /// Categories are the bins of a histogram, named by their lower ends: bars touch, and where there is
    /// no room for all names, every other or third stands.
    #[must_use]
    pub fn bins(mut self) -> Self {
        self.bins = true;
        self
    }

    /// Natural width and height, px; 720 by 300 if not said.
    #[must_use]
    pub fn size(mut self, width: f64, height: f64) -> Self {
        self.size = (width, height);
        self
    }

    /// The highest points that must fit.
    fn tops(&self) -> Vec<f64> {
        if self.stacked {
            let at = |i: usize| self.series.iter().filter_map(move |s| *s.values.get(i)?).sum();
            return (0..self.categories.len()).map(at).collect();
        }
        let values = self.series.iter().flat_map(|s| s.values.iter().flatten().copied());
        let ends = self.series.iter().flat_map(|s| s.intervals.iter().flatten());
        values.chain(ends.flat_map(|(low, high)| [*low, *high])).collect()
    }

    fn draw(&self) -> Markup {
        let range = self.value.fit(self.tops().into_iter(), true);
        let ticks = self.value.ticks_in(range, (self.size.1 / 55.0).round());
        // How the categories' names fit depends on the width, which hardly depends on them.
        let widest = self.categories.iter().map(|name| width_px(name)).fold(0.0, f64::max);
        let count = self.categories.len().max(1) as f64;
        let flat = Area::new(self.size, &ticks, 46.0, 8.0);
        let turned = !self.bins && widest + 6.0 > flat.width / count;
        let every =
            if self.bins { ((widest + 10.0) * count / flat.width).ceil() as usize } else { 1 };
        let area = if turned {
            let drop = widest * TURNED_DEGREES.to_radians().sin();
            Area::new(self.size, &ticks, drop + 40.0, 8.0)
        } else {
            flat
        };
        let below = self.size.1 - area.bottom() - 8.0;
        let slot = area.width / count;
        let body = html! {
            (area.y_axis(&self.value.label, &ticks, range, true))
            @for (index, name) in self.categories.iter().enumerate() {
                @let left = area.left + slot * index as f64;
                (self.bars(index, &area, (left, slot), range))
                @let name_at = if self.bins { left } else { left + slot / 2.0 };
                @if index % every.max(1) == 0 { (name_below(name, name_at, &area, turned)) }
            }
            (zero_line(&area, range))
            (area.x_label(&self.category, below))
        };
        svg(&self.alt(), self.size, &body)
    }

    /// The bars of one category, in a slot from `left`.
    fn bars(
        &self,
        category: usize,
        area: &Area,
        (left, slot): (f64, f64),
        range: (f64, f64),
    ) -> Markup {
        let group = if self.bins { slot } else { slot * 0.8 };
        let side_by_side = if self.stacked { 1 } else { self.series.len().max(1) };
        let width = group / side_by_side as f64;
        html! {
            @for (index, series) in self.series.iter().enumerate() {
                @if let Some(value) = series.values.get(category).copied().flatten() {
                    @let place = if self.stacked { 0.0 } else { index as f64 };
                    @let base = if self.stacked { self.below(index, category) } else { 0.0 };
                    @let x = left + (slot - group) / 2.0 + width * place;
                    @let (from, to) = (area.y(base, range), area.y(base + value, range));
                    @let (top, height) = (from.min(to), (from - to).abs());
                    rect class=(format!("bar {}", series_class(index))) x=(px(x)) y=(px(top))
                        width=(px((width - 1.0).max(0.5))) height=(px(height)) {}
                    @if !self.stacked {
                        (self.mark(series, category, (x, width), area, range))
                    }
                }
            }
        }
    }

    /// What stands on a bar from `x`: the whisker, or if there is none and there is room, the value.
    fn mark(
        &self,
        series: &Bars,
        category: usize,
        (x, width): (f64, f64),
        area: &Area,
        range: (f64, f64),
    ) -> Markup {
        let value = series.values.get(category).copied().flatten().unwrap_or_default();
        let middle = x + width / 2.0;
        if let Some((low, high)) = series.intervals.get(category).copied().flatten() {
            return whisker(middle, area.y(low, range), area.y(high, range));
        }
        // Over a bar that hangs down, its value stands on the line it hangs from.
        let y = area.y(value.max(0.0), range) - 4.0;
        html! {
            @if width >= LABELLED_PX {
                text.value x=(px(middle)) y=(px(y)) text-anchor="middle" { (self.value.text(value)) }
            }
        }
    }

    /// The sum of the series below `series`.
    fn below(&self, series: usize, category: usize) -> f64 {
        let below = self.series.iter().take(series);
        below.filter_map(|series| *series.values.get(category)?).sum()
    }

    fn alt(&self) -> String {
        let kind = if self.stacked { "Stacked bar chart" } else { "Bar chart" };
        format!("{kind}: {}. The values are in the table below it.", self.caption)
    }

    fn table(&self) -> Table {
        let names = self.series.iter().map(|series| series.name.clone());
        let mut table = Table::new(
            self.value.label.clone(),
            std::iter::once(self.category.clone()).chain(names),
        );
        for (index, category) in self.categories.iter().enumerate() {
            let cells = self.series.iter().map(|series| {
                let value = series.values.get(index).copied().flatten();
                let ends = series.intervals.get(index).copied().flatten();
                match (value, ends) {
                    (Some(value), Some((low, high))) => {
                        let text = |v| self.value.text(v);
                        format!("{} ({} to {})", text(value), text(low), text(high))
                    }
                    (Some(value), None) => self.value.text(value),
                    (None, _) => "–".to_owned(),
                }
            });
            table = table.row(category, cells);
        }
        table
    }
}

impl From<BarChart> for Figure {
    fn from(chart: BarChart) -> Self {
        let names: Vec<&str> = chart.series.iter().map(|series| series.name.as_str()).collect();
        let drawing = html! {
            @if names.len() > 1 { (legend(&names, false)) }
            (chart.draw())
        };
        Self::new(&chart.caption, &drawing, Some(chart.table()))
    }
}

fn zero_line(area: &Area, range: (f64, f64)) -> Markup {
    let y = area.y(0.0, range);
    html! { path.edge d=(format!("M{} {}H{}", px(area.left), px(y), px(area.right()))) {} }
}

fn whisker(x: f64, low: f64, high: f64) -> Markup {
    let (left, right) = (px(x - 3.0), px(x + 3.0));
    let (low, high, x) = (px(low), px(high), px(x));
    let path = format!("M{left} {low}H{right}M{x} {low}V{high}M{left} {high}H{right}");
    html! { path.whisker d=(path) {} }
}

fn name_below(name: &str, x: f64, area: &Area, turned: bool) -> Markup {
    let y = area.bottom() + 17.0;
    if turned {
        let (x, y) = (px(x + 4.0), px(y - 3.0));
        let turn = format!("rotate(-{TURNED_DEGREES} {x} {y})");
        return html! { text x=(x) y=(y) transform=(turn) text-anchor="end" { (name) } };
    }
    html! { text x=(px(x)) y=(px(y)) text-anchor="middle" { (name) } }
}
