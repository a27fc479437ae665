//! The colour map of pictures and heat maps: viridis, 256 entries.
//!
//! Viridis (N. Smith and S. van der Walt 2015, matplotlib's default) is perceptually even, ordered in
//! lightness, hence readable in grey, and distinguishable to the colour-blind. Computed from the
//! polynomial of degree six that M. Zucker fitted to it ("Viridis-like color maps", Shadertoy `WlfXRN`,
//! 2019, public domain under CC0), which stays within 0.02 of the table.

/// Coefficients of red, green and blue, constant term first.
const VIRIDIS: [[f64; 7]; 3] = [
    [0.277_727_3, 0.105_093_0, -0.330_861_8, -4.634_230_5, 6.228_269_9, 4.776_385_0, -5.435_455_9],
    [0.005_407_3, 1.404_613_5, 0.214_847_6, -5.799_101_0, 14.179_933_4, -13.745_145_4, 4.645_852_6],
    [
        0.334_099_8,
        1.384_590_2,
        0.095_095_2,
        -19.332_441_0,
        56.690_552_6,
        -65.353_032_6,
        26.312_435_2,
    ],
];

/// The colour of `t`, in [0, 1] from dark blue to yellow; outside it is clamped.
pub(super) fn viridis(t: f64) -> [u8; 3] {
    let t = if t.is_finite() { t.clamp(0.0, 1.0) } else { 0.0 };
    VIRIDIS.map(|coefficients| {
        let value = coefficients.iter().rev().fold(0.0, |sum, c| sum * t + c);
        (value.clamp(0.0, 1.0) * 255.0).round() as u8
    })
}

/// The map as a PNG palette: 256 colours of three bytes.
pub(super) fn palette() -> Vec<u8> {
    (0..=255).flat_map(|i| viridis(f64::from(i) / 255.0)).collect()
}

/// Whether white text reads better on `rgb` than black: by WCAG 2.1's relative luminance, at which the
/// contrast to both is the same.
pub(super) fn is_dark(rgb: [u8; 3]) -> bool {
    let linear = rgb.map(|channel| {
        let c = f64::from(channel) / 255.0;
        if c <= 0.040_45 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    });
    let [r, g, b] = linear;
    0.2126 * r + 0.7152 * g + 0.0722 * b < 0.179
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_run_from_dark_blue_over_green_to_yellow() {
        // matplotlib's own entries 0, 128 and 255.
        for (t, expected) in
            [(0.0, [68, 1, 84]), (128.0 / 255.0, [33, 145, 140]), (1.0, [253, 231, 37])]
        {
            for (ours, theirs) in viridis(t).into_iter().zip(expected) {
                assert!(ours.abs_diff(theirs) <= 6, "{t}: {:?}", viridis(t));
            }
        }
        assert_eq!(viridis(7.0), viridis(1.0));
        assert_eq!(viridis(f64::NAN), viridis(0.0));
        assert_eq!(palette().len(), 768);
    }

    #[test]
    fn text_is_white_on_the_dark_end_and_black_on_the_bright_one() {
        assert!(is_dark(viridis(0.1)));
        assert!(!is_dark(viridis(0.9)));
    }
}
