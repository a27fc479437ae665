//! G.711 expansion: one byte of µ-law or A-law to a linear sample.
//!
//! The standard is ITU-T Recommendation G.711 (11/88): Tables 1a and 1b (A-law, 13-bit linear, the
//! even bits of the code inverted on the wire) and Tables 2a and 2b (µ-law, 14-bit linear, all bits
//! inverted). Values are left-justified to 16 bits, as G.191's reference code does, so that ±32,768 is
//! the same full scale as of 16-bit linear samples: µ-law times 4, A-law times 8.
//!
//! The tables are built at compile time and hold `f32` samples, full scale 1.0: 1 KiB each.

/// The greatest µ-law magnitude, on the 16-bit scale: 8,031 times 4.
pub const MU_LAW_MAX: i16 = 32_124;
/// The greatest A-law magnitude, on the 16-bit scale: 4,032 times 8.
pub const A_LAW_MAX: i16 = 32_256;

/// Every µ-law code as a sample, full scale 1.0.
pub static MU_LAW: [f32; 256] = table(true);
/// Every A-law code as a sample, full scale 1.0.
pub static A_LAW: [f32; 256] = table(false);

/// The 14-bit value of a µ-law code, -8,031 to 8,031 (G.711, Tables 2a and 2b).
pub const fn expand_mu_law(code: u8) -> i16 {
    let bits = !code;
    let segment = (bits >> 4) & 0x07;
    let step = (bits & 0x0f) as i16;
    // The chords of µ-law start at ±33 of a scale shifted by 33, so that they double exactly.
    let magnitude = ((2 * step + 33) << segment) - 33;
    if bits & 0x80 == 0 { magnitude } else { -magnitude }
}

/// The 13-bit value of an A-law code, -4,032 to 4,032 (G.711, Tables 1a and 1b).
pub const fn expand_a_law(code: u8) -> i16 {
    let bits = code ^ 0x55;
    let segment = (bits >> 4) & 0x07;
    let step = (bits & 0x0f) as i16;
    // The first two segments share one step size; each further one doubles it.
    let magnitude = match segment {
        0 => 2 * step + 1,
        _ => (2 * step + 33) << (segment - 1),
    };
    if bits & 0x80 == 0 { -magnitude } else { magnitude }
}

#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler, where it cannot panic")]
const fn table(mu_law: bool) -> [f32; 256] {
    let mut samples = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        let linear = if mu_law {
            4 * expand_mu_law(code as u8) as i32
        } else {
            8 * expand_a_law(code as u8) as i32
        };
        samples[code] = linear as f32 / 32_768.0;
        code += 1;
    }
    samples
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "decoding is exact")]
mod tests {
    use super::*;

    /// G.711, Table 2a: the decision values at the segment ends, with the step within the segment.
    const MU_LAW_SEGMENTS: [(i16, i16, i16); 8] = [
        (8159, 4063, 256),
        (4063, 2015, 128),
        (2015, 991, 64),
        (991, 479, 32),
        (479, 223, 16),
        (223, 95, 8),
        (95, 31, 4),
        (31, 1, 2),
    ];

    /// G.711, Table 1a: the same for A-law.
    const A_LAW_SEGMENTS: [(i16, i16, i16); 7] = [
        (4096, 2048, 128),
        (2048, 1024, 64),
        (1024, 512, 32),
        (512, 256, 16),
        (256, 128, 8),
        (128, 64, 4),
        (64, 0, 2),
    ];

    /// The quantised values `y` from the greatest down: the means of neighbouring decision values.
    fn outputs(segments: &[(i16, i16, i16)]) -> Vec<i16> {
        let mut values = Vec::new();
        for &(top, bottom, step) in segments {
            let mut upper = top;
            while upper > bottom {
                values.push(upper - step / 2);
                upper -= step;
            }
        }
        values
    }

    #[test]
    fn mu_law_gives_every_output_value_of_the_recommendation() {
        let mut expected = outputs(&MU_LAW_SEGMENTS);
        // The last interval, from 1 down to 0, has the value 0.
        expected.push(0);
        assert_eq!(expected.len(), 128);
        // The column of y values at the segment ends, as printed.
        for (n, y) in [(0, 8031), (15, 4191), (16, 3999), (31, 2079), (47, 1023), (63, 495)] {
            assert_eq!(expected[n], y);
        }
        for (n, y) in [(79, 231), (95, 99), (111, 33), (112, 30), (126, 2), (127, 0)] {
            assert_eq!(expected[n], y);
        }
        for (n, &y) in expected.iter().enumerate() {
            // The greatest positive value has the code 1000 0000, the least 1111 1111.
            assert_eq!(expand_mu_law(0x80 + n as u8), y);
            assert_eq!(expand_mu_law(n as u8), -y);
        }
    }

    #[test]
    fn a_law_gives_every_output_value_of_the_recommendation() {
        let expected = outputs(&A_LAW_SEGMENTS);
        assert_eq!(expected.len(), 128);
        for (n, y) in [(0, 4032), (15, 2112), (16, 2016), (31, 1056), (47, 528), (63, 264)] {
            assert_eq!(expected[n], y);
        }
        for (n, y) in [(79, 132), (95, 66), (96, 63), (111, 33), (112, 31), (127, 1)] {
            assert_eq!(expected[n], y);
        }
        for (n, &y) in expected.iter().enumerate() {
            // Before the inversion of the even bits the greatest positive value is 1111 1111.
            let code = (0xff - n as u8) ^ 0x55;
            assert_eq!(expand_a_law(code), y);
            assert_eq!(expand_a_law(code ^ 0x80), -y);
        }
    }

    #[test]
    fn the_tables_are_the_values_over_full_scale() {
        assert_eq!(MU_LAW[0x80], f32::from(MU_LAW_MAX) / 32_768.0);
        assert_eq!(MU_LAW[0x00], -f32::from(MU_LAW_MAX) / 32_768.0);
        assert_eq!(MU_LAW[0xff], 0.0);
        assert_eq!(A_LAW[0xaa], f32::from(A_LAW_MAX) / 32_768.0);
        assert_eq!(A_LAW[0x2a], -f32::from(A_LAW_MAX) / 32_768.0);
        assert_eq!(A_LAW[0xd5], 8.0 / 32_768.0);
    }
}
