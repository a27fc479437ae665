//! A sound at `t` in the input is at `t` in what the client is told, at every rate.

use undertone::audio::{AudioFormat, Encoding, Intake, Lane};
use undertone::units::{ChannelCount, HOP_SAMPLES, SampleRate};
use undertone::wire::v1;

use crate::signal::{encode, silence, speech};
use crate::support::{Format, TINY, chunks, duration, run_well, seconds};

const RATES: [u32; 8] = [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];
const HOP_S: f64 = HOP_SAMPLES as f64 / 16_000.0;

#[test]
fn a_click_is_in_the_hop_of_its_time_at_every_rate() {
    for rate in RATES {
        for at in [0.0312, 0.777, 1.5] {
            let mut samples = vec![0.0_f32; 2 * rate as usize];
            samples[(at * f64::from(rate)).round() as usize] = 1.0;
            let format = AudioFormat {
                encoding: Encoding::Float32,
                rate: SampleRate::new(rate).unwrap(),
                channels: ChannelCount::MONO,
            };
            let mut intake = Intake::new(format, &[Lane::channel(0)]).unwrap();
            let mut heard = Vec::new();
            let mut take = |intake: &mut Intake| {
                while let Some(hop) = intake.next_hop() {
                    heard.extend_from_slice(hop.lane(0).unwrap());
                }
            };
            for chunk in encode(&samples, Encoding::Float32).chunks(997) {
                intake.push(chunk).unwrap();
                take(&mut intake);
            }
            intake.finish().unwrap();
            take(&mut intake);
            let loudest =
                (0..heard.len()).max_by(|a, b| heard[*a].abs().total_cmp(&heard[*b].abs()));
            let found = loudest.unwrap() as f64 / 16_000.0;
            // Far better than a hop: two samples.
            assert!((found - at).abs() <= 2.0 / 16_000.0, "{rate} Hz: {found} instead of {at}");
        }
    }
}

#[tokio::test]
async fn a_burst_is_in_the_estimate_that_covers_its_time_at_every_rate() {
    // Speech all along, so that there are estimates; one loud burst in the middle of an interval.
    const BURST_S: f64 = 1.25;
    for rate in RATES {
        let mut samples = speech(3, 1.8, rate);
        for sample in &mut samples {
            *sample *= 0.05;
        }
        let first = (BURST_S * f64::from(rate)) as usize;
        for (n, sample) in samples[first..first + rate as usize / 100].iter_mut().enumerate() {
            *sample = if n / 4 % 2 == 0 { 0.9 } else { -0.9 };
        }
        let format = Format { encoding: Encoding::Float32, rate_hz: rate, channels: 1 };
        let config = v1::StreamConfig { estimate_interval: duration(0.1), ..format.config() };
        let answer =
            run_well(&TINY, config, chunks(&encode(&samples, format.encoding), 1_000)).await;
        let estimates = answer.estimates();
        let levels: Vec<(f64, f32)> =
            estimates.iter().map(|e| (seconds(e.end), e.level_dbfs)).collect();
        let loudest =
            (0..levels.len()).max_by(|a, b| levels[*a].1.total_cmp(&levels[*b].1)).unwrap();
        let (end, level) = levels[loudest];
        let before = levels[loudest - 1];
        assert!(before.0 <= BURST_S + HOP_S && BURST_S < end, "{rate} Hz: {levels:?}");
        assert!(level - before.1 > 6.0, "{rate} Hz: {levels:?}");
    }
}

#[tokio::test]
async fn an_utterance_begins_at_the_same_time_at_every_rate() {
    let mut starts = Vec::new();
    for rate in RATES {
        let mut samples = silence(1, 1.0, rate);
        samples.extend(speech(3, 1.8, rate).split_off((0.3 * f64::from(rate)) as usize));
        let format = Format { encoding: Encoding::Float32, rate_hz: rate, channels: 1 };
        let data = encode(&samples, format.encoding);
        let answer = run_well(&TINY, format.config(), chunks(&data, 4_096)).await;
        let [utterance] = answer.utterances()[..] else { panic!("{rate}: {answer:?}") };
        starts.push((rate, seconds(utterance.start)));
    }
    for (rate, start) in &starts {
        // The onset is a matter of opinion by a few hops; that it does not move is not.
        assert!((start - 1.0).abs() < 0.1, "{rate} Hz: {start}");
        let apart = (start - starts[2].1).abs();
        assert!(apart <= 2.0 * HOP_S + 1e-9, "{rate} Hz: {starts:?}");
    }
}
