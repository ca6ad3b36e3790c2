//! What the program exposes, held against the contract that documents, alerts and dashboard rely on.

use serde_json::Value;

/// Samples of an exposition that a contract (`docs/metrics.json`) does not promise.
pub(crate) fn unpromised(exposition: &str, contract: &Value) -> Vec<String> {
    exposition
        .lines()
        .filter(|line| line.starts_with("keyward_"))
        .filter_map(|line| line.rsplit_once(' '))
        .flat_map(|(series, _)| strays(series, contract))
        .collect()
}

fn strays(series: &str, contract: &Value) -> Vec<String> {
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
    let Some(metric) = contract.get(name).or_else(|| family.and_then(|family| contract.get(family))) else {
        return vec![format!("{name} is not in it")];
    };
    let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
    let stray = |(label, value): &(&str, &str)| {
        let values = if *label == "le" { &metric["buckets"] } else { &metric["labels"][*label] };
        let known = |known: &Value| known == value.trim_matches('"') || known == "any";
        !values.as_array().is_some_and(|values| values.iter().any(known))
    };
    labels.filter(stray).map(|(label, value)| format!("{name} is not promised with {label}={value}")).collect()
}

#[test]
fn strays_are_found() {
    let contract = serde_json::json!({
        "keyward_a_total": { "labels": { "kind": ["x", "y"] } },
        "keyward_b_seconds": { "buckets": ["0.1", "+Inf"], "labels": { "version": ["any"] } },
    });
    let good = "# HELP keyward_c c\nkeyward_a_total{kind=\"x\"} 1\nkeyward_b_seconds_bucket{version=\"7\",le=\"0.1\"} 0\nkeyward_b_seconds_sum 0\nprocess_x 1\n";
    assert_eq!(unpromised(good, &contract), [""; 0]);
    for bad in [
        "keyward_c 1",
        "keyward_a_total{kind=\"z\"} 1",
        "keyward_a_total{other=\"x\"} 1",
        "keyward_b_seconds_bucket{le=\"9\"} 1",
    ] {
        assert_eq!(unpromised(bad, &contract).len(), 1, "{bad}");
    }
}
