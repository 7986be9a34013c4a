//! The text format that Prometheus had before OpenMetrics, for what reads no other. In: OpenMetrics text as the registry writes
//! it, of which each family says `HELP`, then `TYPE`. Out: the same samples.

use std::fmt::Write;

/// The same in version 0.0.4: a counter's family is called as its samples are, and neither units nor an end are said.
pub(super) fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            help = said.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|said| said.split_once(' ')) {
            let end = if kind == "counter" { "_total" } else { "" };
            // Writing to a String cannot fail.
            if let Some((_, help)) = help.take() {
                let _ = writeln!(text, "# HELP {name}{end} {help}");
            }
            let _ = writeln!(text, "# TYPE {name}{end} {kind}");
        } else if !line.starts_with('#') {
            text.extend([line, "\n"]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_called_as_their_samples_and_the_rest_stays() {
        let open_metrics = "# HELP a_seconds Time # of.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
             a_seconds_total{x=\"# y\"} 1.5\n# HELP b Now.\n# TYPE b gauge\nb 2\n# TYPE c histogram\n\
             c_bucket{le=\"+Inf\"} 1\nc_sum 0.5\nc_count 1\n# EOF\n";
        let expected = "# HELP a_seconds_total Time # of.\n# TYPE a_seconds_total counter\na_seconds_total{x=\"# y\"} 1.5\n\
             # HELP b Now.\n# TYPE b gauge\nb 2\n# TYPE c histogram\nc_bucket{le=\"+Inf\"} 1\nc_sum 0.5\nc_count 1\n";
        assert_eq!(classic(open_metrics), expected);
    }
}
