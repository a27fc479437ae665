//! Which traces are recorded.
//!
//! A caller that says so decides. Without one, a span that is linked to others follows them: what became of an
//! escalation is recorded if its session was. All else is recorded by a ratio of trace ids, so that services
//! with the same ratio record the same traces.

use opentelemetry::trace::{Link, SpanKind, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, ShouldSample};

/// Of roots whose caller does not say, the share `ratio` is recorded.
pub(super) fn of(ratio: f64) -> Sampler {
    Sampler::ParentBased(Box::new(Roots { by_ratio: Sampler::TraceIdRatioBased(ratio) }))
}

/// What is done with spans that have no parent.
#[derive(Debug, Clone)]
struct Roots {
    by_ratio: Sampler,
}

impl ShouldSample for Roots {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let by_link = |sampler: Sampler| {
            sampler.should_sample(parent, trace_id, name, kind, attributes, links)
        };
        if links.is_empty() {
            return self.by_ratio.should_sample(parent, trace_id, name, kind, attributes, links);
        }
        let any = links.iter().any(|link| link.span_context.is_sampled());
        by_link(if any { Sampler::AlwaysOn } else { Sampler::AlwaysOff })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceState};
    use opentelemetry_sdk::trace::SamplingDecision;

    fn context(flags: TraceFlags) -> SpanContext {
        let trace = TraceId::from_bytes([1; 16]);
        SpanContext::new(trace, SpanId::from_bytes([2; 8]), flags, true, TraceState::default())
    }

    fn samples(ratio: f64, parent: Option<TraceFlags>, link: Option<TraceFlags>) -> bool {
        let parent = parent.map(|flags| Context::new().with_remote_span_context(context(flags)));
        let links: Vec<Link> =
            link.into_iter().map(|flags| Link::with_context(context(flags))).collect();
        let kind = SpanKind::Internal;
        let trace = TraceId::from_bytes([7; 16]);
        let result = of(ratio).should_sample(parent.as_ref(), trace, "x", &kind, &[], &links);
        result.decision == SamplingDecision::RecordAndSample
    }

    #[test]
    fn a_caller_decides_then_links_then_the_ratio() {
        let (yes, no) = (Some(TraceFlags::SAMPLED), Some(TraceFlags::NOT_SAMPLED));
        assert!(samples(0.0, yes, None));
        assert!(!samples(1.0, no, None));
        assert!(samples(0.0, None, yes));
        assert!(!samples(1.0, None, no));
        assert!(samples(1.0, None, None));
        assert!(!samples(0.0, None, None));
    }
}
