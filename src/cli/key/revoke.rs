//! `keyward key revoke`: for good, and if wanted until it holds everywhere.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::change::{changed, named};
use crate::auth::grant::State;
use crate::cli::console::{Console, Output, printable};
use crate::cli::exit::{Exit, Failure};
use crate::cli::place::Place;
use crate::manage::Stored;
use crate::manage::wait::Waited;
use crate::store::record::KeyBody;

const EXAMPLES: &str = "\
Examples:
  keyward key revoke ID --reason leaked
  keyward key revoke ID --wait --timeout 5s    ends with 1 and names who has not heard of it

What is waited for are all processes that follow the store; `keyward node list` shows them.";

/// What `keyward key revoke` takes.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct RevokeArgs {
    /// The key
    id: String,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Wait until nobody lets it pass any more
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "all", value_name = "WHO")]
    wait: Option<Who>,
    /// How long to wait
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "2s", requires = "wait")]
    timeout: Duration,
}

/// Whom to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Who {
    /// Every process that follows the store
    All,
}

/// Revokes a key, and waits if that is wanted.
pub(super) async fn run(
    args: RevokeArgs,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    #[derive(Serialize)]
    struct WithWait<'k> {
        #[serde(flatten)]
        key: &'k Stored<KeyBody>,
        wait: &'k Waited,
    }
    let RevokeArgs { id, reason, wait, timeout } = args;
    let Some(Who::All) = wait else {
        let change = place.set_key_state(&id, State::Revoked, reason.as_deref()).await?;
        changed(&change, console);
        return named(&change, output, console);
    };
    let (change, waited) = place.revoke_everywhere(&id, reason.as_deref(), timeout).await?;
    changed(&change, console);
    match output {
        Output::Table => {}
        Output::Json => console.json(&WithWait { key: change.key(), wait: &waited })?,
    }
    let is_everywhere = waited.is_everywhere();
    let Waited { applied, live, ms, laggards } = waited;
    console.note(format_args!("{applied} of {live} processes have applied it after {ms} ms"));
    if live == 0 {
        console.note("not known to hold anywhere: no process has said that it follows the store");
    }
    if laggards.is_empty() && !is_everywhere && live > 0 {
        console.note("which ones have not, only those hear who may see the keys of the whole domain");
    }
    for node in laggards {
        let (id, revision) = (printable(&node.id), node.revision);
        let seen = Duration::from_millis(node.seen_ms_ago);
        console.note(format_args!("not yet: {id}, at revision {revision}, heard of {seen:.1?} ago"));
    }
    Ok(if is_everywhere { Exit::Ok } else { Exit::Failed })
}

#[cfg(test)]
mod tests {
    use crate::cli::console::Output;
    use crate::cli::testing::Bench;
    use crate::store::ledger::nodes::Node;

    fn node(id: &str, revision: u64, seen_ms_ago: u64) -> Node {
        Node { id: id.into(), revision, version: "1".into(), seen_ms_ago, max_staleness_ms: 60_000 }
    }

    #[test]
    fn who_has_not_heard_of_it_is_named() {
        for (nodes, code, expected) in [
            (vec![], 1, "0 of 0"),
            (vec![node("a", 2, 0), node("b", 3, 0)], 0, "2 of 2"),
            (vec![node("a", 2, 0), node("b", 1, 0)], 1, "1 of 2"),
            // It is silent, and may go on by what it knew.
            (vec![node("a", 1, 60_000)], 1, "0 of 1"),
            // It refuses everything by now.
            (vec![node("a", 1, 70_000)], 1, "0 of 0"),
            (vec![node("a", 1, 70_000), node("b", 2, 0)], 0, "1 of 1"),
        ] {
            let bench = Bench::new();
            bench.create("--name CI --id k1");
            bench.session.store.set_nodes(nodes.clone());
            let ran = bench.key("revoke k1 --wait --timeout 20ms", Output::Json);
            assert_eq!(ran.code, code, "{nodes:?}: {ran:?}");
            assert!(ran.err.contains(&format!("{expected} processes")), "{nodes:?}: {ran:?}");
            assert_eq!(ran.json()["state"], "revoked");
            let named = nodes.iter().filter(|node| ran.err.contains(&format!("not yet: {}", node.id))).count();
            assert_eq!(named, usize::from(code == 1 && expected != "0 of 0"), "{ran:?}");
        }
        let bench = Bench::new();
        bench.create("--name CI --id k1");
        bench.session.store.set_nodes(vec![node("a", 2, 0)]);
        assert_eq!(bench.key("revoke k1 --wait=all", Output::Table).code, 0);
    }
}
