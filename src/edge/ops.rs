//! Process paths, for supervisors and scrapers: plain text, no envelope.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::Face;
use super::http::{Anyone, Failure, Query};
use crate::types::Error;

/// `GET /livez`: the process answers.
pub async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: take traffic? 503 while starting, draining or failed; `?verbose` lists the checks.
pub async fn readyz(State(face): State<Face>, mut query: Query) -> Result<Response, Failure> {
    let verbose = query.take("verbose").is_some();
    query.finish()?;
    let health = face.broker().health();
    let draining = face.draining().is_cancelled();
    let ready = health.ready && !draining;
    let mut text = String::new();
    if verbose || !ready {
        let door = if draining { Err("the broker is stopping".to_owned()) } else { Ok(()) };
        for (name, check) in health.checks.iter().chain(std::iter::once(&("serving", door))) {
            match check {
                Ok(()) => text.push_str(&format!("[+] {name} ok\n")),
                Err(why) => text.push_str(&format!("[-] {name} failed: {why}\n")),
            }
        }
    }
    text.push_str(if ready { "ok\n" } else { "not ready\n" });
    Ok((if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text).into_response())
}

/// `GET /metrics`: OpenMetrics text. No names of streams, users or subscriptions, and therefore open unless set otherwise.
pub async fn metrics(State(face): State<Face>, Anyone(who): Anyone) -> Result<Response, Failure> {
    if face.settings().metrics_for_operator_only {
        face.broker().must_be_operator(&who, "read these metrics").await?;
    }
    let mut numbers = face.broker().metrics();
    numbers.extend(face.stats().metrics());
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    numbers.push(("tidelog_tasks", "Tasks of the process: connections, calls, readers", false, tasks as f64));
    numbers.push(("tidelog_uptime_seconds", "Seconds since the start", false, face.uptime_s()));
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Numbers(numbers)));
    registry.register_collector(Box::new(Refused(face.broker().refusals())));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).map_err(|e| Error::internal(format!("The metrics could not be written: {e}")))?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response())
}

/// Name, help, is-counter, value.
#[derive(Debug)]
struct Numbers(Vec<(&'static str, &'static str, bool, f64)>);

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        for (name, help, is_counter, value) in &self.0 {
            let help = help.trim_end_matches('.');
            if *is_counter {
                let counter = ConstCounter::new(*value);
                let name = name.trim_end_matches("_total"); // the encoder adds it
                counter.encode(encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Counter)?)?;
            } else {
                let gauge = ConstGauge::new(*value);
                gauge.encode(encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Gauge)?)?;
            }
        }
        Ok(())
    }
}

/// By what there was too much of.
#[derive(Debug)]
struct Refused(Vec<(&'static str, u64)>);

impl Collector for Refused {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let help = "Refused because a user had or did too much";
        let mut encoder = encoder.encode_descriptor("tidelog_refused", help, None, prometheus_client::metrics::MetricType::Counter)?;
        for (reason, count) in &self.0 {
            ConstCounter::new(*count).encode(encoder.encode_family(&[("reason", *reason)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_openmetrics_text() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Numbers(vec![("a_total", "Things.", true, 3.0), ("b", "Level", false, 1.5)])));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("# HELP a Things\n# TYPE a counter\na_total 3.0\n"), "{text}");
        assert!(text.contains("# HELP b Level\n# TYPE b gauge\nb 1.5\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn refusals_are_told_by_reason() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Refused(vec![("requests", 3), ("streams", 0)])));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("tidelog_refused_total{reason=\"requests\"} 3\n") && text.contains("{reason=\"streams\"} 0\n"), "{text}");
    }
}
