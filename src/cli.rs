//! The command line: what the commands are called and take, and how they end. What they do is in the rooms below.

mod audit;
mod check;
mod commands;
mod console;
mod demo;
mod exit;
mod flags;
mod import;
mod init;
mod key;
mod open;
mod place;
mod role;
mod scope;
mod server;
#[cfg(test)]
mod testing;
mod usage;
mod user;

use std::ffi::OsString;
use std::io::{self, BufWriter};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use self::commands::ManageCommand;
use self::console::{Console, Output};
use self::exit::{Exit, Failure};
use self::init::InitArgs;
use self::open::World;
use crate::app::{self, Watched};
use crate::config;
use crate::config::{Overrides, Source};

const EXAMPLES: &str = "\
Examples:
  keyward demo                          see it work, without a config
  keyward init                          make a config, a pepper and a database here
  keyward key create --name CI          make a key
  keyward serve --config keyward.yaml   serve

Exit codes: 0 ok, 1 failed, 2 usage, 3 config invalid, 4 not found, 5 conflict, 6 some rows \
rejected, 7 store or server unreachable, 130 interrupted. Data is written to stdout, everything else to stderr.";

/// Reverse-proxy auth sidecar: API keys for servers that cannot be changed
#[derive(Debug, Parser)]
#[command(name = "keyward", version, color = clap::ColorChoice::Never, after_long_help = EXAMPLES)]
#[command(arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "a process has one of it")]
enum Command {
    /// Serve: forward requests that have a valid key
    Serve(ServeArgs),
    /// See it work: an upstream, a proxy and two keys, without a config
    Demo(OutputArg),
    /// Read the config and open the store as `serve` would, and say what is wrong
    Check(ServeArgs),
    /// Make a config, a pepper and a database
    Init(InitArgs),
    #[command(flatten)]
    Manage(ManageCommand),
    /// Print the JSON Schema of the config
    Schema,
    /// Print a script that completes commands in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Args, Debug)]
struct ConfigArg {
    /// The config file
    #[arg(
        long,
        value_name = "FILE",
        env = "KEYWARD_CONFIG",
        default_value = "keyward.yaml",
        global = true,
        display_order = 100
    )]
    config: PathBuf,
}

#[derive(Args, Debug)]
struct OutputArg {
    /// How data is written
    #[arg(long, value_enum, default_value = "table", global = true, display_order = 101)]
    output: Output,
}

#[derive(Args, Debug)]
struct ServeArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// An option that goes before the config file: --set proxy.listen=0.0.0.0:8080
    #[arg(long, value_name = "PATH=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
}

fn setting(text: &str) -> Result<(String, String), &'static str> {
    let (path, value) = text.split_once('=').ok_or("write PATH=VALUE, such as proxy.listen=0.0.0.0:8080")?;
    Ok((path.to_owned(), value.to_owned()))
}

/// Runs the command line of a process and says with which code it ends.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (mut out, mut err) = (BufWriter::new(io::stdout()), io::stderr());
    let mut console = Console::of_process(&mut out, &mut err);
    run_with(args, &mut console).into()
}

fn run_with(args: impl IntoIterator<Item = OsString>, console: &mut Console<'_>) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return explain(&error, console),
    };
    let result = dispatch(cli.command, console).and_then(|exit| console.flush().map(|()| exit));
    result.unwrap_or_else(|failure| {
        let exit = Exit::from(&failure);
        if let Failure::Config(mistakes) = &failure {
            open::warn(&mistakes.warnings, console);
        }
        if exit != Exit::Ok {
            // Every mistake of a config is a line of its own.
            failure.to_string().lines().for_each(|line| console.note(format_args!("error: {line}")));
        }
        exit
    })
}

/// What clap has to say: help and the version are data, the rest are mistakes.
fn explain(error: &clap::Error, console: &mut Console<'_>) -> Exit {
    let text = error.render().to_string();
    if error.use_stderr() {
        console.note(text.trim_end());
        return Exit::Usage;
    }
    match console.line(text.trim_end()).and_then(|()| console.flush()) {
        Ok(()) => Exit::Ok,
        Err(failure) => Exit::from(&failure),
    }
}

fn dispatch(command: Command, console: &mut Console<'_>) -> Result<Exit, Failure> {
    match command {
        Command::Serve(args) => serve(args, console),
        Command::Demo(args) => demo::run(args.output, &World::of_process(vec![]), console),
        Command::Check(args) => check::run(&args.config.config, &World::of_process(args.set), console),
        Command::Init(args) => init::run(&args, &World::of_process(vec![]), console),
        Command::Manage(command) => open::manage(command, &World::of_process(vec![]), console),
        Command::Schema => console.raw(config::schema().as_bytes()).map(|()| Exit::Ok),
        Command::Completions { shell } => completions(shell, console),
    }
}

/// Reads the config and serves until the process is told to stop.
fn serve(args: ServeArgs, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let source = Source { path: args.config.config, overrides: Overrides::of_process(args.set) };
    let (config, watched) = Watched::load(source)?;
    open::warn(&config.warnings, console);
    app::serve(config, watched)?;
    Ok(Exit::Ok)
}

fn completions(shell: Shell, console: &mut Console<'_>) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "keyward", &mut script);
    console.raw(&script).map(|()| Exit::Ok)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[track_caller]
    fn run(words: &str) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = words.split(' ').filter(|word| !word.is_empty()).map(OsString::from);
        let exit = run_with([OsString::from("keyward")].into_iter().chain(args), &mut Console::new(&mut out, &mut err));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (exit.code(), text(out), text(err))
    }

    #[test]
    fn the_commands_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_and_version_are_data() {
        for (words, begins) in [
            ("--version", concat!("keyward ", env!("CARGO_PKG_VERSION"), "\n")),
            ("-h", "Reverse-proxy auth sidecar"),
            ("key import --help", "Bring in keys of another system"),
            ("help key create", "Make a key and print its value, once"),
            ("completions bash", "_keyward()"),
            ("schema", "{"),
        ] {
            let (code, out, err) = run(words);
            assert!(code == 0 && err.is_empty() && out.starts_with(begins), "{words}: {code} {out} {err}");
        }
        assert!(run("-h").1.len() < run("--help").1.len());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_reason() {
        for (words, reason) in [
            ("", "Usage: keyward <COMMAND>"),
            ("keys", "a similar subcommand exists: 'key'"),
            ("key create", "--name <NAME>"),
            (&format!("key create --name {}", "x".repeat(51)), "names of keys are 1 to 50 characters"),
            ("key create --name a --ip 1.2.3", "\"1.2.3\" is no address and no network"),
            ("key create --name a --ip ::1,10.0.0.0/33", "\"10.0.0.0/33\" is no address and no network"),
            ("key create --name a --scope acme", "\"acme\" is no scope"),
            ("key create --name a --env prod", "invalid value 'prod'"),
            ("key create --name a --expires soon", "write 90d, 12h, 2027-01-31"),
            ("key create --name a --id a/b", "ids of keys are 1 to 64 of"),
            ("key create --name a --output yaml", "invalid value 'yaml'"),
            ("key update k1", "--read-only"),
            ("key update --read-only", "<ID>"),
            ("key update k1 --read-only --read-write", "cannot be used with"),
            ("key update k1 --ip ::1 --any-ip", "cannot be used with"),
            ("key update k1 --scope organization:a --everywhere", "cannot be used with"),
            ("key update k1 --expires 1d --never-expires", "cannot be used with"),
            ("key update k1 --user a --no-user", "cannot be used with"),
            ("key rotate k1 --retire-others-after later", "write 24h, 30min or now"),
            ("key import", "--input <FILE>"),
            ("scope create acme", "\"acme\" is no scope"),
            ("audit verify --head 5-ab", "64 hex digits"),
            ("audit list --since yesterday", "write 2027-01-31"),
            ("serve --set proxy.listen", "write PATH=VALUE"),
            ("init --dir a --config b", "cannot be used with"),
            ("completions tcl", "invalid value 'tcl'"),
        ] {
            let (code, out, err) = run(words);
            assert!(code == 2 && out.is_empty() && err.contains(reason), "{words}: {code} {out} {err}");
        }
    }

    #[test]
    fn flags_stand_before_or_after_the_command() {
        for words in [
            "key --config a.yaml --output json list",
            "key list --output json --config a.yaml",
            "scope list --config a.yaml --output json",
        ] {
            let cli = Cli::try_parse_from(["keyward"].into_iter().chain(words.split(' '))).unwrap();
            let Command::Manage(command) = cli.command else { panic!("{words}") };
            assert_eq!((command.on().config.config.as_path(), command.output()), (Path::new("a.yaml"), Output::Json));
        }
    }

    #[test]
    fn a_config_that_is_not_there_is_a_wrong_config() {
        for words in
            ["check --config /nowhere/k.yaml", "key list --config /nowhere/k.yaml", "serve --config /nowhere/k.yaml"]
        {
            let (code, out, err) = run(words);
            assert!(code == 3 && out.is_empty() && err.starts_with("error: /nowhere/k.yaml"), "{words}: {code} {err}");
        }
    }
}
