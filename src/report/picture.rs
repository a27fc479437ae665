//! Pictures: a matrix of values as colours, such as a spectrogram, with axes and a colour bar.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};

use super::axis::{Area, Axis, px, svg};
use super::{Figure, colour};

/// Width of the colour bar and its distance from the picture, px.
const BAR_PX: f64 = 12.0;
const GAP_PX: f64 = 12.0;

/// A picture of values.
#[derive(Debug, Clone)]
pub struct Picture {
    caption: String,
    alt: String,
    columns: usize,
    values: Vec<f32>,
    x: Axis,
    y: Axis,
    colour: Axis,
    size: (f64, f64),
}

impl Picture {
    /// A picture of `values`: rows of `columns` values each, the lowest row first. The ranges of `x` and
    /// `y` are those of the whole picture, from edge to edge; that of `colour` runs from the darkest
    /// colour to the brightest, and values beyond it are drawn as its ends. `alt` says what is to be
    /// seen, for those who do not see it.
    pub fn new(
        caption: impl Into<String>,
        alt: impl Into<String>,
        (columns, values): (usize, Vec<f32>),
        x: Axis,
        y: Axis,
        colour: Axis,
    ) -> Self {
        Self {
            caption: caption.into(),
            alt: alt.into(),
            columns,
            values,
            x,
            y,
            colour,
            size: (720.0, 240.0),
        }
    }

    /// Natural width and height, px; 720 by 240 if not said.
    #[must_use]
    pub fn size(mut self, width: f64, height: f64) -> Self {
        self.size = (width, height);
        self
    }

    fn draw(&self) -> Markup {
        let rows = self.values.len() / self.columns.max(1);
        let x_range = self.x.fit([0.0, self.columns as f64].into_iter(), false);
        let y_range = self.y.fit([0.0, rows as f64].into_iter(), false);
        let range = self.colour.fit(self.values.iter().map(|v| f64::from(*v)), false);
        let y_ticks = self.y.ticks_in(y_range, (self.size.1 / 50.0).round());
        let colours = self.colour.ticks_in(range, (self.size.1 / 60.0).round());
        let widest =
            colours.iter().map(|(_, text)| super::axis::width_px(text)).fold(0.0, f64::max);
        // The bar's label stands upright at the right edge.
        let right = GAP_PX + BAR_PX + 8.0 + widest + 18.0;
        let area = Area::new(self.size, &y_ticks, 44.0, right);
        let bar = Area { left: area.right() + GAP_PX, width: BAR_PX, ..area };
        let x_ticks = self.x.ticks_in(x_range, (area.width / 75.0).round());
        let body = html! {
            (image(&area, encode(self.columns, &self.values, range)))
            (image(&bar, encode(1, &(0..=255).map(|i| i as f32).collect::<Vec<_>>(), (0.0, 255.0))))
            (area.edge(true))
            (bar.edge(true))
            (area.y_axis(&self.y.label, &y_ticks, y_range, false))
            (area.x_axis(&self.x.label, &x_ticks, x_range))
            @for (value, text) in &colours {
                @let y = bar.y(*value, range);
                path.edge d=(format!("M{} {}h4", px(bar.right()), px(y))) {}
                text x=(px(bar.right() + 7.0)) y=(px(y + 4.0)) { (text) }
            }
            text.axis x=(px(area.top + area.height / 2.0)) y=(px(-(self.size.0 - 11.0)))
                transform="rotate(90)" text-anchor="middle" { (self.colour.label) }
        };
        svg(&self.alt, self.size, &body)
    }
}

impl From<Picture> for Figure {
    fn from(picture: Picture) -> Self {
        Self::new(&picture.caption, &picture.draw(), None)
    }
}

/// A PNG stretched over `area`; nothing if there is none.
fn image(area: &Area, png: Option<Vec<u8>>) -> Markup {
    html! {
        @if let Some(png) = png {
            image x=(px(area.left)) y=(px(area.top)) width=(px(area.width)) height=(px(area.height))
                preserveAspectRatio="none"
                href=(format!("data:image/png;base64,{}", STANDARD.encode(png))) {}
        }
    }
}

/// Values as a PNG of palette colours, the lowest row at the bottom. `None` for a picture without
/// pixels; values behind the last whole row are left out.
fn encode(columns: usize, values: &[f32], (low, high): (f64, f64)) -> Option<Vec<u8>> {
    let rows: Vec<&[f32]> = values.chunks_exact(columns.max(1)).collect();
    let pixels: Vec<u8> = rows
        .iter()
        .rev()
        .flat_map(|row| row.iter())
        .map(|value| ((f64::from(*value) - low) / (high - low) * 255.0).round() as u8)
        .collect();
    let mut png = Vec::new();
    let (width, height) = (u32::try_from(columns).ok()?, u32::try_from(rows.len()).ok()?);
    let mut encoder = png::Encoder::new(&mut png, width, height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(colour::palette());
    encoder.set_compression(png::Compression::High);
    // Indices of a palette are no amounts: differences between neighbours do not compress better.
    encoder.set_filter(png::Filter::NoFilter);
    // Zero pixels are what the encoder refuses; writing to memory does not fail.
    let mut writer = encoder.write_header().ok()?;
    writer.write_image_data(&pixels).ok()?;
    writer.finish().ok()?;
    Some(png)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_row_is_at_the_bottom_and_values_beyond_the_range_are_its_ends() {
        let png = encode(2, &[0.0, 1.0, -9.0, 9.0], (0.0, 1.0)).unwrap();
        let mut decoder = png::Decoder::new(std::io::Cursor::new(png));
        decoder.set_transformations(png::Transformations::IDENTITY);
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, [0, 255, 0, 255]);
        assert_eq!(reader.info().palette.as_deref(), Some(colour::palette().as_slice()));
    }

    #[test]
    fn a_picture_without_pixels_is_an_empty_frame() {
        assert_eq!(encode(0, &[], (0.0, 1.0)), None);
        assert_eq!(encode(3, &[1.0], (0.0, 1.0)), None);
        let axis = || Axis::new("a");
        let picture = Picture::new("none", "nothing", (0, Vec::new()), axis(), axis(), axis());
        let html = picture.draw().into_string();
        assert!(html.contains("aria-label=\"nothing\""), "{html}");
    }
}
