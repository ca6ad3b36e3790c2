//! The program itself: a folder with its config, pepper and store ([`Site`]), and a running `keyward serve` in it
//! ([`Keyward`]).

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use serde_json::{Value, json};

use super::{Client, PATIENCE, Response, request, until};
use crate::tools;

/// The pepper of every test.
const PEPPER: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

/// A folder in which Keyward is at home: `keyward.yaml`, `keyward.pepper`, and a database when there are keys.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    environment: Vec<(&'static str, String)>,
}

/// A key that was made.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// What commands call it.
    pub(crate) id: String,
    /// What opens doors.
    pub(crate) value: String,
}

impl Key {
    /// As most clients present it.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.value)
    }
}

impl Site {
    /// A site before an upstream. `config` is YAML that is laid over what every test has: its sections are merged, and
    /// what it names goes first.
    pub(crate) fn new(upstream: SocketAddr, config: &str) -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap(), environment: Vec::new() };
        site.configure(upstream, config);
        site.write("keyward.pepper", PEPPER);
        site
    }

    /// With something in the environment of all that is run in it.
    pub(crate) fn with_environment(mut self, name: &'static str, value: String) -> Self {
        self.environment.push((name, value));
        self
    }

    /// Puts another config in place of the one that is there, whole: nobody sees half of it.
    pub(crate) fn configure(&self, upstream: SocketAddr, config: &str) {
        self.write("keyward.yaml.new", &Self::config(upstream, config));
        fs::rename(self.path().join("keyward.yaml.new"), self.path().join("keyward.yaml")).unwrap();
    }

    /// The text of a config, as [`Site::new`] has it.
    pub(crate) fn config(upstream: SocketAddr, config: &str) -> String {
        let mut whole = json!({
            "version": 1,
            "proxy": { "listen": "127.0.0.1:0", "upstream": format!("http://{upstream}"), "workers": 2 },
            "keys": { "pepper": { "file": "keyward.pepper" } },
            "store": "sqlite:keyward.db",
            "admin": { "listen": "127.0.0.1:0" },
            "ops": { "listen": "127.0.0.1:0" },
            "log": { "format": "json", "level": "info", "access": "all" },
        });
        lay_over(&mut whole, serde_yaml::from_str(config).expect("the config of a test is YAML"));
        // JSON is YAML too.
        serde_json::to_string_pretty(&whole).unwrap()
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into the folder. The pepper must not be readable by others.
    pub(crate) fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A command of Keyward, with the config of this site and no settings from outside.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = tools::keyward(words);
        command.args(["--config", "keyward.yaml"]).current_dir(self.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs a command that must succeed, and gives what it prints with `--output json`.
    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        self.make_store();
        let output = self.command(words).args(["--output", "json"]).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{words:?}: {error}: {}", String::from_utf8_lossy(&output.stdout)))
    }

    /// Makes a key: `["--read-only", "--scope", "organization:acme"]`.
    #[track_caller]
    pub(crate) fn create_key(&self, options: &[&str]) -> Key {
        let named = options.contains(&"--name");
        let name = if named { &[][..] } else { &["--name", "Example"][..] };
        let made = self.json(&[&["key", "create"][..], name, options].concat());
        Key { id: text(&made, "id"), value: text(&made, "value") }
    }

    /// Brings in keys of another system: rows of `id,name,value,access,ips,scope`.
    #[track_caller]
    pub(crate) fn import_keys(&self, rows: &[&str]) {
        self.make_store();
        self.write("import.csv", &format!("id,name,value,access,ips,scope\n{}\n", rows.join("\n")));
        let output = self.run(&["key", "import", "--input", "import.csv"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Makes the database, if the site has none yet: only `init` does.
    #[track_caller]
    fn make_store(&self) {
        let config = fs::read_to_string(self.path().join("keyward.yaml")).unwrap();
        if config.contains("sqlite:keyward.db") && !self.path().join("keyward.db").exists() {
            self.init();
        }
    }

    /// Makes the store, which must not be there.
    #[track_caller]
    pub(crate) fn init(&self) {
        let made = self.run(&["init"]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Starts `keyward serve`, and waits until it is ready.
    #[track_caller]
    pub(crate) fn serve(self) -> Keyward {
        let keyward = self.start();
        until("/readyz says that it is ready", || keyward.ops_page("/readyz").status == 200);
        keyward
    }

    /// Starts `keyward serve`, and waits until it listens.
    #[track_caller]
    pub(crate) fn start(self) -> Keyward {
        self.make_store();
        let mut command = self.command(&["serve"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::<Said>::default();
        said.listen(child.stdout.take().unwrap());
        said.listen(child.stderr.take().unwrap());
        let line = said.wait_for_line("serving");
        let address = |field: &str| {
            let text = line[field].as_str().unwrap_or_default();
            text.parse().unwrap_or_else(|_| panic!("no address of {field}: {line}"))
        };
        let (proxy, admin, ops) = (address("proxy"), address("admin"), address("ops"));
        Keyward { site: self, process: Process { child, said }, proxy, admin, ops }
    }
}

/// A running `keyward serve`. Dropping it kills it.
pub(crate) struct Keyward {
    /// Where it is at home.
    pub(crate) site: Site,
    /// Where clients connect.
    pub(crate) proxy: SocketAddr,
    admin: SocketAddr,
    pub(crate) ops: SocketAddr,
    process: Process,
}

impl Keyward {
    /// A new connection of a client.
    #[track_caller]
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.proxy)
    }

    /// Sends exact bytes over a new connection, and reads the answer.
    #[track_caller]
    pub(crate) fn send(&self, bytes: &[u8]) -> Response {
        self.connect().exchange(bytes)
    }

    /// Sends a GET over a new connection.
    #[track_caller]
    pub(crate) fn get(&self, target: &str, fields: &[(&str, &str)]) -> Response {
        self.send(&request("GET", target, fields, b""))
    }

    /// Sends a request with a key over a new connection.
    #[track_caller]
    pub(crate) fn with_key(&self, key: &Key, method: &str, target: &str) -> Response {
        self.send(&request(method, target, &[("Authorization", &key.bearer())], b""))
    }

    /// How a request with a key is answered; 0 where it is not: what is under way when its key is revoked is reset.
    pub(crate) fn status_with(&self, key: &Key) -> u16 {
        let mut client = self.connect();
        client.send(&request("GET", "/x", &[("X-API-Key", &key.value)], b""));
        client.try_response().map_or(0, |response| response.status)
    }

    /// A page for kubelet and Prometheus.
    #[track_caller]
    pub(crate) fn ops_page(&self, target: &str) -> Response {
        Client::connect(self.ops).exchange(&request("GET", target, &[], b""))
    }

    /// A page for those who run it.
    #[track_caller]
    pub(crate) fn admin_page(&self, target: &str) -> Response {
        Client::connect(self.admin).exchange(&request("GET", target, &[], b""))
    }

    /// Where the management API is.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Asks the management API for something, over a new connection.
    #[track_caller]
    pub(crate) fn manage(&self, key: &Key, method: &str, target: &str, body: &str) -> Response {
        let (bearer, json) = (key.bearer(), ("Content-Type", "application/json"));
        let fields = [("Authorization", bearer.as_str()), json];
        let fields = if body.is_empty() { &fields[..1] } else { &fields[..] };
        Client::connect(self.admin).exchange(&request(method, target, fields, body.as_bytes()))
    }

    /// Asks it to read its config again.
    #[track_caller]
    pub(crate) fn reload(&self) -> Response {
        Client::connect(self.admin).exchange(&request("POST", "/-/reload", &[], b""))
    }

    /// A sample of `/metrics`, by its name and labels as they are written there.
    #[track_caller]
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let page = self.ops_page("/metrics").text();
        let sample = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        sample.unwrap_or_else(|| panic!("no {series} in:\n{page}")).parse().unwrap()
    }

    /// The most memory that it ever had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.memory_field("VmHWM:")
    }

    /// The memory that it has now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.memory_field("VmRSS:")
    }

    fn memory_field(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux counts memory");
        line.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
    }

    /// Its number among the processes.
    pub(crate) fn id(&self) -> u32 {
        self.process.child.id()
    }

    /// Everything it has written so far.
    pub(crate) fn output(&self) -> Vec<u8> {
        self.process.said.bytes.lock().unwrap().clone()
    }

    /// Waits for a line of its log with this message, and gives it.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, message: &str) -> Value {
        self.process.said.wait_for_line(message)
    }

    /// Waits for a line of its log with this field, and gives it.
    #[track_caller]
    pub(crate) fn wait_for_line_with(&self, field: &str, value: &Value) -> Value {
        self.process.said.wait_for(field, value)
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.id().to_string();
        // The shell has `kill` built in; as a program it is not everywhere.
        let status = Command::new("sh").args(["-c", "kill -\"$1\" \"$0\"", &id, name]).status().unwrap();
        assert!(status.success());
    }

    /// Kills it where it stands.
    pub(crate) fn kill(mut self) -> Site {
        self.process.child.kill().unwrap();
        self.process.child.wait().unwrap();
        self.site
    }

    /// Whether it has ended, and how.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.process.child.try_wait().unwrap()
    }

    /// Waits until it has ended.
    #[track_caller]
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        until("the program ends", || self.exit_status().is_some());
        self.exit_status().unwrap()
    }
}

struct Process {
    child: Child,
    said: Arc<Said>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let _ = std::io::stderr().write_all(b"--- what keyward wrote ---\n");
            let _ = std::io::stderr().write_all(&self.said.bytes.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// What a process has written to stdout and stderr.
#[derive(Default)]
struct Said {
    bytes: Mutex<Vec<u8>>,
    more: Condvar,
}

impl Said {
    fn listen(self: &Arc<Self>, mut pipe: impl Read + Send + 'static) {
        let said = self.clone();
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                said.bytes.lock().unwrap().extend_from_slice(&buffer[..count]);
                said.more.notify_all();
            }
        });
    }

    #[track_caller]
    fn wait_for_line(&self, message: &str) -> Value {
        self.wait_for("message", &message.into())
    }

    #[track_caller]
    fn wait_for(&self, field: &str, value: &Value) -> Value {
        let find = |bytes: &[u8]| {
            let lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
            let mut lines = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
            lines.find(|line| line[field] == *value)
        };
        let bytes = self.bytes.lock().unwrap();
        let (bytes, _) = self.more.wait_timeout_while(bytes, PATIENCE, |bytes| find(bytes).is_none()).unwrap();
        find(&bytes).unwrap_or_else(|| panic!("no line with {field} {value} in:\n{}", String::from_utf8_lossy(&bytes)))
    }
}

#[track_caller]
fn text(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap_or_else(|| panic!("no {field} in {object}")).to_owned()
}

fn lay_over(below: &mut Value, above: Value) {
    match (below, above) {
        (_, Value::Null) => {}
        (Value::Object(below), Value::Object(above)) => {
            for (name, value) in above {
                lay_over(below.entry(name).or_insert(Value::Null), value);
            }
        }
        (below, above) => *below = above,
    }
}
