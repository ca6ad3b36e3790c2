//! Where a PostgreSQL store is: a URL as libpq has it, but for what would be unsafe to guess.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// How long one attempt to connect to one address of a host may take. The whole of it has a limit of its own.
const CONNECT: Duration = Duration::from_secs(3);

/// How long a connection may be silent before the kernel asks whether the other end is still there.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// How long sent data may stay unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Parameters of the URL that libpq knows too and that mean the same here.
const PASSED_ON: &[&str] = &[
    "user",
    "password",
    "host",
    "port",
    "dbname",
    "options",
    "application_name",
    "target_session_attrs",
    "load_balance_hosts",
];

/// Where a server is, who we are there, and how we come there.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    pub(super) main: Way,
    /// How notifications come: mostly as everything else does, but not through a pooler.
    pub(super) listen: Option<Way>,
}

/// One way to the server.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) config: Config,
    pub(super) tls: Tls,
}

/// What is asked of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tls {
    /// No TLS.
    Off,
    /// TLS with whoever answers.
    Unverified,
    /// TLS with a server that shows a certificate for its name, signed by one of those in the file.
    Verified(PathBuf),
}

/// What is wrong with a URL. It is never repeated: it may contain a password, in a place where nobody looks for one.
pub(in crate::store) type Mistake = &'static str;

impl Address {
    /// Reads a URL; the path of a file in it starts at `base` if it is relative.
    pub(in crate::store) fn parse(url: &str, base: &Path) -> Result<Self, Mistake> {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut passed, mut mode, mut roots, mut listen) = (Vec::new(), None, None, None);
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or("a parameter after the `?` has no `=`")?;
            match name {
                "sslmode" => mode = Some(value),
                "sslrootcert" => roots = Some(base.join(decode(value)?)),
                "listen" => listen = Some(decode(value)?),
                name if PASSED_ON.contains(&name) => passed.push(parameter),
                _ => {
                    return Err(
                        "a parameter after the `?` is not known; there are user, password, host, port, dbname, \
                                options, application_name, target_session_attrs, load_balance_hosts, sslmode, \
                                sslrootcert and listen; in a password write `?` as %3F",
                    );
                }
            }
        }
        let mut config: Config = format!("{place}?{}", passed.join("&")).parse().map_err(|_| {
            "the URL cannot be read; write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for `@`, \
                          %2F for `/` and %3A for `:` in a password"
        })?;
        if config.get_hosts().is_empty() {
            return Err(
                "the host is missing; write postgres://USER@HOST/DATABASE, or ?host=/run/postgresql for a socket",
            );
        }
        if config.get_dbname().is_none() {
            return Err("the database is missing; write postgres://USER@HOST/DATABASE");
        }
        if config.get_application_name().is_none() {
            config.application_name("keyward");
        }
        let listen = match listen.as_deref() {
            Some("off") => None,
            Some(direct) => Some(listen_at(direct, &config)?),
            None => Some(config.clone()),
        };
        let way = |config: Config| {
            let tls = tls(mode, roots.as_deref(), config.get_hosts())?;
            Ok::<_, Mistake>(Way { config: settled(config, &tls), tls })
        };
        Ok(Self { main: way(config)?, listen: listen.map(way).transpose()? })
    }
}

/// The same database and user, but another way there.
fn listen_at(direct: &str, main: &Config) -> Result<Config, Mistake> {
    let mistake = "listen is HOST, HOST:PORT, the folder of a socket, or off";
    let (host, port) = match direct.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| mistake)?),
        Some(_) | None => (direct, 5432),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err(mistake);
    }
    let mut config = Config::new();
    config.host(host).port(port);
    main.get_user().map(|user| config.user(user));
    main.get_password().map(|password| config.password(password));
    main.get_dbname().map(|name| config.dbname(name));
    main.get_options().map(|options| config.options(options));
    main.get_application_name().map(|name| config.application_name(name));
    Ok(config)
}

/// Nobody gets less protection than they think: what libpq falls back to when nothing is said, clear text, is used only
/// where there is nobody between.
fn tls(mode: Option<&str>, roots: Option<&Path>, hosts: &[Host]) -> Result<Tls, Mistake> {
    match mode {
        None if hosts.iter().all(is_local) => Ok(Tls::Off),
        None => Err("say how to connect: ?sslmode=verify-full&sslrootcert=FILE (the server proves who it is), \
                     ?sslmode=require (encrypted, with whoever answers), or ?sslmode=disable where nobody else can be \
                     in between"),
        Some("disable") => Ok(Tls::Off),
        Some("require") => Ok(Tls::Unverified),
        Some("verify-full") => match roots {
            Some(file) => Ok(Tls::Verified(file.to_owned())),
            None => Err("sslmode=verify-full needs sslrootcert=FILE: the certificates, in PEM form, of those who may \
                         vouch for the server"),
        },
        Some("allow" | "prefer") => {
            Err("sslmode=allow and sslmode=prefer fall back to clear text and protect nobody; \
                                         use verify-full, require or disable")
        }
        Some("verify-ca") => Err("sslmode=verify-ca does not look at the server's name; use verify-full"),
        Some(_) => Err("sslmode is disable, require or verify-full"),
    }
}

/// Whether what is sent there stays on this machine.
fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback()),
    }
}

/// With the time limits that the URL does not set.
fn settled(mut config: Config, tls: &Tls) -> Config {
    let required = match tls {
        Tls::Off => SslMode::Disable,
        Tls::Unverified | Tls::Verified(_) => SslMode::Require,
    };
    config
        .ssl_mode(required)
        .connect_timeout(CONNECT)
        .tcp_user_timeout(UNACKNOWLEDGED)
        .keepalives_idle(KEEPALIVE)
        .keepalives_interval(KEEPALIVE / 4)
        .keepalives_retries(4);
    config
}

fn decode(value: &str) -> Result<String, Mistake> {
    let mistake = "a `%` in the URL is not followed by two hex digits, or comes to no text";
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit =
                    || rest.next().and_then(|byte| char::from(byte).to_digit(16)).and_then(|d| u8::try_from(d).ok());
                let (high, low) = (digit().ok_or(mistake)?, digit().ok_or(mistake)?);
                high << 4 | low
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| mistake)
}

impl fmt::Display for Address {
    /// Hosts and database: who we are there, and by what we prove it, is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.main.config;
        f.write_str("postgres://")?;
        for (index, host) in config.get_hosts().iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match host {
                Host::Tcp(name) => f.write_str(name)?,
                Host::Unix(path) => write!(f, "{}", path.display())?,
            }
            let ports = config.get_ports();
            if let Some(port) = ports.get(index).or(ports.first()).filter(|port| **port != 5432) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_never_shown_whole() {
        for (url, shown, listens) in [
            ("postgres://kw:hunter2@localhost/keys", "postgres://localhost/keys", "localhost"),
            (
                "postgres://kw:hunter2@127.0.0.1:6432/keys?listen=127.0.0.1:5433",
                "postgres://127.0.0.1:6432/keys",
                "127.0.0.1:5433",
            ),
            ("postgres://kw:hunter2@[::1]:5433/keys?listen=[::1]", "postgres://::1:5433/keys", "::1"),
            ("postgres://kw:hunter2@localhost/keys?listen=off", "postgres://localhost/keys", "off"),
            (
                "postgresql:///keys?host=/run/postgresql&password=hunter2",
                "postgres:///run/postgresql/keys",
                "/run/postgresql",
            ),
            (
                "postgres://kw:hunter2@a,b:5433/keys?sslmode=disable&target_session_attrs=read-write",
                "postgres://a,b:5433/keys",
                "a,b:5433",
            ),
            (
                "postgres://kw:h%40nter2@db/keys?sslmode=require&listen=%2Frun%2Fpostgresql",
                "postgres://db/keys",
                "/run/postgresql",
            ),
        ] {
            let address = Address::parse(url, Path::new("")).unwrap_or_else(|mistake| panic!("{url}: {mistake}"));
            assert_eq!(address.to_string(), shown);
            assert!(!format!("{address:?}").contains("nter2"));
            let listen = address.listen.map(|main| Address { main, listen: None }.to_string());
            let listen = listen.as_deref().and_then(|text| text.strip_prefix("postgres://")?.strip_suffix("/keys"));
            assert_eq!(listen.unwrap_or("off"), listens, "{url}");
        }
    }

    #[test]
    fn tls_is_never_guessed() {
        for (query, expected) in [
            ("", Err("say how to connect")),
            ("?sslmode=disable", Ok(Tls::Off)),
            ("?sslmode=require", Ok(Tls::Unverified)),
            ("?sslmode=verify-full&sslrootcert=/etc/ca.pem", Ok(Tls::Verified("/etc/ca.pem".into()))),
            ("?sslmode=verify-full&sslrootcert=ca.pem", Ok(Tls::Verified("/etc/keyward/ca.pem".into()))),
            ("?sslmode=verify-full", Err("needs sslrootcert")),
            ("?sslmode=prefer", Err("protect nobody")),
            ("?sslmode=verify-ca", Err("use verify-full")),
            ("?sslmode=on", Err("sslmode is")),
        ] {
            let parsed = Address::parse(&format!("postgres://kw:hunter2@db/keys{query}"), Path::new("/etc/keyward"));
            match (parsed, expected) {
                (Ok(address), Ok(tls)) => {
                    let required = if tls == Tls::Off { SslMode::Disable } else { SslMode::Require };
                    assert_eq!((address.main.config.get_ssl_mode(), address.main.tls), (required, tls), "{query}");
                }
                (Err(mistake), Err(expected)) => assert!(mistake.contains(expected), "{query}: {mistake}"),
                (parsed, _) => panic!("{query}: {parsed:?}"),
            }
        }
    }

    #[test]
    fn mistakes_are_told_without_the_url() {
        for url in [
            "postgres://",
            "postgres:///keys",
            "postgres://kw@localhost",
            "postgres://kw:hunter2?x@localhost/keys",
            "postgres://kw:hunter2@localhost/keys?ssl_mode=disable",
            "postgres://kw:hunter2@localhost:port/keys",
            "postgres://kw:hunter2@localhost/keys?listen=",
            "postgres://kw:hunter2@localhost/keys?listen=a:b",
            "postgres://kw:hunter2@localhost/keys?listen=%zz",
            "postgres://kw:hunter2@localhost/keys?target_session_attrs=hunter2",
        ] {
            let mistake = Address::parse(url, Path::new("")).expect_err(url);
            assert!(!mistake.contains("hunter2"));
        }
    }
}
