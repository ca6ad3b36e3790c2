//! PostgreSQL servers for tests: one that all tests of this checkout share, with a database for each, and private ones
//! for tests that stop or freeze theirs. PostgreSQL refuses to run as root, so root starts it as `nobody`.
//!
//! The shared server belongs to no test: a guard of a few lines of shell starts it, waits until no process holds the lock
//! file in its folder any more, and stops it. A test that is killed lets go of the lock like any other.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, process, thread};

/// As it is run: nothing in it must outlive the tests.
const SETTINGS: &[&str] = &[
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "shared_buffers=16MB",
    "max_connections=200",
    "max_wal_senders=4",
    "logging_collector=off",
];

/// The port of those that have no TCP: it is in the name of the socket.
const PORT: u16 = 5432;

/// Starts the server, waits until nobody uses it for two seconds, stops it, and takes its folder away.
const GUARD: &str = r#"
exec 9<"$1"; data=$2; shift 2
"$@" & server=$!
while flock -x 9; do
  flock -u 9; sleep 2
  flock -xn 9 && break
done
kill -INT $server; wait $server
rm -rf "$data"
"#;

/// Whether tests have to go without PostgreSQL, which `tests/setup.sh` installs. Where `KEYWARD_REQUIRE_TOOLS` is 1 that is
/// a failure, so that nothing is skipped unnoticed.
pub(crate) fn is_lacking() -> bool {
    if programs().is_some() {
        return false;
    }
    assert!(env::var("KEYWARD_REQUIRE_TOOLS").as_deref() != Ok("1"), "no PostgreSQL; tests/setup.sh installs it");
    let _ = writeln!(io::stderr(), "skipped: no PostgreSQL; tests/setup.sh installs it");
    true
}

/// The folder of the newest version.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    versions.filter(|folder| folder.join("initdb").exists()).max()
}

/// A command of PostgreSQL, or one with a path, that is not run as root, and that ends with this thread unless it is to outlive it.
fn unprivileged(program: &str, outlives: bool) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    if !outlives {
        command.arg("--pdeathsig=QUIT");
    }
    command.arg(programs().expect("there is PostgreSQL").join(program)).current_dir("/");
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("Linux").uid() == 0
}

/// Makes a folder that the server may write.
fn make_folder(path: &Path) {
    fs::create_dir_all(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    if is_root() {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
}

fn checked(what: &str, output: &Output) -> String {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Makes the files of a new server.
fn initialise(data: &Path) {
    let mut initdb = unprivileged("initdb", true);
    initdb.arg("-D").arg(data).args(["-U", "kw", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]);
    checked("initdb", &initdb.output().unwrap());
}

fn arguments(folder: &Path, settings: &[String]) -> Vec<String> {
    let mut arguments = vec!["-D".to_owned(), folder.join("data").display().to_string()];
    let places = ["listen_addresses=".to_owned(), format!("unix_socket_directories={}", folder.display())];
    let settings = SETTINGS.iter().map(ToString::to_string).chain(places).chain(settings.iter().cloned());
    arguments.extend(settings.flat_map(|setting| ["-c".to_owned(), setting]));
    arguments
}

fn is_ready(folder: &Path, port: u16) -> bool {
    let port = port.to_string();
    let status =
        unprivileged("pg_isready", true).args(["-q", "-p", &port, "-h"]).arg(folder).args(["-d", "postgres"]).status();
    status.is_ok_and(|status| status.success())
}

fn wait_until_ready(folder: &Path, port: u16) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_ready(folder, port) {
        assert!(Instant::now() < deadline, "PostgreSQL does not start in {}", folder.display());
        thread::sleep(Duration::from_millis(20));
    }
}

/// The shared server; what keeps it running is the lock on the file.
struct Shared {
    folder: PathBuf,
    _in_use: File,
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let mut checkout = DefaultHasher::new();
        (env!("CARGO_MANIFEST_DIR"), env::var("USER").ok()).hash(&mut checkout);
        let folder = env::temp_dir().join(format!("keyward-pg-{:016x}", checkout.finish()));
        make_folder(&folder);
        let open = |name: &str| File::options().create(true).append(true).open(folder.join(name)).unwrap();
        let in_use = open("in-use");
        in_use.lock_shared().unwrap();
        // Of several who come first, one starts it. Its guard cannot stop it: all of them hold the other lock.
        let starting = open("starting");
        starting.lock().unwrap();
        if !is_ready(&folder, PORT) {
            let data = folder.join("data");
            let _ = fs::remove_dir_all(&data);
            make_folder(&data);
            fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
            initialise(&data);
            let server = unprivileged("postgres", true);
            let mut guard = Command::new("sh");
            guard.args(["-c", GUARD, "guard"]).arg(folder.join("in-use")).arg(&data);
            guard.arg(server.get_program()).args(server.get_args()).args(arguments(&folder, &[]));
            guard.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/").process_group(0);
            let mut guard = guard.spawn().unwrap();
            // It outlives this process, but must not become its zombie.
            thread::spawn(move || guard.wait());
            wait_until_ready(&folder, PORT);
        }
        drop(starting);
        Shared { folder, _in_use: in_use }
    })
}

/// A new database.
pub(crate) struct Database {
    folder: PathBuf,
    port: u16,
    pub(crate) name: String,
}

impl Database {
    /// One on the shared server.
    pub(crate) fn new() -> Self {
        Self::at(&shared().folder, PORT)
    }

    fn at(folder: &Path, port: u16) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}_{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let postgres = Self { folder: folder.to_owned(), port, name: "postgres".to_owned() };
        postgres.sql(&format!("create database {name}"));
        Self { name, ..postgres }
    }

    /// Its URL, with more parameters: `&listen=off`.
    pub(crate) fn url(&self, user: &str, more: &str) -> String {
        format!("postgres:///{}?host={}&user={user}{more}", self.name, self.folder.display())
    }

    /// Runs SQL as the superuser; the rows, with `|` between the columns.
    #[track_caller]
    pub(crate) fn sql(&self, sql: &str) -> String {
        checked(sql, &self.psql("kw").args(["-c", sql]).output().unwrap())
    }

    /// Has each of two databases called what the other was; whoever is connected is thrown out.
    pub(crate) fn swap_names(&mut self, other: &mut Self) {
        let server = Self { folder: self.folder.clone(), port: self.port, name: "postgres".to_owned() };
        let (a, b) = (self.name.clone(), other.name.clone());
        for name in [&a, &b] {
            server.sql(&format!("alter database {name} allow_connections false"));
            server
                .sql(&format!("select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '{name}'"));
        }
        for (from, to) in [(&a, &format!("{a}_aside")), (&b, &a), (&format!("{a}_aside"), &b)] {
            server.sql(&format!("alter database {from} rename to {to}"));
        }
        for name in [&a, &b] {
            server.sql(&format!("alter database {name} allow_connections true"));
        }
        std::mem::swap(&mut self.name, &mut other.name);
    }

    /// Runs a file of SQL as the superuser.
    #[track_caller]
    pub(crate) fn run(&self, file: &Path) {
        // Not every file may be read by those who are not root.
        let text = File::open(file).unwrap();
        checked(&file.display().to_string(), &self.psql("kw").stdin(text).output().unwrap());
    }

    /// A session that goes on for as long as its stdin is open.
    pub(crate) fn psql(&self, user: &str) -> Command {
        let mut psql = unprivileged("psql", false);
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", &self.name, "-h"]);
        psql.arg(&self.folder).arg("-p").arg(self.port.to_string());
        psql
    }
}

/// PgBouncer before a database, lending connections by the transaction. Dropping it ends it.
pub(crate) struct Pooler {
    folder: tempfile::TempDir,
    process: Child,
}

impl Pooler {
    pub(crate) fn start(database: &Database) -> Self {
        let folder = tempfile::Builder::new().prefix("keyward-pool-").tempdir().unwrap();
        make_folder(folder.path());
        let (place, server) = (folder.path().display(), database.folder.display());
        let settings = format!(
            "[databases]\n* = host={server} port={}\n[pgbouncer]\nlisten_addr =\nunix_socket_dir = {place}\n\
             listen_port = {PORT}\nauth_type = trust\nauth_file = {place}/users\npool_mode = transaction\n\
             default_pool_size = 2\n",
            database.port
        );
        fs::write(folder.path().join("pgbouncer.ini"), settings).unwrap();
        fs::write(folder.path().join("users"), "\"kw\" \"\"\n").unwrap();
        let mut command = unprivileged("/usr/sbin/pgbouncer", false);
        command.args(["-q"]).arg(folder.path().join("pgbouncer.ini"));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until_ready(folder.path(), PORT);
        Self { folder, process }
    }

    /// The URL of a database through it, and for notifications past it if so wished.
    pub(crate) fn url(&self, database: &Database, past_it: bool) -> String {
        let listen = if past_it { format!("&listen={}", database.folder.display()) } else { String::new() };
        format!("postgres:///{}?host={}&user=kw{listen}", database.name, self.folder.path().display())
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A way to a server that breaks at the first commit.
pub(crate) struct Breaking(tempfile::TempDir);

impl Breaking {
    /// Whether the server still gets that commit, and whether there is a way to it afterwards.
    pub(crate) fn start(database: &Database, gets_it: bool, heals: bool) -> Self {
        let folder = tempfile::Builder::new().prefix("keyward-way-").tempdir().unwrap();
        let way = UnixListener::bind(folder.path().join(format!(".s.PGSQL.{PORT}"))).unwrap();
        let place = database.folder.join(format!(".s.PGSQL.{}", database.port));
        thread::spawn(move || {
            let mut breaks = true;
            // One after the other: nobody who is tested with it needs two at once.
            for client in way.incoming() {
                let (mut client, mut server) = (client.unwrap(), UnixStream::connect(&place).unwrap());
                let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || io::copy(&mut answers, &mut back));
                let mut bytes = [0; 1 << 16];
                while let Ok(count @ 1..) = client.read(&mut bytes) {
                    let breaks_now = breaks && bytes[..count].ends_with(b"commit\0");
                    // First, or the answer might still come through.
                    if breaks_now {
                        let _ = client.shutdown(Shutdown::Both);
                    }
                    if (gets_it || !breaks_now) && server.write_all(&bytes[..count]).is_err() {
                        break;
                    }
                    if breaks_now {
                        breaks = false;
                        break;
                    }
                }
                let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
                if !breaks && !heals {
                    return;
                }
            }
        });
        Self(folder)
    }

    pub(crate) fn url(&self, database: &Database) -> String {
        format!("postgres:///{}?host={}&user=kw", database.name, self.0.path().display())
    }
}

/// A server of one test. Dropping it stops it.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    port: u16,
    settings: Vec<String>,
    process: Option<Child>,
}

impl Server {
    /// Starts one with these settings beside those of every test.
    pub(crate) fn start(settings: &[String]) -> Self {
        let folder = tempfile::Builder::new().prefix("keyward-pg-").tempdir().unwrap();
        make_folder(folder.path());
        let data = folder.path().join("data");
        make_folder(&data);
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
        initialise(&data);
        let mut server = Self { folder, port: PORT, settings: settings.to_vec(), process: None };
        server.start_again();
        server
    }

    /// Starts one that lets people in at a TCP port with TLS and not without.
    pub(crate) fn start_with_tls(certificate: &Path, key: &Path, port: u16) -> Self {
        let mut server = Self::start(&[]);
        let data = server.folder.path().join("data");
        for (from, to) in [(certificate, "server.pem"), (key, "server.key")] {
            fs::copy(from, data.join(to)).unwrap();
            fs::set_permissions(data.join(to), fs::Permissions::from_mode(0o600)).unwrap();
            if is_root() {
                std::os::unix::fs::chown(data.join(to), Some(65534), Some(65534)).unwrap();
            }
        }
        fs::write(data.join("pg_hba.conf"), "local all all trust\nhostssl all all all trust\n").unwrap();
        server.stop();
        let settings = ["ssl=on", "ssl_cert_file=server.pem", "ssl_key_file=server.key", "listen_addresses=localhost"];
        server.settings.extend(settings.map(str::to_owned));
        server.settings.push(format!("port={port}"));
        server.port = port;
        server.start_again();
        server
    }

    /// Starts it after it was stopped.
    pub(crate) fn start_again(&mut self) {
        let mut command = unprivileged("postgres", false);
        command.args(arguments(self.folder.path(), &self.settings)).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.process_group(0).spawn().unwrap());
        wait_until_ready(self.folder.path(), self.port);
    }

    /// Stops it, and all of its connections with it.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            signal(&process.id().to_string(), "INT");
            process.wait().unwrap();
        }
    }

    /// Freezes it, or lets it go on: `STOP`, `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.as_ref().expect("it runs").id().to_string();
        // It comes first, so that it makes no more of those that serve connections. They are in groups of their own.
        signal(&id, name);
        let children = Command::new("pgrep").args(["-P", &id]).output().unwrap();
        let children = String::from_utf8_lossy(&children.stdout).into_owned();
        children.split_whitespace().for_each(|id| signal(id, name));
    }

    /// A new database.
    pub(crate) fn database(&self) -> Database {
        Database::at(self.folder.path(), self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.signal("CONT");
        }
        self.stop();
    }
}

fn signal(id: &str, name: &str) {
    // The shell has `kill` built in; as a program it is not everywhere. A process may have ended meanwhile.
    let _ = Command::new("sh").args(["-c", "kill -\"$1\" \"$0\" 2>/dev/null", id, name]).status();
}
