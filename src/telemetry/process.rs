//! The process itself: CPU time, memory, descriptors, threads, and how busy the runtime's workers are.
//!
//! Names follow OpenTelemetry's conventions for processes. On Linux they come from proc(5), elsewhere what
//! cannot be read is left out. Nothing is kept: each value is read when the metrics are.

use std::time::Instant;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use tokio::runtime::Handle;

use super::instrument::{Described, Kind};

const CPU: Described = Described {
    name: "process.cpu.time",
    kind: Kind::Counter,
    unit: "s",
    buckets: &[],
    labels: &["cpu.mode"],
    what: "CPU time of the process",
};
const MEMORY: Described = Described {
    name: "process.memory.usage",
    kind: Kind::UpDownCounter,
    unit: "By",
    buckets: &[],
    labels: &[],
    what: "Resident memory of the process",
};
const DESCRIPTORS: Described = Described {
    name: "process.unix.file_descriptor.count",
    kind: Kind::UpDownCounter,
    unit: "{file_descriptor}",
    buckets: &[],
    labels: &[],
    what: "File descriptors that the process has open",
};
const DESCRIPTOR_LIMIT: Described = Described {
    name: "undertone.process.file_descriptor.limit",
    kind: Kind::Gauge,
    unit: "{file_descriptor}",
    buckets: &[],
    labels: &[],
    what: "File descriptors that the process may have open",
};
const THREADS: Described = Described {
    name: "process.thread.count",
    kind: Kind::UpDownCounter,
    unit: "{thread}",
    buckets: &[],
    labels: &[],
    what: "Threads of the process",
};
const UPTIME: Described = Described {
    name: "process.uptime",
    kind: Kind::Gauge,
    unit: "s",
    buckets: &[],
    labels: &[],
    what: "Time since the process started",
};
const WORKERS: Described = Described {
    name: "undertone.runtime.workers",
    kind: Kind::UpDownCounter,
    unit: "{thread}",
    buckets: &[],
    labels: &[],
    what: "Worker threads of the service",
};
const BUSY: Described = Described {
    name: "undertone.runtime.busy",
    kind: Kind::Counter,
    unit: "s",
    buckets: &[],
    labels: &[],
    what: "Time that workers were busy, summed; its rate over the workers is their busy ratio",
};
const QUEUED: Described = Described {
    name: "undertone.runtime.queue",
    kind: Kind::UpDownCounter,
    unit: "{task}",
    buckets: &[],
    labels: &[],
    what: "Tasks in the queue that all workers share",
};

const TASKS: Described = Described {
    name: "undertone.runtime.tasks",
    kind: Kind::UpDownCounter,
    unit: "{task}",
    buckets: &[],
    labels: &[],
    what: "Tasks that have begun and not ended",
};

/// All that is measured of the process.
pub const ALL: &[Described] =
    &[CPU, MEMORY, DESCRIPTORS, DESCRIPTOR_LIMIT, THREADS, UPTIME, WORKERS, BUSY, QUEUED, TASKS];

/// Begins to observe the process on `meter`. Inside a runtime, its workers too.
pub fn observe(meter: &Meter) {
    observe_time(meter);
    observe_resources(meter);
    if let Ok(runtime) = Handle::try_current() {
        observe_runtime(meter, &runtime);
    }
}

fn observe_time(meter: &Meter) {
    let started = Instant::now();
    let _ = meter
        .f64_observable_counter(CPU.name)
        .with_unit(CPU.unit)
        .with_description(CPU.what)
        .with_callback(|observer| {
            if let Some(stat) = Stat::read() {
                observer.observe(stat.user_s, &[KeyValue::new("cpu.mode", "user")]);
                observer.observe(stat.system_s, &[KeyValue::new("cpu.mode", "system")]);
            } else {
                // Either all values have a mode or none has.
                let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
                observer.observe(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9, &[]);
            }
        })
        .build();
    let _ = meter
        .f64_observable_gauge(UPTIME.name)
        .with_unit(UPTIME.unit)
        .with_description(UPTIME.what)
        .with_callback(move |observer| observer.observe(started.elapsed().as_secs_f64(), &[]))
        .build();
}

fn observe_resources(meter: &Meter) {
    type Read = fn() -> Option<i64>;
    for (described, read) in [
        (&MEMORY, resident_bytes as Read),
        (&DESCRIPTORS, || {
            // Less the one that reads the folder.
            let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
            i64::try_from(open).ok().map(|open| open - 1)
        }),
        (&THREADS, || Stat::read().map(|stat| stat.threads)),
    ] {
        let _ = meter
            .i64_observable_up_down_counter(described.name)
            .with_unit(described.unit)
            .with_description(described.what)
            .with_callback(move |observer| {
                if let Some(value) = read() {
                    observer.observe(value, &[]);
                }
            })
            .build();
    }
    let _ = meter
        .u64_observable_gauge(DESCRIPTOR_LIMIT.name)
        .with_unit(DESCRIPTOR_LIMIT.unit)
        .with_description(DESCRIPTOR_LIMIT.what)
        .with_callback(|observer| {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
            if let Some(limit) = limit.current {
                observer.observe(limit, &[]);
            }
        })
        .build();
}

fn observe_runtime(meter: &Meter, runtime: &Handle) {
    let metrics = runtime.metrics();
    let _ = meter
        .i64_observable_up_down_counter(WORKERS.name)
        .with_unit(WORKERS.unit)
        .with_description(WORKERS.what)
        .with_callback(move |observer| observer.observe(metrics.num_workers() as i64, &[]))
        .build();
    let metrics = runtime.metrics();
    let _ = meter
        .i64_observable_up_down_counter(QUEUED.name)
        .with_unit(QUEUED.unit)
        .with_description(QUEUED.what)
        .with_callback(move |observer| observer.observe(metrics.global_queue_depth() as i64, &[]))
        .build();
    let metrics = runtime.metrics();
    let _ = meter
        .i64_observable_up_down_counter(TASKS.name)
        .with_unit(TASKS.unit)
        .with_description(TASKS.what)
        .with_callback(move |observer| observer.observe(metrics.num_alive_tasks() as i64, &[]))
        .build();
    let metrics = runtime.metrics();
    let _ = meter
        .f64_observable_counter(BUSY.name)
        .with_unit(BUSY.unit)
        .with_description(BUSY.what)
        .with_callback(move |observer| {
            let busy: f64 = (0..metrics.num_workers())
                .map(|worker| metrics.worker_total_busy_duration(worker).as_secs_f64())
                .sum();
            observer.observe(busy, &[]);
        })
        .build();
}

/// proc(5): the second number of `statm` is the resident set in pages.
pub(crate) fn resident_bytes() -> Option<i64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * i64::try_from(rustix::param::page_size()).ok()?)
}

/// What `/proc/self/stat` says.
#[derive(Debug, PartialEq)]
struct Stat {
    user_s: f64,
    system_s: f64,
    threads: i64,
}

impl Stat {
    fn read() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        Self::parse(&text, rustix::param::clock_ticks_per_second())
    }

    /// proc(5): fields 14 (user) and 15 (system) are in ticks, field 20 counts threads. The second field, a
    /// name in parentheses, may hold blanks and parentheses.
    fn parse(text: &str, ticks_per_second: u64) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // The first behind the name is field 3.
        let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
        let seconds = |number| Some(field(number)? as f64 / ticks_per_second as f64);
        Some(Self { user_s: seconds(14)?, system_s: seconds(15)?, threads: field(20)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let text = "77 (a ) b (c)) S 1 77 77 0 -1 4194304 9 0 0 0 250 50 0 0 20 0 12 0 99 1 2";
        let stat = Stat { user_s: 2.5, system_s: 0.5, threads: 12 };
        assert_eq!(Stat::parse(text, 100), Some(stat));
        assert_eq!(Stat::parse("77 (x) S 1", 100), None);
    }
}
