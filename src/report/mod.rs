//! Reports: one HTML file each, with tables, charts and pictures, that needs nothing from elsewhere.
//!
//! In: numbers and texts. Out: [`Page::render`], a whole page, or [`Page::write`], a file. There is no
//! script, and style, drawings (SVG) and pictures (PNG in data URIs) stand in the file; a content
//! security policy in its head forbids the rest. It follows the reader's light or dark scheme and prints
//! light.
//!
//! ```
//! use undertone::report::{Axis, BarChart, Page, Section};
//!
//! let accuracy = Axis::new("Balanced accuracy").range(0.0, 1.0).percent();
//! let chart = BarChart::new("By sex", "corpus", ["crema-d", "ravdess"], accuracy)
//!     .series("women", [Some(0.56), Some(0.48)])
//!     .intervals([Some((0.54, 0.58)), Some((0.44, 0.52))])
//!     .series("men", [Some(0.53), None]);
//! let page = Page::new("Evaluation", "How well the model hears.")
//!     .section(Section::new("Sexes").text("Whiskers are 95 % intervals.").figure(chart));
//! assert!(page.render().contains("<svg"));
//! ```
//!
//! Figures are [`BarChart`] (side by side, with whiskers, or stacked), [`LineChart`] (several series,
//! bands, a diagonal; also a waveform's envelope), [`HeatMap`] (confusion matrices) and [`Picture`]
//! (spectrograms). [`Section::figure`] takes any of them.
//!
//! What always holds:
//! 1. Every text is escaped, whatever is in it. `maud` does that; nothing here writes HTML otherwise.
//! 2. A chart has an alternative text, and its values stand in a table below it, folded away. Series
//!    differ in dashes (lines) or order (bars) as well as in colour.
//! 3. Numbers that are not finite are left out.
//! 4. The same input gives the same bytes: no dates, no random names.
//!
//! Charts are drawn here, not by a plotting library: those fix colours when they draw, and these must
//! follow the reader's scheme by style sheet. Colours of series are those of Okabe and Ito (2008,
//! "Color universal design") with the pale ones replaced, darkened for light pages and lightened for
//! dark ones; at least 3:1 against the page (WCAG 2.1, 1.4.11).

mod axis;
mod bars;
mod colour;
mod course;
mod heat;
mod lines;
mod picture;

use std::path::{Path, PathBuf};

use maud::{DOCTYPE, Markup, PreEscaped, html};

pub use axis::Axis;
pub use bars::BarChart;
pub use course::{Block, Course, Span, Strip};
pub use heat::HeatMap;
pub use lines::LineChart;
pub use picture::Picture;

/// Nothing is loaded, run or sent.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";
/// Colours of series in the style sheet; a ninth series has the first one's again.
const COLOURS: usize = 8;
/// Dashes of line series. Seven of them against eight colours: 56 series before both repeat.
const DASHES: [&str; 7] = ["none", "7 3", "2 3", "9 3 2 3", "12 4", "4 2 1 2 1 2", "1 2"];

/// A report that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct ReportError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: std::io::Error,
}

/// A whole report.
#[derive(Debug, Clone)]
pub struct Page {
    title: String,
    lead: String,
    sections: Vec<Section>,
}

impl Page {
    /// A page with a title and a sentence or two under it.
    pub fn new(title: impl Into<String>, lead: impl Into<String>) -> Self {
        Self { title: title.into(), lead: lead.into(), sections: Vec::new() }
    }

    /// Adds a section at the end.
    #[must_use]
    pub fn section(mut self, section: Section) -> Self {
        self.sections.push(section);
        self
    }

    /// The HTML.
    pub fn render(&self) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta http-equiv="Content-Security-Policy" content=(POLICY);
                    meta name="color-scheme" content="light dark";
                    title { (self.title) }
                    style { (PreEscaped(include_str!("style.css"))) }
                }
                body {
                    header {
                        h1 { (self.title) }
                        p.lead { (self.lead) }
                        @if self.sections.len() > 1 {
                            nav aria-label="Sections" { ul {
                                @for (index, section) in self.sections.iter().enumerate() {
                                    li { a href=(format!("#s{index}")) { (section.title) } }
                                }
                            } }
                        }
                    }
                    main {
                        @for (index, section) in self.sections.iter().enumerate() {
                            section id=(format!("s{index}")) aria-labelledby=(format!("h{index}")) {
                                h2 id=(format!("h{index}")) { (section.title) }
                                @for part in &section.parts { (part) }
                            }
                        }
                    }
                    footer { p { "Made by undertone " (env!("CARGO_PKG_VERSION")) "." } }
                }
            }
        };
        page.into_string()
    }

    /// Writes the HTML to `path`: under another name first, so that there is never half a report.
    ///
    /// # Errors
    /// [`ReportError`]; what was at `path` is still there then.
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        let failed = |source| ReportError { path: path.to_owned(), source };
        let name =
            path.file_name().ok_or_else(|| failed(std::io::ErrorKind::IsADirectory.into()))?;
        let mut partial = std::ffi::OsString::from(".");
        partial.push(name);
        partial.push(format!(".{}.partial", std::process::id()));
        let partial = path.with_file_name(partial);
        let done =
            std::fs::write(&partial, self.render()).and_then(|()| std::fs::rename(&partial, path));
        done.map_err(|source| {
            // Whether or not it is there: the first error is the one to tell.
            let _ = std::fs::remove_file(&partial);
            failed(source)
        })
    }
}

/// A part of a page under a heading of its own.
#[derive(Debug, Clone)]
pub struct Section {
    title: String,
    parts: Vec<Markup>,
}

impl Section {
    /// An empty section.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), parts: Vec::new() }
    }

    fn with(mut self, part: Markup) -> Self {
        self.parts.push(part);
        self
    }

    /// Adds a paragraph.
    #[must_use]
    pub fn text(self, text: impl AsRef<str>) -> Self {
        self.with(html! { p { (text.as_ref()) } })
    }

    /// Adds a paragraph that is not to be overlooked.
    #[must_use]
    pub fn note(self, text: impl AsRef<str>) -> Self {
        self.with(html! { p.note { (text.as_ref()) } })
    }

    /// Adds a heading below the section's own.
    #[must_use]
    pub fn heading(self, text: impl AsRef<str>) -> Self {
        self.with(html! { h3 { (text.as_ref()) } })
    }

    /// Adds a list.
    #[must_use]
    pub fn list(self, items: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.with(html! { ul { @for item in items { li { (item.as_ref()) } } } })
    }

    /// Adds a table.
    #[must_use]
    pub fn table(self, table: &Table) -> Self {
        self.with(table.markup())
    }

    /// Adds a chart or picture.
    #[must_use]
    pub fn figure(self, figure: impl Into<Figure>) -> Self {
        self.with(figure.into().0)
    }

    /// Adds small figures side by side, as many in a row as fit; 340 px is a good width for them.
    #[must_use]
    pub fn figures(self, figures: impl IntoIterator<Item = impl Into<Figure>>) -> Self {
        self.with(html! { div.figures { @for figure in figures { (figure.into().0) } } })
    }
}

/// A chart or picture with its caption; made from one by `into()`.
#[derive(Debug, Clone)]
pub struct Figure(Markup);

impl Figure {
    fn new(caption: &str, drawing: &Markup, values: Option<Table>) -> Self {
        Self(html! {
            figure {
                (drawing)
                figcaption { (caption) }
                @if let Some(table) = values {
                    details { summary { "Values as a table" } (table.markup()) }
                }
            }
        })
    }
}

/// A table. The first column names the rows.
#[derive(Debug, Clone)]
pub struct Table {
    caption: String,
    columns: Vec<String>,
    rows: Vec<Row>,
    words: bool,
}

#[derive(Debug, Clone)]
struct Row {
    name: String,
    cells: Vec<String>,
    total: bool,
}

impl Table {
    /// An empty table of numbers, set flush right.
    pub fn new(
        caption: impl Into<String>,
        columns: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            caption: caption.into(),
            columns: columns.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
            words: false,
        }
    }

    /// The cells are words, set flush left.
    #[must_use]
    pub fn of_words(mut self) -> Self {
        self.words = true;
        self
    }

    /// Adds a row.
    #[must_use]
    pub fn row(
        mut self,
        name: impl AsRef<str>,
        cells: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let cells = cells.into_iter().map(Into::into).collect();
        self.rows.push(Row { name: name.as_ref().to_owned(), cells, total: false });
        self
    }

    /// Adds a row that sums the others up, set apart by a line.
    #[must_use]
    pub fn total(
        self,
        name: impl AsRef<str>,
        cells: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let mut table = self.row(name, cells);
        if let Some(row) = table.rows.last_mut() {
            row.total = true;
        }
        table
    }

    fn markup(&self) -> Markup {
        html! {
            // Wide tables scroll by themselves; the keyboard must reach them to do so.
            div.scroll tabindex="0" role="region" aria-label=(self.caption) {
                table.words[self.words] {
                    caption { (self.caption) }
                    thead { tr { @for column in &self.columns { th scope="col" { (column) } } } }
                    tbody {
                        @for row in &self.rows {
                            tr.total[row.total] {
                                th scope="row" { (row.name) }
                                @for cell in &row.cells { td { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A number with `decimals` and a comma between thousands; a dash if it is not finite.
pub fn number(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let zero = text.chars().all(|c| matches!(c, '0' | '.'));
    let sign = if value < 0.0 && !zero { "-" } else { "" };
    format!("{sign}{grouped}{fraction}")
}

/// A number with as many decimals as it needs, at most three: 0.25, 4.
pub fn short(value: f64) -> String {
    let text = number(value, 3);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A share in [0, 1] as per cent with `decimals`; a dash if it is not finite.
pub fn percent(share: f64, decimals: usize) -> String {
    if share.is_finite() {
        format!("{} %", number(share * 100.0, decimals))
    } else {
        "–".to_owned()
    }
}

/// The class that gives a series its colour.
fn series_class(index: usize) -> String {
    format!("c{}", index % COLOURS)
}

/// What the colours, and of lines the dashes, stand for.
fn legend(names: &[&str], lines: bool) -> Markup {
    html! {
        ul.legend {
            @for (index, name) in names.iter().enumerate() {
                li {
                    svg class=(series_class(index)) viewBox="0 0 28 12" aria-hidden="true" {
                        @if lines {
                            path.line stroke-dasharray=(lines::dash(index)) d="M0 6H28" {}
                        } @else {
                            rect.bar x="8" width="12" height="12" {}
                        }
                    }
                    (name)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
