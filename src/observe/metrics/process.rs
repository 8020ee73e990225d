//! Figures of the process itself, under the names that every Prometheus client gives them.
//!
//! Read from `/proc` at each scrape, so there are none on other systems. The `prometheus` crate's own collector cuts
//! processor time to whole seconds, which makes a rate over a scrape interval useless.

use std::collections::HashMap;
use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, MetricType};

/// Ticks in a second, as Linux tells processor times to programs on every architecture that Rust supports.
const TICKS: f64 = 100.0;

const FIGURES: [(&str, MetricType, &str); 7] = [
    ("process_cpu_seconds_total", MetricType::COUNTER, "Total user and system CPU time spent in seconds."),
    ("process_open_fds", MetricType::GAUGE, "Number of open file descriptors."),
    ("process_max_fds", MetricType::GAUGE, "Maximum number of open file descriptors."),
    ("process_virtual_memory_bytes", MetricType::GAUGE, "Virtual memory size in bytes."),
    ("process_resident_memory_bytes", MetricType::GAUGE, "Resident memory size in bytes."),
    ("process_start_time_seconds", MetricType::GAUGE, "Start time of the process since the epoch in seconds."),
    ("process_threads", MetricType::GAUGE, "Number of threads in the process."),
];

pub(super) struct ProcessCollector {
    descriptions: Vec<Desc>,
}

impl ProcessCollector {
    /// # Errors
    /// A name that Prometheus does not allow.
    pub(super) fn new() -> Result<ProcessCollector, prometheus::Error> {
        let descriptions = FIGURES
            .iter()
            .map(|(name, _, help)| Desc::new((*name).to_owned(), (*help).to_owned(), Vec::new(), HashMap::new()));
        Ok(ProcessCollector { descriptions: descriptions.collect::<Result<_, _>>()? })
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        let values = [
            cpu_seconds(&stat),
            fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64),
            max_fds(&limits),
            kilobytes(&status, "VmSize:"),
            kilobytes(&status, "VmRSS:"),
            start_seconds(&stat, &boot),
            line_value(&status, "Threads:"),
        ];
        let families = FIGURES.iter().zip(values).filter_map(|((name, kind, help), value)| {
            let value = value?;
            let mut metric = proto::Metric::default();
            if *kind == MetricType::COUNTER {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            } else {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            let mut family = proto::MetricFamily::default();
            family.set_name((*name).to_owned());
            family.set_help((*help).to_owned());
            family.set_field_type(*kind);
            family.set_metric(vec![metric]);
            Some(family)
        });
        families.collect()
    }
}

/// Field `number` of `/proc/self/stat`, counted from one as in proc(5). The second, the program's name, may hold
/// blanks and parentheses, so counting begins behind its last parenthesis.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS)
}

fn start_seconds(stat: &str, boot: &str) -> Option<f64> {
    Some(line_value(boot, "btime")? + stat_field(stat, 22)? / TICKS)
}

fn line_value(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn kilobytes(status: &str, name: &str) -> Option<f64> {
    line_value(status, name).map(|value| value * 1024.0)
}

fn max_fds(limits: &str) -> Option<f64> {
    line_value(limits, "Max open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_past_an_odd_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 150 0 0 20 0 3 0 1000 8192 2 18446744073709551615";
        assert_eq!(cpu_seconds(stat), Some(4.0));
        assert_eq!(start_seconds(stat, "cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_010.0));
        assert_eq!(cpu_seconds("garbage"), None);
    }

    #[test]
    fn limits_and_memory() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 4096                 files\n";
        assert_eq!(max_fds(limits), Some(1024.0));
        assert_eq!(max_fds("Max open files            unlimited            unlimited            files\n"), None);
        assert_eq!(kilobytes("VmSize:\t  2048 kB\n", "VmSize:"), Some(2_097_152.0));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_all_figures() {
        let families = ProcessCollector::new().unwrap().collect();
        assert_eq!(families.len(), FIGURES.len());
        assert!(
            families
                .iter()
                .filter(|f| f.name() == "process_threads")
                .all(|f| { f.get_metric().iter().all(|metric| metric.get_gauge().get_value() >= 1.0) })
        );
    }
}
