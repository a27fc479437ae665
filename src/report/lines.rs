//! Lines: series of points over a numeric axis, with bands and a diagonal if wanted.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::axis::{Area, Axis, px, svg};
use super::{DASHES, Figure, Table, legend, series_class};

/// Lines of up to this many points have dots on them: more would merge.
const DOTTED: usize = 30;
/// Rows of the table beside the chart for each series: points between are left out evenly.
const ROWS: usize = 25;

/// A line chart.
#[derive(Debug, Clone)]
pub struct LineChart {
    caption: String,
    x: Axis,
    y: Axis,
    series: Vec<Line>,
    diagonal: Option<String>,
    values: bool,
    size: (f64, f64),
}

#[derive(Debug, Clone)]
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
    band: Vec<(f64, f64, f64)>,
}

impl LineChart {
    /// A chart of `y` against `x`.
    pub fn new(caption: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self {
            caption: caption.into(),
            x,
            y,
            series: Vec::new(),
            diagonal: None,
            values: true,
            size: (720.0, 320.0),
        }
    }

    /// Adds a series of (x, y), drawn in the order given. Points that are not finite are left out.
    #[must_use]
    pub fn series(
        mut self,
        name: impl Into<String>,
        points: impl IntoIterator<Item = (f64, f64)>,
    ) -> Self {
        let finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
        let points = points.into_iter().filter(finite).collect();
        self.series.push(Line { name: name.into(), points, band: Vec::new() });
        self
    }

    /// A band about the series added last: (x, low, high), such as a confidence interval. A series
    /// without points is its band alone, drawn solid, such as a waveform's envelope.
    #[must_use]
    pub fn band(mut self, band: impl IntoIterator<Item = (f64, f64, f64)>) -> Self {
        if let Some(last) = self.series.last_mut() {
            let finite = |(x, low, high): &(f64, f64, f64)| (x + low + high).is_finite();
            last.band = band.into_iter().filter(finite).collect();
        }
        self
    }

    /// A dotted line from corner to corner, named in the legend: perfect calibration, pure chance.
    #[must_use]
    pub fn diagonal(mut self, name: impl Into<String>) -> Self {
        self.diagonal = Some(name.into());
        self
    }

    /// No table of values: for signals, whose numbers tell nobody anything.
    #[must_use]
    pub fn without_table(mut self) -> Self {
        self.values = false;
        self
    }

    /// Natural width and height, px; 720 by 320 if not said.
    #[must_use]
    pub fn size(mut self, width: f64, height: f64) -> Self {
        self.size = (width, height);
        self
    }

    fn draw(&self) -> Markup {
        let points = || self.series.iter().flat_map(|line| &line.points);
        let bands = || self.series.iter().flat_map(|line| &line.band);
        let xs = points().map(|p| p.0).chain(bands().map(|b| b.0));
        let ys = points().map(|p| p.1).chain(bands().flat_map(|b| [b.1, b.2]));
        let (x_range, y_range) = (self.x.fit(xs, false), self.y.fit(ys, false));
        let y_ticks = self.y.ticks_in(y_range, (self.size.1 / 55.0).round());
        let area = Area::new(self.size, &y_ticks, 44.0, 16.0);
        let x_ticks = self.x.ticks_in(x_range, (area.width / 75.0).round());
        let at = |x: f64, y: f64| (area.x(x, x_range), area.y(y, y_range));
        let body = html! {
            (area.y_axis(&self.y.label, &y_ticks, y_range, true))
            (area.x_axis(&self.x.label, &x_ticks, x_range))
            @if self.diagonal.is_some() {
                path.guide d=(format!("M{} {}L{} {}", px(area.left), px(area.bottom()),
                    px(area.right()), px(area.top))) {}
            }
            @for (index, line) in self.series.iter().enumerate() {
                @let class = series_class(index);
                @if !line.band.is_empty() {
                    @let kind = if line.points.is_empty() { "solid" } else { "band" };
                    path class=(format!("{kind} {class}")) d=(outline(&line.band, at)) {}
                }
                @if line.points.len() > 1 {
                    path class=(format!("line {class}")) stroke-dasharray=(dash(index))
                        d=(trace(&line.points, at)) {}
                }
                @if line.points.len() <= DOTTED {
                    @for &(x, y) in &line.points {
                        @let (x, y) = at(x, y);
                        circle class=(format!("dot {class}")) cx=(px(x)) cy=(px(y)) r="3" {}
                    }
                }
            }
            (area.edge(false))
        };
        svg(&self.alt(), self.size, &body)
    }

    fn alt(&self) -> String {
        let below = if self.values { " Values are in the table below it." } else { "" };
        format!("Line chart of {} against {}: {}.{below}", self.y.label, self.x.label, self.caption)
    }

    fn table(&self) -> Table {
        let banded = self.series.iter().any(|line| !line.band.is_empty());
        let mut columns = vec!["series", self.x.label.as_str(), self.y.label.as_str()];
        if banded {
            columns.extend(["from", "to"]);
        }
        let mut table = Table::new(self.caption.clone(), columns);
        for line in &self.series {
            let last = line.points.len().saturating_sub(1);
            let every = line.points.len().div_ceil(ROWS).max(1);
            for (index, (x, y)) in line.points.iter().enumerate() {
                if index % every != 0 && index != last {
                    continue;
                }
                let mut cells = vec![self.x.text(*x), self.y.text(*y)];
                if banded {
                    let ends = line.band.iter().find(|band| band.0 == *x);
                    let text = |v: f64| self.y.text(v);
                    let none = || "–".to_owned();
                    cells.push(ends.map_or_else(none, |band| text(band.1)));
                    cells.push(ends.map_or_else(none, |band| text(band.2)));
                }
                table = table.row(&line.name, cells);
            }
        }
        table
    }
}

impl From<LineChart> for Figure {
    fn from(chart: LineChart) -> Self {
        let names: Vec<&str> = chart.series.iter().map(|line| line.name.as_str()).collect();
        let drawing = html! {
            @if names.len() > 1 || chart.diagonal.is_some() {
                (legend(&names, true))
                @if let Some(name) = &chart.diagonal {
                    ul.legend { li {
                        svg viewBox="0 0 28 12" aria-hidden="true" { path.guide d="M0 6H28" {} }
                        (name)
                    } }
                }
            }
            (chart.draw())
        };
        let table = chart.values.then(|| chart.table());
        Self::new(&chart.caption, &drawing, table)
    }
}

/// Dashes tell lines apart where colours do not.
pub(super) fn dash(series: usize) -> &'static str {
    DASHES.get(series % DASHES.len()).copied().unwrap_or("none")
}

fn trace(points: &[(f64, f64)], at: impl Fn(f64, f64) -> (f64, f64)) -> String {
    let mut path = String::new();
    for (index, &(x, y)) in points.iter().enumerate() {
        let (x, y) = at(x, y);
        let _ = write!(path, "{}{} {}", if index == 0 { 'M' } else { 'L' }, px(x), px(y));
    }
    path
}

/// Along the upper edge and back along the lower one.
fn outline(band: &[(f64, f64, f64)], at: impl Fn(f64, f64) -> (f64, f64)) -> String {
    let upper = band.iter().map(|&(x, _, high)| (x, high));
    let lower = band.iter().rev().map(|&(x, low, _)| (x, low));
    let points: Vec<(f64, f64)> = upper.chain(lower).collect();
    trace(&points, at) + "Z"
}
