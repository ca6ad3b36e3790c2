//! `keyward key rotate`: a new value beside those a key has, and an end for these if wanted. Id, name and history stay.

use clap::Args;

use super::create::print_value;
use crate::cli::console::{Console, Output};
use crate::cli::exit::{Exit, Failure};
use crate::cli::place::Place;
use crate::manage::rotate::Rotated;
use crate::manage::values::Grace;

const EXAMPLES: &str = "\
Examples:
  keyward key rotate ID --retire-others-after 24h
  keyward key rotate ID --retire-others-after now

Without --retire-others-after the values before go on working beside the new one.";

/// What `keyward key rotate` takes.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct RotateArgs {
    /// The key
    id: String,
    /// How long its other values go on working: 24h, now
    #[arg(long, value_name = "DURATION")]
    retire_others_after: Option<Grace>,
}

/// Gives a key a new value.
pub(super) async fn run(
    args: RotateArgs,
    place: &impl Place,
    output: Output,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    console.must_be_heard()?;
    let end = args.retire_others_after.map(|grace| place.now().plus(grace.0));
    let after = args.retire_others_after.map(|grace| grace.0);
    let Rotated { key, secret, others } = place.rotate_key(&args.id, after).await?;
    print_value(&key, secret.reveal(), output, console)?;
    let until = match end {
        Some(end) if end <= place.now() => "no more".to_owned(),
        Some(end) => format!("until {end} at the latest"),
        None => "as long as the key".to_owned(),
    };
    match others {
        0 => {}
        1 => console.note(format_args!("Its other value works {until}.")),
        _ => console.note(format_args!("Its {others} other values work {until}.")),
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::testing::Bench;

    #[track_caller]
    fn ends(bench: &Bench) -> Vec<Option<String>> {
        let shown = bench.key("show k1", Output::Json).json();
        let secrets = shown["secrets"].as_array().unwrap();
        let mut ends: Vec<_> = secrets.iter().map(|secret| secret["not_after"].as_str().map(str::to_owned)).collect();
        ends.sort();
        ends
    }

    #[test]
    fn a_new_value_lets_the_others_go_on_or_end() {
        let bench = Bench::new();
        bench.create("--name CI --id k1 --env test");
        let ran = bench.key("rotate k1", Output::Table);
        assert!(ran.code == 0 && ran.out.starts_with("kw_test_") && ran.out.lines().count() == 1, "{ran:?}");
        assert_eq!(ends(&bench), [None, None]);
        let ran = bench.key("rotate k1 --retire-others-after 24h", Output::Json);
        assert!(ran.json()["value"].is_string() && ran.json()["revision"] == 3, "{ran:?}");
        assert!(
            ran.err.ends_with("Its 2 other values work until 2026-11-23T12:00:00.000Z at the latest.\n"),
            "{ran:?}"
        );
        let tomorrow = Some("2026-11-23T12:00:00.000Z".to_owned());
        assert_eq!(ends(&bench), [None, tomorrow.clone(), tomorrow.clone()]);
        // An end that is nearer stays.
        bench.key("rotate k1 --retire-others-after 48h", Output::Table);
        let later = Some("2026-11-24T12:00:00.000Z".to_owned());
        assert_eq!(ends(&bench), [None, tomorrow.clone(), tomorrow, later]);
        let ran = bench.key("rotate k1 --retire-others-after now", Output::Table);
        assert!(ran.err.ends_with("Its 4 other values work no more.\n"), "{ran:?}");
        assert_eq!(ends(&bench).iter().flatten().filter(|end| end.starts_with("2026-11-22")).count(), 4);
        // What has ended is not counted again.
        let ran = bench.key("rotate k1", Output::Table);
        assert!(ran.err.ends_with("Its other value works as long as the key.\n"), "{ran:?}");
    }

    #[test]
    fn the_audit_of_a_rotation_has_no_secret() {
        let bench = Bench::new();
        bench.create("--name CI --id k1");
        let value = bench.key("rotate k1 --retire-others-after now", Output::Table).out;
        let commits = bench.session.store.commits();
        let commit = commits.last().unwrap();
        let target = json!({ "kind": "key", "id": "k1" });
        let end = "2026-11-22T12:00:00.000Z";
        let detail = json!({ "target": target, "retired": 1, "retire_at": end, "scopes": [null] });
        assert_eq!((commit.action, &commit.detail), ("key.rotate", &detail));
        assert!(!format!("{commit:?}").contains(&value.trim()[16..]));
    }

    #[test]
    fn a_rotation_starts_over_when_others_are_quicker() {
        for (conflicts, code) in [(2, 0), (3, 5)] {
            let bench = Bench::new();
            bench.create("--name CI --id k1");
            bench.session.store.fail_commits(conflicts);
            assert_eq!(bench.key("rotate k1", Output::Table).code, code);
        }
        assert_eq!(Bench::new().key("rotate k1", Output::Table).code, 4);
    }
}
