//! The README does what it says: each of its blocks that is marked `sh test` runs, in a folder of its own, with the program
//! on the path.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::tools::{self, Ended, PATIENCE, Program};

/// The blocks of a document whose info string is `sh test`, each with the line on which it begins.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut fence: Option<(&str, bool)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let marks = &line[..line.len() - line.trim_start_matches('`').len()];
        match fence {
            None if marks.len() >= 3 => {
                let wanted = line[marks.len()..].trim() == "sh test";
                fence = Some((marks, wanted));
                blocks.extend(wanted.then(|| (number + 1, String::new())));
            }
            Some((open, _)) if marks.len() >= open.len() && line == marks => fence = None,
            Some((_, true)) => blocks.last_mut().unwrap().1.extend([line, "\n"]),
            Some((_, false)) | None => {}
        }
    }
    assert!(fence.is_none(), "a block is not closed");
    blocks
}

/// Runs a block as somebody would who pastes it into a shell, but stops at the first command that fails.
#[track_caller]
fn run(block: &str) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_keyward")).parent().unwrap();
    let path = format!("{}:{}", program.display(), env::var("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command.args(["-eu", "-c", block]).current_dir(&folder).env("PATH", path).env("no_proxy", "*").stdin(Stdio::null());
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEYWARD_")) {
        command.env_remove(name);
    }
    let mut shell = Program::start(command.process_group(0));
    let ended = tools::wait(Duration::from_secs(60), || shell.has_ended());
    // What a block leaves running ends with it.
    let _ = Command::new("sh").args(["-c", "kill -KILL \"-$0\" 2>/dev/null", &shell.id().to_string()]).status();
    assert!(ended, "it goes on: {block}");
    shell.end(PATIENCE)
}

#[test]
fn the_readme_does_what_it_says() {
    // Only what is there can be wrong.
    let Ok(readme) = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")) else { return };
    let blocks = blocks(&readme);
    if blocks.iter().any(|(_, block)| block.contains("curl")) && tools::lacks(&["curl"]) {
        return;
    }
    for (line, block) in blocks {
        let ended = run(&block);
        assert!(ended.status.success(), "README.md:{line}: {ended:?}\n{block}");
    }
}

#[test]
fn marked_blocks_are_found_and_run() {
    let text = "```sh\nnot this\n```\n```sh test\nkeyward --version\n```\n````sh test\n```\nnor `that`\n```\n````\n";
    let found = blocks(text);
    assert_eq!(found, [(5, "keyward --version\n".to_owned()), (8, "```\nnor `that`\n```\n".to_owned())]);
    let ended = run(&found[0].1);
    assert!(ended.status.success() && ended.out.starts_with("keyward "), "{ended:?}");
    assert!(!run("false\ntrue\n").status.success(), "the first failure counts");
    assert!(run("sleep 1000 &\ntrue\n").status.success(), "what goes on in the background is ended");
    assert_eq!(run("sleep 1000 &\nexit 3\n").status.code(), Some(3));
    assert!(run("keyward init && test -f keyward.yaml && keyward check").status.success());
}
