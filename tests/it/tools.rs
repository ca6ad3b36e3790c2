//! Programs that are not `keyward serve`: found or reported missing, started, listened to, signalled, and never left behind.

pub(crate) mod postgres;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, fs};

/// How long a program may take that ought to end, or to say something, at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Whether a test has to go without one of these programs, which `tests/setup.sh` installs. It says which; where
/// `KEYWARD_REQUIRE_TOOLS` is 1 it fails instead, so that nothing is skipped unnoticed.
#[track_caller]
pub(crate) fn lacks(programs: &[&str]) -> bool {
    let missing: Vec<&&str> = programs.iter().filter(|program| !is_there(program)).collect();
    lacks_what(&format!("{missing:?}"), "tests/setup.sh", missing.is_empty())
}

/// The same of what another script installs.
#[track_caller]
pub(crate) fn lacks_what(what: &str, script: &str, is_there: bool) -> bool {
    if is_there {
        return false;
    }
    let why = format!("{what} not found; {script} installs it");
    assert!(env::var("KEYWARD_REQUIRE_TOOLS").as_deref() != Ok("1"), "{why}");
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
    true
}

fn is_there(program: &str) -> bool {
    let path = env::var("PATH").unwrap_or_default();
    let is_program = |path: &str| fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o111 != 0);
    path.split(':').any(|folder| is_program(&format!("{folder}/{program}")))
}

/// Whether the long form of a test is wanted.
pub(crate) fn long() -> bool {
    env::var("KEYWARD_LONG").as_deref() == Ok("1")
}

/// Keyward with these words, and no settings from outside. `KEYWARD_PROGRAM` may name another build of it, to be measured.
pub(crate) fn keyward(words: &[&str]) -> Command {
    let built = || env!("CARGO_BIN_EXE_keyward").into();
    let mut command = Command::new(env::var_os("KEYWARD_PROGRAM").unwrap_or_else(built));
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEYWARD_")) {
        command.env_remove(name);
    }
    command.args(words).stdin(Stdio::null());
    command
}

/// A running program. Dropping it kills it.
pub(crate) struct Program {
    child: Child,
    out: Arc<Mutex<Vec<u8>>>,
    err: Arc<Mutex<Vec<u8>>>,
    listeners: Vec<JoinHandle<()>>,
}

impl Program {
    /// Starts it, and remembers everything that it writes.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, listens_to_out) = listen(child.stdout.take().unwrap());
        let (err, listens_to_err) = listen(child.stderr.take().unwrap());
        Self { child, out, err, listeners: vec![listens_to_out, listens_to_err] }
    }

    /// Its number among the processes.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stdout so far.
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.out.lock().unwrap()).into_owned()
    }

    /// What it has written to stderr so far.
    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.err.lock().unwrap()).into_owned()
    }

    /// Sends a signal: `INT`, `STOP`, `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        // The shell has `kill` built in; as a program it is not everywhere.
        let kill = ["-c", "kill -\"$0\" \"$1\"", name, &self.id().to_string()];
        assert!(Command::new("sh").args(kill).status().unwrap().success(), "the program has ended: {}", self.err());
    }

    /// Kills it where it stands, if it still runs.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// Waits until it has written what is looked for, to stdout or to stderr.
    #[track_caller]
    pub(crate) fn wait_for<T>(&mut self, what: &str, find: impl Fn(&str, &str) -> Option<T>) -> T {
        let mut found = None;
        let mut ended = false;
        wait(PATIENCE, || {
            // What a program writes at its end is there only after its end.
            ended = self.child.try_wait().unwrap().is_some();
            found = find(&self.out(), &self.err());
            found.is_some() || ended
        });
        if ended && found.is_none() {
            self.listeners.drain(..).for_each(|listener| listener.join().unwrap());
            found = find(&self.out(), &self.err());
        }
        found.unwrap_or_else(|| panic!("no {what} in:\n{}\n{}", self.out(), self.err()))
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it has ended, and gives how it ended and all that it wrote.
    #[track_caller]
    pub(crate) fn end(mut self, patience: Duration) -> Ended {
        let ended = wait(patience, || self.has_ended());
        assert!(ended, "it goes on after {patience:?}:\n{}\n{}", self.out(), self.err());
        self.listeners.drain(..).for_each(|listener| listener.join().unwrap());
        Ended { status: self.child.wait().unwrap(), out: self.out(), err: self.err() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is left of a program.
#[derive(Debug)]
pub(crate) struct Ended {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// All that it wrote to stdout.
    pub(crate) out: String,
    /// All that it wrote to stderr.
    pub(crate) err: String,
}

/// Runs a program to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Ended {
    Program::start(command).end(Duration::from_secs(60))
}

/// Waits until something holds, and says whether it does.
pub(crate) fn wait(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// What curl gets: the status of the last answer, its head and its body.
#[derive(Debug)]
pub(crate) struct Got {
    /// The status.
    pub(crate) status: u16,
    /// The head, in lower case.
    pub(crate) head: String,
    /// The body.
    pub(crate) body: String,
}

/// Fetches something with curl, as people do.
#[track_caller]
pub(crate) fn curl(args: &[&str]) -> Got {
    let ended = run(Command::new("curl").args(["-q", "-sS", "-i", "-m", "10", "--noproxy", "*"]).args(args));
    assert!(ended.status.success(), "curl {args:?}: {ended:?}");
    let (head, body) = ended.out.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {ended:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status: {head}"));
    Got { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn listen(mut pipe: impl Read + Send + 'static) -> (Arc<Mutex<Vec<u8>>>, JoinHandle<()>) {
    let heard = Arc::<Mutex<Vec<u8>>>::default();
    let ear = heard.clone();
    let listener = thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            ear.lock().unwrap().extend_from_slice(&buffer[..count]);
        }
    });
    (heard, listener)
}

/// Reads what `keyward serve` writes, up to the line that says where it listens: for clients, and for kubelet.
#[track_caller]
pub(crate) fn serving(pipe: &mut impl Read) -> (SocketAddr, SocketAddr) {
    let (mut said, mut byte) = (Vec::new(), [0]);
    while !(said.ends_with(b"\n") && String::from_utf8_lossy(&said).contains("\"serving\"")) {
        assert_eq!(pipe.read(&mut byte).unwrap(), 1, "it ended: {}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&byte);
    }
    let said = String::from_utf8(said).unwrap();
    let line: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let address = |name: &str| {
        let text = line[name].as_str().unwrap();
        text.parse().unwrap()
    };
    (address("proxy"), address("ops"))
}

/// The port on which a process listens: what `ss -ltnp` says.
pub(crate) fn listening_port(process: u32) -> Option<u16> {
    let files = fs::read_dir(format!("/proc/{process}/fd")).ok()?;
    let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    let sockets: Vec<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_its = fields[3] == "0A" && sockets.contains(&format!("socket:[{}]", fields[9]));
        is_its.then(|| u16::from_str_radix(fields[1].rsplit(':').next()?, 16).ok())?
    })
}
