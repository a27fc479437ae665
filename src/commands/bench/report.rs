//! What a load test found, as JSON and as text.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Percentiles of the latency, in ms. Empty tests have none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f32,
    pub(super) p90: f32,
    pub(super) p99: f32,
    pub(super) max: f32,
}

impl Latency {
    /// The nearest-rank percentiles of `latencies_ms`, in any order.
    pub(super) fn of(latencies_ms: &mut [f32]) -> Option<Self> {
        latencies_ms.sort_unstable_by(f32::total_cmp);
        let rank = |share: f64| {
            let rank = (share * latencies_ms.len() as f64).ceil() as usize;
            latencies_ms.get(rank.max(1) - 1).copied()
        };
        Some(Self { p50: rank(0.5)?, p90: rank(0.9)?, p99: rank(0.99)?, max: rank(1.0)? })
    }
}

/// Everything found. What could not be had is null.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    /// Streams asked for.
    pub(super) streams: u32,
    /// Connections that they shared.
    pub(super) connections: u32,
    /// Length of a chunk.
    pub(super) chunk_ms: u32,
    /// Time between two estimates of a stream.
    pub(super) interval_ms: u64,
    /// How the audio was coded.
    pub(super) encoding: String,
    /// Its rate.
    pub(super) rate_hz: u32,
    /// Measured time, after the ramp.
    pub(super) seconds: f64,
    /// Audio sent in it, over all streams.
    pub(super) audio_seconds: f64,
    /// Share of voice in the audio, as the server heard it.
    pub(super) speech_ratio: Option<f64>,
    /// From the sending of a chunk to the arrival of the estimate that it completes.
    pub(super) latency_ms: Option<Latency>,
    /// Estimates that came in the measured time.
    pub(super) estimates: u64,
    /// Chunks sent in the measured time.
    pub(super) chunks: u64,
    /// Chunks that left later than planned by more than a chunk.
    pub(super) missed_pace: u64,
    /// Streams that ended badly.
    pub(super) errors: u64,
    /// Why, and how many each.
    pub(super) error_reasons: BTreeMap<String, u64>,
    /// From asking for a stream to being refused it, of those that did not begin.
    pub(super) refused_ms: Option<Latency>,
    /// CPU time of the server's process per second of audio.
    pub(super) server_cpu_ms_per_audio_second: Option<f64>,
    /// What its resident memory grew by, from before the first stream to the end of the measured time,
    /// over the streams.
    pub(super) server_bytes_per_stream: Option<f64>,
    /// Mean rows of an engine run.
    pub(super) server_batch_rows: Option<f64>,
    /// Mean wait for an engine run.
    pub(super) server_engine_wait_ms: Option<f64>,
    /// Mean time of an engine run.
    pub(super) server_engine_run_ms: Option<f64>,
    /// CPU time of the generator per second of audio.
    pub(super) generator_cpu_ms_per_audio_second: Option<f64>,
    /// Whether it was broken off.
    pub(super) interrupted: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { streams, connections, chunk_ms, interval_ms, seconds, .. } = self;
        let Self { encoding, rate_hz, chunks, missed_pace, errors, .. } = self;
        writeln!(
            f,
            "{streams} streams on {connections} connections, {encoding} at {rate_hz} Hz, chunks of \
             {chunk_ms} ms, estimates every {interval_ms} ms"
        )?;
        let broken_off = if self.interrupted { ", broken off" } else { "" };
        writeln!(f, "measured   {seconds:.1} s{broken_off}, {:.0} s of audio", self.audio_seconds)?;
        if let Some(ratio) = self.speech_ratio {
            writeln!(f, "speech     {:.0} % of the audio, as the server heard it", 100.0 * ratio)?;
        }
        match self.latency_ms {
            Some(Latency { p50, p90, p99, max }) => writeln!(
                f,
                "latency    p50 {p50:.1} ms, p90 {p90:.1} ms, p99 {p99:.1} ms, max {max:.1} ms \
                 over {} estimates",
                self.estimates
            )?,
            None => writeln!(f, "latency    no estimate came")?,
        }
        writeln!(f, "pace       {missed_pace} of {chunks} chunks left late by more than a chunk")?;
        if let Some(cpu) = self.server_cpu_ms_per_audio_second {
            writeln!(f, "server     {cpu:.3} ms CPU per second of audio")?;
        }
        if let Some(bytes) = self.server_bytes_per_stream {
            writeln!(f, "           {:.1} KiB resident memory per stream", bytes / 1024.0)?;
        }
        if let (Some(rows), Some(wait), Some(run)) =
            (self.server_batch_rows, self.server_engine_wait_ms, self.server_engine_run_ms)
        {
            writeln!(
                f,
                "           engine: {rows:.1} rows a run, {wait:.2} ms wait, {run:.2} ms run (means)"
            )?;
        }
        if let Some(cpu) = self.generator_cpu_ms_per_audio_second {
            writeln!(f, "generator  {cpu:.3} ms CPU per second of audio")?;
        }
        write!(f, "errors     {errors}")?;
        for (reason, count) in &self.error_reasons {
            write!(f, "\n           {count} x {reason}")?;
        }
        if let Some(Latency { p50, p90, p99, max }) = self.refused_ms {
            write!(
                f,
                "\nrefused    p50 {p50:.1} ms, p90 {p90:.1} ms, p99 {p99:.1} ms, max {max:.1} ms"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let mut values: Vec<f32> = (1..=200).rev().map(|n| n as f32).collect();
        let latency = Latency::of(&mut values).unwrap();
        assert_eq!(latency, Latency { p50: 100.0, p90: 180.0, p99: 198.0, max: 200.0 });
        assert_eq!(Latency::of(&mut [7.0]).unwrap().p99, 7.0);
        assert_eq!(Latency::of(&mut []), None);
    }
}
