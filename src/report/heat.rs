//! Heat maps: a matrix of numbers, each in its coloured cell.

use maud::{Markup, html};

use super::axis::{Axis, px, svg, width_px};
use super::{Figure, Table, colour};

/// Height of a cell and of the room for what stands above and below, px.
const CELL_PX: f64 = 34.0;
/// Widest cell, px.
const WIDEST_PX: f64 = 92.0;

/// A heat map.
#[derive(Debug, Clone)]
pub struct HeatMap {
    caption: String,
    row: String,
    rows: Vec<String>,
    column: String,
    columns: Vec<String>,
    value: Axis,
    cells: Vec<Vec<Option<f64>>>,
    width: f64,
}

impl HeatMap {
    /// A map of `cells`, row by row from the top. `row` and `column` say what those are ("acted",
    /// "heard"); the range of `value` is that of the colours.
    pub fn new(
        caption: impl Into<String>,
        (row, rows): (impl Into<String>, impl IntoIterator<Item = impl Into<String>>),
        (column, columns): (impl Into<String>, impl IntoIterator<Item = impl Into<String>>),
        value: Axis,
        cells: Vec<Vec<Option<f64>>>,
    ) -> Self {
        Self {
            caption: caption.into(),
            row: row.into(),
            rows: rows.into_iter().map(Into::into).collect(),
            column: column.into(),
            columns: columns.into_iter().map(Into::into).collect(),
            value,
            cells,
            width: 720.0,
        }
    }

    /// Most width, px; 720 if not said. The height follows from the rows.
    #[must_use]
    pub fn width(mut self, width: f64) -> Self {
        self.width = width;
        self
    }

    fn cell(&self, row: usize, column: usize) -> Option<f64> {
        self.cells.get(row)?.get(column).copied().flatten().filter(|value| value.is_finite())
    }

    fn draw(&self) -> Markup {
        let values = self.cells.iter().flatten().flatten().copied();
        let (low, high) = self.value.fit(values, false);
        let widest = self.rows.iter().map(|name| width_px(name)).fold(0.0, f64::max);
        let (left, top) = (widest + 34.0, 42.0);
        let count = self.columns.len().max(1) as f64;
        let cell = ((self.width - left) / count).min(WIDEST_PX);
        let size = (left + cell * count, top + CELL_PX * self.rows.len() as f64 + 4.0);
        let body = html! {
            text.axis x=(px(left + cell * count / 2.0)) y="12" text-anchor="middle" { (self.column) }
            text.axis x=(px(-(top + CELL_PX * self.rows.len() as f64 / 2.0))) y="11"
                transform="rotate(-90)" text-anchor="middle" { (self.row) }
            @for (index, name) in self.columns.iter().enumerate() {
                text x=(px(left + cell * (index as f64 + 0.5))) y=(px(top - 10.0))
                    text-anchor="middle" { (name) }
            }
            @for (r, name) in self.rows.iter().enumerate() {
                @let y = top + CELL_PX * r as f64;
                text x=(px(left - 8.0)) y=(px(y + CELL_PX / 2.0 + 4.0)) text-anchor="end" { (name) }
                @for c in 0..self.columns.len() {
                    @let x = left + cell * c as f64;
                    @match self.cell(r, c) {
                        Some(value) => {
                            @let rgb = colour::viridis((value - low) / (high - low));
                            @let [red, green, blue] = rgb;
                            @let class = if colour::is_dark(rgb) { "on-dark" } else { "on-light" };
                            rect x=(px(x)) y=(px(y)) width=(px(cell - 1.0)) height=(px(CELL_PX - 1.0))
                                fill=(format!("#{red:02x}{green:02x}{blue:02x}")) {}
                            text class=(class) x=(px(x + cell / 2.0)) y=(px(y + CELL_PX / 2.0 + 4.0))
                                text-anchor="middle" { (self.value.text(value)) }
                        }
                        None => {
                            text x=(px(x + cell / 2.0)) y=(px(y + CELL_PX / 2.0 + 4.0))
                                text-anchor="middle" { "–" }
                        }
                    }
                }
            }
        };
        let alt = format!("Heat map: {}. The values are in the table below it.", self.caption);
        svg(&alt, size, &body)
    }

    fn table(&self) -> Table {
        let corner = format!("{} \\ {}", self.row, self.column);
        let columns = std::iter::once(corner).chain(self.columns.iter().cloned());
        let mut table = Table::new(self.value.label.clone(), columns);
        for (r, name) in self.rows.iter().enumerate() {
            let cells = (0..self.columns.len()).map(|c| {
                self.cell(r, c).map_or_else(|| "–".to_owned(), |value| self.value.text(value))
            });
            table = table.row(name, cells);
        }
        table
    }
}

impl From<HeatMap> for Figure {
    fn from(map: HeatMap) -> Self {
        Self::new(&map.caption, &map.draw(), Some(map.table()))
    }
}
