//! Lines for people, JSON with trace and span, and both to the collector.
//!
//! What is logged is one setting for all of them; spans do not depend on it. A line of JSON is one event:
//! `timestamp`, `level`, `target`, `fields` with the message, `span` with the call it belongs to, and
//! `trace_id` and `span_id` where there is one.

use std::fmt;
use std::io::IsTerminal as _;

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::SdkTracer;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt as _, FilterFn, LevelFilter, ParseError, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, Filter, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt as lines};

use crate::config::{LogFormat, Settings};
use crate::telemetry::trace;

/// Installs the process's subscriber. A second one in one process, as tests have it, changes nothing.
pub(super) fn install(
    settings: &Settings,
    tracer: SdkTracer,
    loggers: Option<&SdkLoggerProvider>,
) -> Result<(), ParseError> {
    let spans = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        // Where in the source and on which thread a span began tells nobody anything, and time that it was
        // idle is a stream's nature.
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        // A stream's session is entered thirty times a second and logs nothing: whoever does log looks its trace up.
        .with_context_activation(false)
        .with_filter(filter_fn(is_our_span).with_max_level_hint(LevelFilter::INFO));
    let bridge = loggers.map(OpenTelemetryTracingBridge::new);
    let bridge = bridge.map(|bridge| {
        // What the exporter's own connection logs would be exported, and so on without end.
        filter(settings).map(|logged| {
            let ours = by_target(|target| target.starts_with("undertone"));
            InItsTrace(bridge).with_filter(logged.and(ours))
        })
    });
    let installed = tracing_subscriber::registry()
        .with(spans)
        .with(lines_of(settings.log_format).with_filter(filter(settings)?))
        .with(bridge.transpose()?)
        .try_init();
    // A second server in one process keeps the first one's logs.
    drop(installed);
    Ok(())
}

fn is_our_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span()
        && *metadata.level() <= tracing::Level::INFO
        && metadata.target().starts_with("undertone")
}

/// What else is said only when the setting names it: this library tells three lines of every request, and what clients
/// have sent.
const CHATTY: &str = "rmcp";

/// What is logged: what the setting says, but not what the exporters complain about every few seconds while
/// the collector is away (those complaints are made here, now and then, see `otlp`), and not what a decoder
/// thinks of a client's bytes: the client is told, and could fill the log.
fn filter<S: Subscriber>(settings: &Settings) -> Result<impl Filter<S> + use<S>, ParseError> {
    let mut said: EnvFilter = settings.log.parse()?;
    if !settings.log.contains(CHATTY) {
        said = said.add_directive(format!("{CHATTY}=off").parse()?);
    }
    let not_theirs = by_target(|target| {
        !target.starts_with("opentelemetry") && !target.starts_with("symphonia")
    });
    Ok(said.and(not_theirs))
}

/// By where it is logged. The hint keeps another filter's: without one nothing would be known to be off.
fn by_target(wanted: fn(&str) -> bool) -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    FilterFn::new(move |metadata: &Metadata<'_>| wanted(metadata.target()))
        .with_max_level_hint(LevelFilter::TRACE)
}

fn lines_of<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    // Standard error may be closed by whoever reads it: nothing is said about it there.
    let lines = lines::layer().with_writer(std::io::stderr).log_internal_errors(false);
    match format {
        // Files and pipes get plain text; at a terminal tracing-subscriber itself heeds NO_COLOR.
        LogFormat::Text if std::io::stderr().is_terminal() => lines.boxed(),
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().with_span_list(false).map_event_format(Traced).boxed(),
    }
}

/// A layer for which the trace of what is logged is the current one, as OpenTelemetry's bridge for logs expects.
struct InItsTrace<L>(L);

impl<S, L> Layer<S> for InItsTrace<L>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    L: Layer<S>,
{
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let span = context.event_span(event).and_then(|span| trace::context_of(&span.id()));
        let _current = span.map(opentelemetry::Context::attach);
        self.0.on_event(event, context);
    }
}

/// JSON lines of another format, with the trace and the span that they belong to.
struct Traced<F>(F);

impl<S, N, F> FormatEvent<S, N> for Traced<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let span = context.lookup_current().and_then(|span| trace::context_of(&span.id()));
        let Some((trace_id, span_id)) = span.as_ref().and_then(trace::ids) else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let rest = line.strip_prefix('{').unwrap_or(&line);
        write!(writer, r#"{{"trace_id":"{trace_id}","span_id":"{span_id}",{rest}"#)
    }
}
