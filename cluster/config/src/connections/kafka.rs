//! Kafka settings: from `[kafka]` in `tidemill.toml`, from the file that `TIDEMILL_KAFKA_CONFIG`
//! names, and user and password from the environment. Later ones win.
//!
//! The file has the format of Kafka's own tools: `name=value` per line. Settings that only Java
//! clients understand are translated if possible, and otherwise refused by name.

use tidemill_log::{address, log};
use tidemill_protocol::exit::Usage;

use super::credentials::Service;
use super::file::Found;
use super::given::Given;

/// The variable that names the file.
const CONFIG: &str = "TIDEMILL_KAFKA_CONFIG";

/// The setting with the brokers.
const BROKERS: &str = "bootstrap.servers";

/// A setting and where it was given.
pub(super) struct Setting {
    /// The name, as librdkafka knows it.
    name: String,
    /// The value, which may be a secret.
    value: String,
    /// The file and line, or the variable, for messages.
    place: String,
}

/// All settings that were given, validated.
///
/// # Errors
///
/// A setting is unknown or refused ([`Usage`], exit code 2), or the file cannot be read.
pub(super) fn settings(found: Option<&Found>) -> anyhow::Result<Vec<Setting>> {
    let mut all = Vec::new();
    if let Some(found) = found {
        let place = format!("{}: [kafka]", found.path());
        for (name, value) in found.kafka()? {
            let place = place.clone();
            all.push(Setting { name, value, place });
        }
    }
    if let Some(path) = std::env::var(CONFIG).ok().filter(|path| !path.is_empty()) {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Usage(format!("{CONFIG}: {path}: {error}")))?;
        all.extend(properties(&path, &text));
    }
    let translated: Result<Vec<_>, Usage> = all.into_iter().map(translate).collect();
    let mut all: Vec<Setting> = translated?.into_iter().flatten().collect();
    let service = Service::new("kafka", None);
    for (name, value) in [
        ("sasl.username", service.setting("username")),
        ("sasl.password", service.password()?),
    ] {
        all.extend(value.map(|value| Setting {
            name: name.to_owned(),
            value,
            place: "the environment".to_owned(),
        }));
    }
    for setting in &all {
        let why = log::kafka_setting_refused(&setting.name, &setting.value);
        if let Some(why) = why.filter(|_| setting.name != BROKERS) {
            return Err(Usage(format!("{}: {why}", setting.place)).into());
        }
    }
    Ok(all)
}

/// The brokers from a properties file, used when no other place names them.
pub(super) fn brokers(settings: &[Setting]) -> Option<Given> {
    let mut named = settings.iter().rev();
    let named = named.find(|setting| setting.name == BROKERS)?;
    Some(Given {
        value: named.value.clone(),
        place: format!("{}: {BROKERS}", named.place),
        flag: None,
    })
}

/// The log's URL with the settings added. A setting in the URL itself wins.
pub(super) fn with(url: String, settings: Vec<Setting>) -> String {
    if !url.starts_with("kafka://") {
        return url;
    }
    let (place, own) = address::parse(&url);
    let given = settings
        .into_iter()
        .filter(|setting| setting.name != BROKERS);
    let given = given.map(|setting| (setting.name, setting.value));
    let all = given.chain(own);
    all.fold(place.to_owned(), |url, (name, value)| {
        address::with(&url, &name, &value)
    })
}

/// Parses a properties file: `name=value` or `name: value`; `#` and `!` begin a comment; a line
/// that ends with `\` continues.
fn properties(path: &str, text: &str) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let mut whole = line.trim().to_owned();
        if whole.is_empty() || whole.starts_with(['#', '!']) {
            continue;
        }
        while let Some(begun) = whole.strip_suffix('\\') {
            let next = lines.next().map_or("", |(_, line)| line.trim());
            whole = format!("{begun}{next}");
        }
        let (name, value) = whole.split_once(['=', ':']).unwrap_or((&whole, ""));
        all.push(Setting {
            name: name.trim().to_owned(),
            value: value.trim().to_owned(),
            place: format!("{path}:{}", number + 1),
        });
    }
    all
}

/// Translates the settings of Java clients.
///
/// # Errors
///
/// A setting has no meaning for librdkafka and cannot be translated.
fn translate(setting: Setting) -> Result<Vec<Setting>, Usage> {
    let Setting { name, value, place } = setting;
    let wrong = |right: &str| Err(Usage(format!("{place}: `{name}`: {right}")));
    match name.as_str() {
        "sasl.jaas.config" => {
            let known = ["PlainLoginModule", "ScramLoginModule"];
            let entries = (jaas(&value, "username"), jaas(&value, "password"));
            let (Some(user), Some(password)) = entries else {
                return wrong("expected username=\"…\" and password=\"…\" in it");
            };
            if !known.iter().any(|module| value.contains(module)) {
                return wrong("expected PlainLoginModule or ScramLoginModule");
            }
            let pairs = [("sasl.username", user), ("sasl.password", password)];
            let settings = pairs.map(|(name, value)| Setting {
                name: name.to_owned(),
                value,
                place: place.clone(),
            });
            Ok(settings.into())
        }
        "ssl.truststore.location" | "ssl.truststore.type" | "ssl.truststore.password" => {
            wrong("Java's alone; give ssl.ca.location=FILE, in PEM form")
        }
        "ssl.keystore.type" => {
            wrong("Java's alone; give ssl.certificate.location and ssl.key.location, in PEM form")
        }
        // An empty value is the way of Java clients to turn off the verification of host names.
        "ssl.endpoint.identification.algorithm" if value.is_empty() => Ok(vec![Setting {
            name,
            value: "none".to_owned(),
            place,
        }]),
        _ => Ok(vec![Setting { name, value, place }]),
    }
}

/// The value of `name="…"` in a JAAS line.
fn jaas(line: &str, name: &str) -> Option<String> {
    let at = line.find(&format!("{name}="))? + name.len() + 1;
    let rest = line.get(at..)?;
    let quote = rest
        .chars()
        .next()
        .filter(|sign| ['"', '\''].contains(sign));
    let Some(quote) = quote else {
        let end = rest.find([' ', ';']).unwrap_or(rest.len());
        return rest.get(..end).map(str::to_owned);
    };
    let (mut value, mut signs) = (String::new(), rest.chars().skip(1));
    loop {
        match signs.next()? {
            '\\' => value.push(signs.next()?),
            sign if sign == quote => return Some(value),
            sign => value.push(sign),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        let translated: Result<Vec<_>, Usage> =
            properties("f", text).into_iter().map(translate).collect();
        let all = translated.map_err(|error| error.to_string())?;
        let pair = |setting: Setting| (setting.name, setting.value);
        Ok(all.into_iter().flatten().map(pair).collect())
    }

    #[test]
    fn a_file_for_kafkas_own_tools_is_understood() {
        let text = "# of the cluster\n\nsecurity.protocol=SASL_SSL\nsasl.mechanism: PLAIN\n\
            sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
            required \\\n  \
            username=\"me\" \\\n  password=\"a=\\\"b;c\";\n\
            ssl.endpoint.identification.algorithm=\n";
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let wanted = [
            pair("security.protocol", "SASL_SSL"),
            pair("sasl.mechanism", "PLAIN"),
            pair("sasl.username", "me"),
            pair("sasl.password", "a=\"b;c"),
            pair("ssl.endpoint.identification.algorithm", "none"),
        ];
        assert_eq!(read(text).unwrap(), wanted);
    }

    #[test]
    fn what_only_java_understands_is_refused_by_name_and_line() {
        let said = read("a=b\nssl.truststore.location=/x.jks\n").unwrap_err();
        assert!(said.contains("f:2: `ssl.truststore.location`"), "{said}");
        assert!(said.contains("ssl.ca.location"), "{said}");
        let said = read("sasl.jaas.config=Krb5LoginModule required password=\"hunter22\";");
        let said = said.unwrap_err();
        assert!(
            said.contains("sasl.jaas.config") && !said.contains("hunter22"),
            "{said}"
        );
    }

    #[test]
    fn the_urls_own_settings_win() {
        let setting = |name: &str, value: &str| Setting {
            name: name.to_owned(),
            value: value.to_owned(),
            place: String::new(),
        };
        let all = vec![setting(BROKERS, "b:1"), setting("sasl.username", "me")];
        assert_eq!(brokers(&all).unwrap().value, "b:1");
        let url = with("kafka://a:1?client.id=x".to_owned(), all);
        assert_eq!(url, "kafka://a:1?sasl.username=me&client.id=x");
        assert_eq!(with("sqlite://f".to_owned(), Vec::new()), "sqlite://f");
    }
}
