//! `keyward usage`: how often keys are used, and who still has an old value; `keyward node`: which processes follow the store.

use clap::Subcommand;

use super::console::{Console, Output, grouped, printable};
use super::exit::{Exit, Failure};
use super::place::Place;
use crate::auth::grant::Timestamp;
use crate::manage::usage::{KeyUsage, ValueUsage};
use crate::store::ledger::nodes::Node;

/// Shows how often all keys were used, or one of them by its values.
pub(super) async fn run(
    key: Option<&str>,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    match key {
        Some(key) => one(&place.usage_of(key).await?, place.now(), output, console)?,
        None => all(&place.usage().await?, output, console)?,
    }
    Ok(Exit::Ok)
}

fn all(usage: &[KeyUsage], output: Output, console: &mut Console<'_>) -> Result<(), Failure> {
    match output {
        Output::Json => console.json_array(usage.iter()),
        Output::Table => {
            let row = |usage: &KeyUsage| [usage.key.to_string(), grouped(usage.count), time(usage.last_used)];
            console.table(["KEY", "REQUESTS", "LAST USED"], usage.iter().map(row))
        }
    }
}

fn one(usage: &KeyUsage, now: Timestamp, output: Output, console: &mut Console<'_>) -> Result<(), Failure> {
    match output {
        Output::Json => console.json(usage)?,
        Output::Table => {
            let text = |text: &Option<String>| printable(text.as_deref().unwrap_or("-"));
            let row = |value: &ValueUsage| {
                let (made, ends) = (value.created_time.to_string(), time(value.not_after));
                let (count, last) = (grouped(value.count), time(value.last_used));
                [text(&value.hint), made, ends, count, last, text(&value.client), text(&value.node)]
            };
            let headers = ["VALUE", "MADE", "ENDS", "REQUESTS", "LAST USED", "FROM", "NODE"];
            console.table(headers, usage.secrets.iter().map(row))?;
        }
    }
    for value in usage.secrets.iter().filter(|value| value.still_used) {
        let hint = value.hint.as_deref().map(|hint| format!(" {hint}…")).unwrap_or_default();
        let client = value.client.as_deref().map(|client| format!(" from {client}")).unwrap_or_default();
        let (last, node) = (time(value.last_used), value.node.as_deref().unwrap_or("-"));
        let end = match value.not_after {
            None => "does not end".to_owned(),
            Some(end) if end <= now => format!("ended at {end}"),
            Some(end) => format!("ends at {end}"),
        };
        let told = format!("the old value{hint} is still used: last at {last}{client}, through {node}; it {end}");
        console.note(printable(&told));
    }
    Ok(())
}

fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}

/// The commands on nodes.
#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// Show the processes that follow the store, and how far they are
    List,
    /// Forget one that has ended and could not say so, so that nobody waits for it
    Forget {
        /// The node
        id: String,
    },
}

/// Carries out a command on nodes.
pub(super) async fn nodes(
    command: NodeCommand,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let nodes = place.nodes().await?;
    match command {
        NodeCommand::List => match output {
            Output::Json => console.json_array(nodes.iter())?,
            Output::Table => {
                let row = |node: &Node| {
                    let state = if node.may_serve() { "live" } else { "gone" };
                    let (id, version) = (printable(&node.id), printable(&node.version));
                    let seen = format!("{}.{:03} s ago", node.seen_ms_ago / 1000, node.seen_ms_ago % 1000);
                    [id, state.to_owned(), node.revision.to_string(), seen, version]
                };
                console.table(["NODE", "STATE", "REVISION", "SEEN", "VERSION"], nodes.iter().map(row))?;
            }
        },
        NodeCommand::Forget { id } => {
            if !nodes.iter().any(|node| node.id == id) {
                return Err(Failure::NotFound(format!("no node {}; `keyward node list` shows all", printable(&id))));
            }
            place.forget(&id).await?;
            console.note(format_args!("node {} is forgotten; if it runs, it makes itself known again", printable(&id)));
        }
    }
    Ok(Exit::Ok)
}
