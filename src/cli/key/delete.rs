//! `keyward key delete`: the key is revoked; with `--cascade` the keys below it too, in the same commit.

use clap::Args;
use serde_json::json;

use crate::cli::console::{Console, Output};
use crate::cli::exit::{Exit, Failure};
use crate::cli::place::Place;

const EXAMPLES: &str = "\
Examples:
  keyward key delete ID --reason \"made by mistake\"
  keyward key delete ID --cascade

A deleted key is revoked and stays in the store, and so its value cannot come back by an import.";

/// What `keyward key delete` takes.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct DeleteArgs {
    /// The key
    id: String,
    /// Delete the keys below it too
    #[arg(long)]
    cascade: bool,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Deletes a key.
pub(super) async fn run(
    args: DeleteArgs,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let keys = place.delete_key(&args.id, args.cascade, args.reason.as_deref()).await?;
    match output {
        Output::Table => {}
        Output::Json => console.json(&json!({ "id": args.id, "keys": keys }))?,
    }
    match keys.len() {
        1 => console.note(format_args!("key {} deleted", args.id)),
        count => console.note(format_args!("key {} deleted, and {} below it", args.id, count - 1)),
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::Bench;

    #[test]
    fn keys_below_go_too_or_nothing_does() {
        let bench = Bench::new();
        bench.create("--name a --id above");
        bench.create("--name b --id below --parent above");
        let ran = bench.key("delete above", Output::Table);
        assert!(ran.code == 5 && ran.err.contains("--cascade"), "{ran:?}");
        assert_eq!(bench.key("show below", Output::Json).code, 0);
        let ran = bench.key("delete above --cascade --reason over", Output::Json);
        assert_eq!((ran.code, &ran.json()["keys"]), (0, &json!(["above", "below"])), "{ran:?}");
        let listed = bench.key("list", Output::Json).json();
        assert!(listed.as_array().unwrap().iter().all(|key| key["state"] == "revoked"), "{listed}");
        let commits = bench.session.store.commits();
        let commit = commits.last().unwrap();
        let told = (commit.action, &commit.detail["reason"], &commit.detail["before"]["name"]);
        assert_eq!(told, ("key.delete", &json!("over"), &json!("a")));
        assert_eq!(bench.key("delete above", Output::Table).code, 4);
    }
}
