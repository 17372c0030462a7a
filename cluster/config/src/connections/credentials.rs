//! Credentials of the services: users, passwords and TLS files from the environment, from files
//! that it names, and from `tidemill.toml`; for PostgreSQL also from libpq's places.
//!
//! In: a service's URL. Out: the URL with the settings that were found. A setting in the URL itself
//! wins.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tidemill_log::address;
use tidemill_postgres::Server;
use tidemill_protocol::exit::Usage;
use tidemill_protocol::{output, redact};

use super::file::{Found, Settings};

/// libpq's variables, and the URL settings that they stand for.
const PG_SETTINGS: [(&str, &str); 4] = [
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
];

/// The settings of one service.
pub(super) struct Service<'a> {
    name: String,
    file: Option<&'a Settings>,
}

impl<'a> Service<'a> {
    /// `name` as in `TIDEMILL_NAME_PASSWORD`.
    pub(super) fn new(name: impl Into<String>, found: Option<&'a Found>) -> Self {
        let name = name.into();
        let file = match name.as_str() {
            "cassandra" => found.map(|found| &found.file.cassandra),
            "registry" => found.map(|found| &found.file.registry),
            _ => None,
        };
        Self { name, file }
    }

    /// The environment variable of a setting.
    fn variable(&self, name: &str) -> String {
        let all = format!("TIDEMILL_{}_{name}", self.name);
        all.to_ascii_uppercase()
    }

    /// A setting from the environment. An empty value counts as none.
    pub(super) fn setting(&self, name: &str) -> Option<String> {
        let value = std::env::var(self.variable(name)).ok();
        value.filter(|value| !value.is_empty())
    }

    /// A setting from the environment, else from the file.
    fn setting_or(&self, name: &str, of: fn(&Settings) -> &Option<String>) -> Option<String> {
        let in_file = || self.file.and_then(|file| of(file).clone());
        self.setting(name).or_else(in_file)
    }

    /// The password: from the variable, else from the file that a variable names, else from
    /// `tidemill.toml`.
    ///
    /// # Errors
    ///
    /// The password's file cannot be read or is empty.
    pub(super) fn password(&self) -> anyhow::Result<Option<String>> {
        let found = match self.setting("password") {
            Some(password) => Some(password),
            None => match self.setting("password_file") {
                Some(path) => Some(first_line(&path, &self.variable("password_file"))?),
                None => self.password_in_file()?,
            },
        };
        if let Some(password) = &found {
            redact::remember_alone(password);
        }
        Ok(found)
    }

    /// The password in `tidemill.toml`, or in the file that it names.
    fn password_in_file(&self) -> anyhow::Result<Option<String>> {
        let Some(file) = self.file else {
            return Ok(None);
        };
        match (&file.password, &file.password_file) {
            (Some(password), _) => Ok(Some(password.clone())),
            (None, Some(path)) => {
                let place = format!("{}.password_file", self.name);
                Ok(Some(first_line(path, &place)?))
            }
            (None, None) => Ok(None),
        }
    }

    /// Cassandra's URL with user, password, TLS files, replication and consistency.
    pub(super) fn cassandra(&self, url: String) -> anyhow::Result<String> {
        if !url.starts_with("cassandra://") {
            return Ok(url);
        }
        let mut url = url;
        let user = self.setting_or("user", |file| &file.user);
        if let (Some(user), None) = (user, user_of(&url)) {
            let user = address::encoded(&user);
            url = url.replacen("://", &format!("://{user}@"), 1);
        }
        if let Some(password) = self.password()? {
            url = unless_said(url, "password", &password);
        }
        let settings = [
            ("ca", self.setting_or("ca", |file| &file.ca)),
            ("cert", self.setting_or("cert", |file| &file.cert)),
            ("key", self.setting_or("key", |file| &file.key)),
            ("verify", self.setting_or("verify", |file| &file.verify)),
            (
                "replication",
                self.setting_or("replication", |file| &file.replication),
            ),
            (
                "consistency",
                self.setting_or("consistency", |file| &file.consistency),
            ),
        ];
        for (name, value) in settings {
            if let Some(value) = value {
                url = unless_said(url, name, &value);
            }
        }
        Ok(url)
    }

    /// The registry's URL with user, password and certificate authority.
    pub(super) fn registry(&self, url: String) -> anyhow::Result<String> {
        if url.starts_with("sqlite://") {
            return Ok(url);
        }
        for (name, of) in OF_CASSANDRA {
            if self.file.is_some_and(|file| of(file).is_some()) {
                return Err(
                    Usage(format!("tidemill.toml: registry.{name}: no such setting")).into(),
                );
            }
        }
        let mut url = url;
        let password = self.password()?.map(|password| address::encoded(&password));
        match (user_of(&url), self.setting_or("user", |file| &file.user)) {
            (None, Some(user)) => {
                let password = password.map_or_else(String::new, |it| format!(":{it}"));
                let user = address::encoded(&user);
                url = url.replacen("://", &format!("://{user}{password}@"), 1);
            }
            (Some(user), _) if !user.contains(':') => {
                let with = password.map_or(user.to_owned(), |it| format!("{user}:{it}"));
                url = url.replacen(&format!("{user}@"), &format!("{with}@"), 1);
            }
            _ => {}
        }
        if let Some(ca) = self.setting_or("ca", |file| &file.ca) {
            url = unless_said(url, "ca", &ca);
        }
        Ok(url)
    }

    /// PostgreSQL's URL with its password and the settings of libpq's variables.
    pub(super) fn postgres(&self, url: String) -> anyhow::Result<String> {
        if !url.starts_with("postgres://") {
            return Ok(url);
        }
        let mut url = url;
        for (variable, setting) in PG_SETTINGS {
            if let Some(value) = std::env::var(variable)
                .ok()
                .filter(|value| !value.is_empty())
            {
                url = unless_said(url, setting, &value);
            }
        }
        if redact::holds_password(&url) {
            return Ok(url);
        }
        let mut password = self.password()?;
        if password.is_none() {
            password = std::env::var("PGPASSWORD").ok();
        }
        if password.is_none() {
            password = pgpass(&url)?;
        }
        Ok(match password {
            Some(password) => address::with(&url, "password", &password),
            None => url,
        })
    }
}

type Of = fn(&Settings) -> &Option<String>;
const OF_CASSANDRA: [(&str, Of); 5] = [
    ("cert", |file| &file.cert),
    ("key", |file| &file.key),
    ("verify", |file| &file.verify),
    ("replication", |file| &file.replication),
    ("consistency", |file| &file.consistency),
];

/// The user part of a URL, if it has one.
fn user_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    authority.rsplit_once('@').map(|(user, _)| user)
}

/// Adds a setting, unless the URL has it already.
fn unless_said(url: String, name: &str, value: &str) -> String {
    let said = address::parse(&url).1.iter().any(|(said, _)| said == name);
    if said {
        url
    } else {
        address::with(&url, name, value)
    }
}

/// The secret in a file: its text without the line end.
fn first_line(path: &str, place: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{place}: {path}"))?;
    let secret = text.trim_end_matches(['\r', '\n']).to_owned();
    if secret.is_empty() {
        return Err(Usage(format!("{place}: {path} is empty")).into());
    }
    Ok(secret)
}

/// The password that libpq would find in `PGPASSFILE` or `~/.pgpass`.
fn pgpass(url: &str) -> anyhow::Result<Option<String>> {
    let named = std::env::var_os("PGPASSFILE").map(PathBuf::from);
    let usual = || std::env::home_dir().map(|home| home.join(".pgpass"));
    let Some(path) = named.or_else(usual).filter(|path| path.is_file()) else {
        return Ok(None);
    };
    let what = || format!("cannot read {}", path.display());
    if std::fs::metadata(&path)
        .with_context(what)?
        .permissions()
        .mode()
        & 0o077
        != 0
    {
        warn_open(&path);
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).with_context(what)?;
    // The schema of a sink is no setting of libpq.
    let (place, settings) = address::parse(url);
    let settings = settings.iter().filter(|(name, _)| name != "schema");
    let url = settings.fold(place.to_owned(), |url, (name, value)| {
        address::with(&url, name, value)
    });
    let server = Server::parse(&url)?;
    let config = server.config();
    let user = config.get_user().unwrap_or_default();
    let host = server.host().unwrap_or_default();
    // A socket's lines are those of localhost.
    let host = if host.starts_with('/') {
        "localhost"
    } else {
        &host
    };
    let port = server.port().to_string();
    let wanted = [host, &port, config.get_dbname().unwrap_or(user), user];
    Ok(password_of(&text, wanted))
}

/// Warns about a file that others can read. libpq ignores such a file too.
fn warn_open(path: &Path) {
    let path = path.display();
    output::log(&format!(
        "warning: {path} is left out, since others may read it; chmod 600 {path}\n"
    ));
}

/// The password of the first line whose host, port, database and user match.
fn password_of(text: &str, wanted: [&str; 4]) -> Option<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(fields).find_map(|fields| {
        let (password, place) = fields.split_last()?;
        let mut both = place.iter().zip(wanted);
        let fits = place.len() == wanted.len() && both.all(|(is, want)| is == "*" || is == want);
        fits.then(|| password.clone())
    })
}

/// The fields of a line between `:`; `\` quotes the next character.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut signs = line.chars();
    while let Some(sign) = signs.next() {
        let literal = match sign {
            // The fifth field, the password, is the rest of the line.
            ':' if fields.len() < 5 => {
                fields.push(String::new());
                continue;
            }
            '\\' => signs.next(),
            _ => Some(sign),
        };
        if let Some(field) = fields.last_mut() {
            field.extend(literal);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pgpass_line_fits_by_all_of_its_fields() {
        let text = "# host:port:db:user:password\nother:*:*:*:no\nh:5433:*:*:no\n\
                    h:*:d:me:a\\:b\\\\:c\n*:*:*:*:last\n";
        let found = |host, user| password_of(text, [host, "5432", "d", user]);
        assert_eq!(found("h", "me").as_deref(), Some("a:b\\:c"));
        assert_eq!(found("h", "you").as_deref(), Some("last"));
        assert_eq!(password_of("h:1:d:u\n", ["h", "1", "d", "u"]), None);
    }

    #[test]
    fn what_the_url_says_is_not_said_again() {
        let url = unless_said(
            "postgres://h/d?sslmode=disable".into(),
            "sslmode",
            "require",
        );
        assert_eq!(url, "postgres://h/d?sslmode=disable");
        assert_eq!(user_of("cassandra://me@h:1/k"), Some("me"));
        assert_eq!(user_of("https://h:1/k@x"), None);
    }
}
