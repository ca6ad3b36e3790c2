//! `keyward key reveal`: the value of a key that keeps it.

use serde_json::json;

use crate::cli::console::{Console, Output};
use crate::cli::exit::{Exit, Failure};
use crate::cli::place::Place;

/// Prints a value, on stdout alone. That it was looked up is in the audit by then.
pub(super) async fn run(
    id: &str,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let value = place.look_up_value(id).await?;
    match output {
        Output::Json => console.json(&json!({ "id": id, "value": value.as_str() }))?,
        Output::Table => console.line(value.as_str())?,
    }
    console.flush()?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::Bench;

    #[test]
    fn what_is_kept_is_shown_and_that_is_in_the_audit() {
        let bench = Bench::new();
        let value = bench.key("create --name CI --id k1 --recoverable", Output::Table).out;
        bench.create("--name CI --id k2");
        for output in [Output::Table, Output::Json] {
            let ran = bench.key("reveal k1", output);
            assert!(ran.code == 0 && ran.out.contains(value.trim()) && !ran.err.contains(value.trim()), "{ran:?}");
        }
        let commits = bench.session.store.commits();
        assert_eq!(commits.iter().filter(|commit| commit.action == "key.look_up").count(), 2);
        let rotated = bench.key("rotate k1", Output::Table).out;
        assert_eq!(bench.key("reveal k1", Output::Table).out, rotated, "the newest");
        let ran = bench.key("reveal k2", Output::Table);
        assert!(ran.code == 5 && ran.err.contains("not kept") && ran.out.is_empty(), "{ran:?}");
        assert_eq!(bench.key("reveal k3", Output::Table).code, 4);
    }
}
