//! Claims about resampling.

use std::f64::consts::{PI, TAU};

use super::*;
use crate::audio::synthesis::{noise, sine, tone};

/// Rates of both kinds, up and down, and of files.
const RATES_HZ: [u32; 17] = [
    4_000, 8_000, 11_025, 12_000, 12_345, 15_999, 16_001, 22_050, 22_051, 24_000, 32_000, 44_100,
    47_999, 48_000, 88_200, 96_000, 192_000,
];

fn resample_in(input: &[f32], rate_hz: u32, chunk: usize) -> Vec<f32> {
    let mut resampler = Resampler::new(rate_hz, 1).unwrap().unwrap();
    let mut output = vec![Vec::new()];
    let silence = vec![0.0; 2 * resampler.latency_frames()];
    let mut rest: Vec<&[f32]> = input.chunks(chunk).collect();
    rest.push(&silence);
    for part in rest {
        let mut part = part;
        while !part.is_empty() {
            let (staged, room) = resampler.input();
            let (now, later) = part.split_at(part.len().min(room));
            staged[0].extend_from_slice(now);
            part = later;
            resampler.advance(&mut output).unwrap();
        }
    }
    let mut output = output.remove(0);
    let end = (input.len() as u64 * 16_000).div_ceil(u64::from(rate_hz)) as usize;
    assert!(output.len() >= end, "{rate_hz} Hz: {} of {end} samples", output.len());
    output.truncate(end);
    output
}

fn resample(input: &[f32], rate_hz: u32) -> Vec<f32> {
    resample_in(input, rate_hz, input.len())
}

#[test]
fn a_click_comes_out_when_it_came_in() {
    for rate_hz in RATES_HZ {
        for at_s in [0.0, 0.1, 0.23456] {
            let at = (at_s * f64::from(rate_hz)).round() as usize;
            let mut input = vec![0.0; rate_hz as usize / 2];
            input[at] = 1.0;
            let output = resample(&input, rate_hz);
            let peak = (0..output.len())
                .max_by(|&a, &b| output[a].abs().total_cmp(&output[b].abs()))
                .unwrap();
            let expected = at as f64 * 16_000.0 / f64::from(rate_hz);
            assert!(
                (peak as f64 - expected).abs() <= 0.51,
                "{rate_hz} Hz: click at {expected} came at {peak}"
            );
        }
    }
}

#[test]
fn a_sine_keeps_its_phase_and_its_level() {
    for rate_hz in RATES_HZ {
        let rate = f64::from(rate_hz);
        for hz in [200.0, 1_000.0, 1_700.0] {
            let input = sine(hz, rate, rate_hz as usize, 0.5);
            let output = resample(&input, rate_hz);
            let middle = &output[4_000..12_000];
            let (amplitude, phase) = tone(middle, hz, 16_000.0);
            // 4,000 samples are a quarter of a second.
            let expected = TAU * hz * 0.25;
            let error = (phase - expected + PI).rem_euclid(TAU) - PI;
            let late_samples = -error / (TAU * hz) * 16_000.0;
            assert!(late_samples.abs() < 0.1, "{rate_hz} Hz, {hz}: late by {late_samples}");
            assert!((amplitude - 0.5).abs() < 0.005, "{rate_hz} Hz, {hz}: level {amplitude}");
        }
    }
}

#[test]
fn what_passes_is_flat_to_seven_kilohertz() {
    for rate_hz in RATES_HZ {
        let rate = f64::from(rate_hz);
        // 7 of 8 kHz, or that part of a lower Nyquist frequency.
        let top = 7.0 / 16.0 * rate.min(16_000.0);
        for part in [0.01, 0.3, 0.6, 0.9, 1.0] {
            let hz = part * top;
            let output = resample(&sine(hz, rate, rate_hz as usize / 2, 0.5), rate_hz);
            let level_db = 20.0 * (tone(&output[2_000..6_000], hz, 16_000.0).0 / 0.5).log10();
            assert!(level_db.abs() < 0.1, "{rate_hz} Hz: {hz} Hz at {level_db} dB");
        }
    }
}

#[test]
fn what_would_fold_back_is_sixty_decibels_down() {
    for rate_hz in RATES_HZ.into_iter().filter(|&rate_hz| rate_hz > 16_001) {
        let rate = f64::from(rate_hz);
        for part in [0.0, 0.02, 0.1, 0.3, 0.6, 0.99] {
            let hz = 8_000.0 + part * (rate / 2.0 - 8_000.0);
            let output = resample(&sine(hz, rate, rate_hz as usize / 2, 1.0), rate_hz);
            let power = crate::audio::level::mean_square(&output[2_000..6_000]);
            let level_db = 10.0 * (2.0 * power).log10();
            assert!(level_db < -60.0, "{rate_hz} Hz: {hz} Hz comes through at {level_db} dB");
        }
    }
}

#[test]
fn images_of_a_low_rate_are_sixty_decibels_down() {
    for rate_hz in [4_000, 8_000, 11_025, 12_345] {
        let rate = f64::from(rate_hz);
        for part in [0.1, 0.5, 7.0 / 8.0] {
            let hz = part * rate / 2.0;
            let output = resample(&sine(hz, rate, rate_hz as usize, 1.0), rate_hz);
            let image = tone(&output[4_000..12_000], rate - hz, 16_000.0).0;
            assert!(20.0 * image.log10() < -60.0, "{rate_hz} Hz: {hz} Hz has an image of {image}");
        }
    }
}

#[test]
fn any_chunking_gives_the_same_bits() {
    for rate_hz in RATES_HZ {
        let input = noise(u64::from(rate_hz), 3_000, 1.0);
        let whole = resample(&input, rate_hz);
        for chunk in [1, 7, 256, 1_000] {
            assert_eq!(resample_in(&input, rate_hz, chunk), whole, "{rate_hz} Hz by {chunk}");
        }
    }
}

/// Feeds `input` from frame `at` on, appending to `output`.
fn feed(resampler: &mut Resampler, mut input: &[f32], output: &mut [Vec<f32>]) {
    while !input.is_empty() {
        let (staged, room) = resampler.input();
        let (now, later) = input.split_at(input.len().min(room));
        for lane in staged {
            lane.extend_from_slice(now);
        }
        input = later;
        resampler.advance(output).unwrap();
    }
}

/// A new resampler that goes on from the state of `before` after `frames` frames.
fn resumed(before: &Resampler, frames: usize, made: usize) -> Resampler {
    let lanes = before.staged.len();
    let mut after = Resampler::new(before.rate_hz, lanes).unwrap().unwrap();
    let count = after.restore(frames as u64, &before.state()).unwrap();
    assert_eq!(count, made as u64, "{} Hz after {frames} frames", before.rate_hz);
    assert_eq!((after.needed, after.past), (before.needed, before.past));
    assert_eq!((after.surplus, after.staged.len()), (before.surplus, lanes));
    after
}

#[test]
fn a_resampler_that_is_gone_on_from_gives_the_same_bits() {
    for rate_hz in RATES_HZ.into_iter().chain((8_000..48_000).step_by(3_331)) {
        let input = noise(u64::from(rate_hz), 6_000, 1.0);
        for at in [0, 1, 7, 100, 287, 288, 289, 1_000, 4_321] {
            let mut whole = Resampler::new(rate_hz, 2).unwrap().unwrap();
            let (mut before, mut after) = (vec![Vec::new(); 2], vec![Vec::new(); 2]);
            feed(&mut whole, &input[..at], &mut before);
            let mut other = resumed(&whole, at, before[0].len());
            before.iter_mut().for_each(Vec::clear);
            feed(&mut whole, &input[at..], &mut before);
            feed(&mut other, &input[at..], &mut after);
            assert_eq!(before, after, "{rate_hz} Hz, gone on from frame {at}");
            // And what was gone on from can be gone on from.
            resumed(&other, input.len(), whole_count(&other, input.len()));
        }
    }
}

/// Output samples that `frames` frames have made.
fn whole_count(resampler: &Resampler, frames: usize) -> usize {
    let (blocks, _) = resampler.progress((resampler.ahead + frames) as u64);
    (blocks as usize * resampler.made[0].len()).saturating_sub(resampler.early)
}

#[test]
fn minutes_into_a_stream_a_resampler_is_gone_on_from_to_the_bit() {
    // Rates of the sinc resampler: the other one has no phase to lose.
    for rate_hz in [11_025, 12_347, 47_999] {
        let minute = noise(u64::from(rate_hz), rate_hz as usize * 60, 1.0);
        let mut whole = Resampler::new(rate_hz, 1).unwrap().unwrap();
        let (mut before, mut after) = (vec![Vec::new()], vec![Vec::new()]);
        let (mut frames, mut made) = (0, 0);
        for minutes in 1..=3 {
            feed(&mut whole, &minute[minutes..], &mut before);
            frames += minute.len() - minutes;
            made += before[0].len();
            let mut other = resumed(&whole, frames, made);
            before[0].clear();
            feed(&mut whole, &minute[..9_000], &mut before);
            feed(&mut other, &minute[..9_000], &mut after);
            assert_eq!(before, after, "{rate_hz} Hz, gone on from after {minutes} minutes");
            frames += 9_000;
            made += before[0].len();
            before[0].clear();
            after[0].clear();
        }
    }
}

#[test]
fn a_state_that_no_resampler_can_have_is_refused() {
    for rate_hz in [11_025, 48_000] {
        let mut whole = Resampler::new(rate_hz, 2).unwrap().unwrap();
        feed(&mut whole, &noise(1, 3_000, 1.0), &mut [Vec::new(), Vec::new()]);
        let state = whole.state();
        let restore = |frames: u64, lanes: usize, state: &[Numbers]| {
            Resampler::new(rate_hz, lanes).unwrap().unwrap().restore(frames, state)
        };
        assert!(restore(3_000, 2, &state).is_ok());
        for frames in [0, 1, 2_999, 3_001, crate::state::MAX_COUNT] {
            assert!(restore(frames, 2, &state).is_err(), "{rate_hz} Hz: {frames} frames");
        }
        assert!(restore(3_000, 1, &state).is_err());
        assert!(restore(3_000, 2, &state[..1]).is_err());
        let loud = vec![Numbers::of(&vec![9.0; state[0].len()]); 2];
        assert!(restore(3_000, 2, &loud).is_err());
    }
}

#[test]
fn a_lane_does_not_depend_on_its_neighbours() {
    for rate_hz in [8_000, 11_025, 22_050, 48_000] {
        let signals: Vec<_> = (0..8).map(|seed| noise(seed, 4_000, 1.0)).collect();
        let mut resampler = Resampler::new(rate_hz, 8).unwrap().unwrap();
        let mut output = vec![Vec::new(); 8];
        let mut at = 0;
        while at < 4_000 {
            let (staged, room) = resampler.input();
            let end = (at + room).min(4_000);
            for (lane, signal) in staged.iter_mut().zip(&signals) {
                lane.extend_from_slice(&signal[at..end]);
            }
            at = end;
            resampler.advance(&mut output).unwrap();
        }
        for (lane, signal) in output.iter().zip(&signals) {
            assert!(lane.len() > 1_000);
            assert_eq!(lane[..], resample(signal, rate_hz)[..lane.len()], "{rate_hz} Hz");
        }
    }
}

#[test]
fn every_rate_of_a_stream_has_a_resampler_of_bounded_latency() {
    for rate_hz in (8_000..=48_000).step_by(97).chain([8_000, 16_000, 44_100, 48_000]) {
        let Some(resampler) = Resampler::new(rate_hz, 1).unwrap() else {
            assert_eq!(rate_hz, 16_000);
            continue;
        };
        let latency_ms = resampler.latency_frames() as f64 * 1e3 / f64::from(rate_hz);
        assert!(latency_ms <= 30.0, "{rate_hz} Hz: {latency_ms} ms");
    }
}

#[test]
fn common_rates_use_the_fast_kind() {
    for (rate_hz, block) in [
        (8_000, 96),
        (12_000, 96),
        (24_000, 144),
        (22_050, 441),
        (32_000, 192),
        (44_100, 441),
        (48_000, 288),
    ] {
        assert_eq!(fft_block(rate_hz), Some(block), "{rate_hz} Hz");
    }
    for rate_hz in [11_025, 12_345, 47_900, 47_999] {
        assert_eq!(fft_block(rate_hz), None, "{rate_hz} Hz");
    }
}
