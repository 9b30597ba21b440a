//! What one scrape found, and its text.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use super::catalogue::{Family, Kind};

/// Text that [`Exposition::text`] makes: OpenMetrics, as Prometheus and its like read it.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One number.
#[derive(Debug)]
enum Value {
    Counter(u64),
    Gauge(f64),
    Histogram { buckets: Vec<(f64, u64)>, sum: f64 },
}

/// A metric and its numbers, one per value of its label.
#[derive(Debug)]
struct Told {
    family: &'static Family,
    numbers: Vec<(Option<String>, Value)>,
}

/// What one scrape found.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    told: Vec<Told>,
}

impl Exposition {
    /// A counter without a label.
    pub(crate) fn counter(&mut self, family: &'static Family, value: u64) {
        self.push(family, Kind::Counter, vec![(None, Value::Counter(value))]);
    }

    /// A gauge without a label.
    pub(crate) fn gauge(&mut self, family: &'static Family, value: f64) {
        self.push(family, Kind::Gauge, vec![(None, Value::Gauge(value))]);
    }

    /// A counter for each value of the label.
    pub(crate) fn counters<L: Into<String>>(
        &mut self,
        family: &'static Family,
        values: impl IntoIterator<Item = (L, u64)>,
    ) {
        let values = values.into_iter().map(|(label, value)| (Some(label.into()), Value::Counter(value)));
        self.push(family, Kind::Counter, values.collect());
    }

    /// A gauge for each value of the label.
    pub(crate) fn gauges<L: Into<String>>(
        &mut self,
        family: &'static Family,
        values: impl IntoIterator<Item = (L, f64)>,
    ) {
        let values = values.into_iter().map(|(label, value)| (Some(label.into()), Value::Gauge(value)));
        self.push(family, Kind::Gauge, values.collect());
    }

    /// A histogram: upper bounds with how many fell into each bucket, not added up, the last one without a bound; and
    /// the sum of all.
    pub(crate) fn histogram(&mut self, family: &'static Family, buckets: Vec<(f64, u64)>, sum: f64) {
        self.push(family, Kind::Histogram, vec![(None, Value::Histogram { buckets, sum })]);
    }

    fn push(&mut self, family: &'static Family, kind: Kind, numbers: Vec<(Option<String>, Value)>) {
        debug_assert_eq!(family.kind, kind, "{} is of another kind", family.name);
        debug_assert!(
            numbers.iter().all(|(label, _)| label.is_some() == family.label.is_some()),
            "{} is told as the catalogue says",
            family.name
        );
        self.told.push(Told { family, numbers });
    }

    /// All of it as OpenMetrics text.
    ///
    /// # Errors
    /// Formatting failed, which writing to a string does not.
    pub(crate) fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for Told { family, numbers } in &self.told {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (label, value) in numbers {
                match (label, family.label) {
                    (Some(label), Some((name, _))) => {
                        write(value, &mut metric.encode_family(&[(name, label.as_str())])?)?;
                    }
                    _ => write(value, &mut metric)?,
                }
            }
        }
        Ok(())
    }
}

fn write(value: &Value, metric: &mut MetricEncoder<'_>) -> Result<(), fmt::Error> {
    match value {
        Value::Counter(value) => metric.encode_counter::<NoLabelSet, u64, f64>(value, None),
        Value::Gauge(value) => metric.encode_gauge(value),
        Value::Histogram { buckets, sum } => {
            let count = buckets.iter().map(|(_, count)| count).sum();
            metric.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::catalogue, *};

    #[test]
    fn numbers_are_written_as_prometheus_reads_them() {
        let mut told = Exposition::default();
        told.counter(&catalogue::TX_PARKED, 3);
        told.gauges(&catalogue::TX_OPEN_OF_GROUP, [("a\"b", 2.0)]);
        told.histogram(&catalogue::SYNC, vec![(0.5, 1), (f64::INFINITY, 2)], 7.25);
        let text = told.text().unwrap();
        for line in [
            "# TYPE mezzo_transactions_parked counter\n",
            "\nmezzo_transactions_parked_total 3\n",
            "\nmezzo_transactions_group_open{group=\"a\\\"b\"} 2.0\n",
            "\nmezzo_log_sync_seconds_sum 7.25\n",
            "\nmezzo_log_sync_seconds_count 3\n",
            "\nmezzo_log_sync_seconds_bucket{le=\"0.5\"} 1\n",
            "\nmezzo_log_sync_seconds_bucket{le=\"+Inf\"} 3\n",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
