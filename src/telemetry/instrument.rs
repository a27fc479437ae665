//! An instrument and its description, declared once.
//!
//! `instruments!` makes a struct of OpenTelemetry's instruments and, beside it, the list of what they
//! measure, which the documentation is checked against.

use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, UpDownCounter};

/// What an instrument measures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Described {
    /// OpenTelemetry's name.
    pub name: &'static str,
    /// Counter, up-down counter, gauge or histogram.
    pub kind: Kind,
    /// UCUM's code for the unit; words in braces name what is counted.
    pub unit: &'static str,
    /// Upper bounds of a histogram's buckets.
    pub buckets: &'static [f64],
    /// Names of the labels.
    pub labels: &'static [&'static str],
    /// In words.
    pub what: &'static str,
}

/// How an instrument's values behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Grows and shrinks, and sums over replicas.
    UpDownCounter,
    /// A value at a moment.
    Gauge,
    /// How values are distributed.
    Histogram,
}

impl Kind {
    /// As in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::UpDownCounter => "up-down counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Described {
    /// The name on the metrics page, without the suffixes of a histogram's parts: dots become underscores,
    /// units and `total` are appended.
    pub fn on_page(&self) -> String {
        let mut name = self.name.replace('.', "_");
        name.push_str(match self.unit {
            "s" => "_seconds",
            "By" => "_bytes",
            "1" => "_ratio",
            _ => "",
        });
        if self.kind == Kind::Counter {
            name.push_str("_total");
        }
        name
    }
}

/// An instrument that can be made from its description.
pub(super) trait Instrument {
    const KIND: Kind;

    fn build(meter: &Meter, described: &Described) -> Self;
}

/// Implements [`Instrument`] for one of OpenTelemetry's types.
macro_rules! instrument {
    ($type:ty, $kind:ident, $make:ident $(, $boundaries:ident)?) => {
        impl Instrument for $type {
            const KIND: Kind = Kind::$kind;

            fn build(meter: &Meter, described: &Described) -> Self {
                meter
                    .$make(described.name)
                    .with_unit(described.unit)
                    .with_description(described.what)
                    $(.$boundaries(described.buckets.to_vec()))?
                    .build()
            }
        }
    };
}

instrument!(Counter<u64>, Counter, u64_counter);
instrument!(Counter<f64>, Counter, f64_counter);
instrument!(UpDownCounter<i64>, UpDownCounter, i64_up_down_counter);
instrument!(Gauge<u64>, Gauge, u64_gauge);
instrument!(Gauge<f64>, Gauge, f64_gauge);
instrument!(Histogram<u64>, Histogram, u64_histogram, with_boundaries);
instrument!(Histogram<f64>, Histogram, f64_histogram, with_boundaries);

/// Declares instruments: name, unit, buckets, labels and what they measure.
macro_rules! instruments {
    (
        $(#[doc = $doc:literal])+
        pub struct $struct:ident {
            $( $field:ident: $type:ty = $name:literal, $unit:literal, $buckets:tt,
               [$($label:literal),*], $what:literal; )+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug)]
        pub struct $struct {
            $( $field: $type, )+
        }

        impl $struct {
            /// What each measures.
            pub const ALL: &'static [$crate::telemetry::instrument::Described] = &[
                $( instruments!(@described $type, $name, $unit, $buckets, [$($label),*], $what), )+
            ];

            fn new(meter: &opentelemetry::metrics::Meter) -> Self {
                use $crate::telemetry::instrument::Instrument as _;
                Self {
                    $( $field: <$type>::build(
                        meter,
                        &instruments!(@described $type, $name, $unit, $buckets, [$($label),*], $what),
                    ), )+
                }
            }
        }
    };
    (@described $type:ty, $name:literal, $unit:literal, $buckets:tt, [$($label:literal),*],
     $what:literal) => {
        $crate::telemetry::instrument::Described {
            name: $name,
            kind: <$type as $crate::telemetry::instrument::Instrument>::KIND,
            unit: $unit,
            buckets: &$buckets,
            labels: &[$($label),*],
            what: $what,
        }
    };
}

pub(super) use instruments;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_page_are_prometheus_own() {
        let described =
            |name, kind, unit| Described { name, kind, unit, buckets: &[], labels: &[], what: "" };
        for (name, kind, unit, page) in [
            ("a.b", Kind::Counter, "{stream}", "a_b_total"),
            ("a.b", Kind::Counter, "s", "a_b_seconds_total"),
            ("a.b", Kind::Histogram, "By", "a_b_bytes"),
            ("a.up", Kind::Gauge, "1", "a_up_ratio"),
            ("a", Kind::UpDownCounter, "{x}", "a"),
        ] {
            assert_eq!(described(name, kind, unit).on_page(), page);
        }
    }

    #[test]
    fn every_name_is_declared_once_and_says_what_it_is() {
        let mut names = std::collections::BTreeSet::new();
        for described in crate::telemetry::described() {
            assert!(names.insert(described.name), "{} twice", described.name);
            assert!(!described.what.is_empty() && !described.unit.is_empty(), "{}", described.name);
            assert_eq!(described.kind == Kind::Histogram, !described.buckets.is_empty());
        }
    }
}
