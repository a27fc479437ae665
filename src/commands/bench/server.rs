//! What the server says about itself: its metrics page, before and after.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;

/// Longest wait for the page: it is a few kilobytes and made in a millisecond.
const TIMEOUT: Duration = Duration::from_secs(5);

/// One reading of the metrics page: each name with the sum over its labels.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading(HashMap<String, f64>);

impl Reading {
    /// Reads `url`; `ca` are authorities in PEM, besides the system's.
    ///
    /// # Errors
    /// If there is no such page.
    pub(super) async fn take(url: &str, ca: Option<&str>) -> anyhow::Result<Self> {
        // The client takes it from there; it is there already but for the first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy();
        if let Some(ca) = ca {
            let authorities = reqwest::Certificate::from_pem_bundle(ca.as_bytes())?;
            client = client.tls_certs_merge(authorities);
        }
        let answer = client.build()?.get(url).send().await.context("cannot read the metrics")?;
        let page = answer.error_for_status().context("cannot read the metrics")?.text().await?;
        Ok(Self::parse(&page))
    }

    /// Prometheus' text format: `name{labels} value`, comments behind `#`.
    fn parse(page: &str) -> Self {
        let mut sums = HashMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, rest)) = line.split_once(['{', ' ']) else {
                continue;
            };
            // A label's value may hold anything but an unescaped quote; the last brace ends the labels.
            let value = rest.rsplit_once('}').map_or(rest, |(_, value)| value);
            if let Some(Ok(value)) = value.split_whitespace().next().map(str::parse::<f64>) {
                *sums.entry(name.to_owned()).or_insert(0.0) += value;
            }
        }
        Self(sums)
    }

    fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// Resident memory of the process, bytes.
    pub(super) fn resident_bytes(&self) -> Option<f64> {
        self.get("process_memory_usage_bytes")
    }

    /// Streams that ended before.
    pub(super) fn streams_ended(&self) -> f64 {
        self.get("undertone_streams_total").unwrap_or_default()
    }

    /// CPU seconds of the process.
    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        self.get("process_cpu_time_seconds_total")
    }

    /// Seconds of audio analysed.
    pub(super) fn audio_seconds(&self) -> Option<f64> {
        self.get("undertone_audio_seconds_total")
    }

    /// The mean of a histogram between `before` and this reading.
    pub(super) fn mean_since(&self, before: &Self, histogram: &str) -> Option<f64> {
        let since = |suffix: &str| {
            let name = format!("{histogram}_{suffix}");
            Some(self.get(&name)? - before.get(&name).unwrap_or_default())
        };
        Some(since("sum")? / since("count").filter(|count| *count > 0.0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_summed_over_labels_whatever_these_hold() {
        let page = "# HELP a_total what\n# TYPE a_total counter\n\
                    a_total{x=\"1\"} 2.5\na_total{x=\"a } b\",y=\"c d\"} 4 1700000000\n\
                    b_bytes 1e6\nb_bytes_more 1\nnonsense\n";
        let reading = Reading::parse(page);
        assert_eq!(reading.get("a_total"), Some(6.5));
        assert_eq!(reading.get("b_bytes"), Some(1e6));
        assert_eq!(reading.get("c"), None);
    }

    #[test]
    fn a_mean_is_that_of_the_time_between() {
        let before = Reading::parse("h_sum 10\nh_count 5\n");
        let after = Reading::parse("h_sum 40\nh_count 15\n");
        assert_eq!(after.mean_since(&before, "h"), Some(3.0));
        assert_eq!(after.mean_since(&after, "h"), None);
    }
}
