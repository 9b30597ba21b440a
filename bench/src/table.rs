//! Many result lines become one Markdown table: medians over the repeats of each kind of run, each rate also as a
//! share of the ceiling's in the same file.

use std::fmt::Write as _;

use crate::report::Report;

/// The label that `run.sh` gives to runs against the ceiling server.
pub const CEILING: &str = "ceiling";

/// The table over all `reports`, in the order in which kinds of run first appear.
#[must_use]
pub fn markdown(reports: &[Report]) -> String {
    let mut out = String::from(
        "| size | mode | server | rate /s | of ceiling | p50 us | p99 us | p99.9 us | broker CPU us each | errors | runs |\n\
         |--:|---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    let mut kinds: Vec<&Report> = Vec::new();
    for report in reports {
        if !kinds.iter().any(|kind| same_kind(kind, report)) {
            kinds.push(report);
        }
    }
    for kind in kinds {
        let runs: Vec<&Report> = reports.iter().filter(|report| same_kind(kind, report)).collect();
        let rate = median(&runs, |run| Some(run.rate));
        let ceiling: Vec<&Report> = reports
            .iter()
            .filter(|run| run.label == CEILING && run.size == kind.size && run.mode == kind.mode)
            .collect();
        let share = match (rate, median(&ceiling, |run| Some(run.rate))) {
            (Some(rate), Some(ceiling)) if ceiling > 0.0 && kind.label != CEILING => {
                format!("{:.2}", rate / ceiling)
            }
            _ => "–".to_owned(),
        };
        let us = |field: fn(&Report) -> f64| shown(median(&runs, |run| Some(field(run))), 0);
        let cpu_us = median(&runs, |run| {
            run.broker_cpu_seconds.filter(|_| run.completed > 0).map(|cpu| cpu * 1e6 / run.completed as f64)
        });
        let errors: u64 = runs.iter().map(|run| run.errors + run.check_backs).sum();
        // writing into a String cannot fail
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {share} | {} | {} | {} | {} | {errors} | {} |",
            kind.size,
            kind.mode,
            kind.label,
            shown(rate, 0),
            us(|run| run.p50_us),
            us(|run| run.p99_us),
            us(|run| run.p999_us),
            shown(cpu_us, 2),
            runs.len(),
        );
    }
    out
}

fn same_kind(a: &Report, b: &Report) -> bool {
    (a.size, &a.mode, &a.label) == (b.size, &b.mode, &b.label)
}

/// The middle value (the lower of two) of what `field` gives; `None` when it gives nothing.
fn median(runs: &[&Report], field: impl Fn(&Report) -> Option<f64>) -> Option<f64> {
    let mut values: Vec<f64> = runs.iter().filter_map(|run| field(run)).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Tally;
    use crate::options::{LoadOptions, Mode};
    use crate::process::Usage;

    fn report(label: &str, rate: f64) -> Report {
        let options = LoadOptions {
            address: "127.0.0.1:1".parse().unwrap(),
            connections: 4,
            in_flight: 32,
            size: 128,
            mode: Mode::Plain,
            duration: 1,
            warmup: 0,
            rate: None,
            topic: String::new(),
            queues: 4,
            broker_pid: None,
            label: label.to_owned(),
        };
        Report { rate, ..Report::new(&options, &Tally::default(), None, Usage::default()) }
    }

    #[test]
    fn each_kind_of_run_becomes_a_row_with_its_share_of_the_ceiling() {
        let rates = [("ceiling", 100.0), ("memory", 30.0), ("memory", 50.0), ("memory", 1.0)];
        let reports: Vec<Report> = rates.iter().map(|(label, rate)| report(label, *rate)).collect();
        let table = markdown(&reports);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(rows.len(), 2);
        assert!(rows[0].starts_with("| 128 | plain | ceiling | 100 | – |"), "{}", rows[0]);
        assert!(rows[1].starts_with("| 128 | plain | memory | 30 | 0.30 |"), "{}", rows[1]);
        assert!(rows[1].ends_with("| 3 |"), "{}", rows[1]);
    }
}
