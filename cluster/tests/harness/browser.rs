//! A real browser, driven by chromedriver over WebDriver.
//!
//! The pages are tested as a reader sees them: what is asserted is the visible text, the title and
//! the computed style, never the pages' own functions.
//!
//! ```text
//! test ─► WebDriver (HTTP, JSON) ─► chromedriver ─► browser ─► page ─► the server under test
//! ```
//!
//! The protocol is the W3C's WebDriver (<https://www.w3.org/TR/webdriver2/>). Few commands are
//! needed, so no client library is used. Without [`DRIVER`] the tests print that they were left out
//! and pass.

// Each test binary uses another part of this.
#![allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Names the chromedriver. Without the variable the tests are skipped.
const DRIVER: &str = "TIDEMILL_TEST_CHROMEDRIVER";
/// How long a test waits for a text on the page, and for an answer of the driver.
const PATIENCE: Duration = Duration::from_secs(60);
/// The library that finds what is inaccessible.
const AXE: &str = include_str!("../vendor/axe.min.js");

/// A browser with one page; ends with the test.
pub(crate) struct Browser {
    /// The chromedriver's process, which starts the browser and ends it with the session.
    driver: Child,
    /// The port that the driver chose (`--port=0`).
    port: u16,
    /// The id of the WebDriver session; empty until it is made.
    session: String,
    /// The browser's profile, so that no test sees what another one stored.
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts the driver and a session. `None` without [`DRIVER`].
    pub(crate) fn open() -> Option<Self> {
        let Ok(driver) = std::env::var(DRIVER) else {
            // Past the harness, which hides what a passing test prints.
            let line =
                format!("left out: the control center in a browser needs {DRIVER} (./test)\n");
            let _unseen = std::io::stderr().write_all(line.as_bytes());
            return None;
        };
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = said.find_map(|line| {
            let line = line.unwrap();
            let port = line.split_once("started successfully on port ")?.1;
            port.trim_end_matches('.').parse().ok()
        });
        // Later output is not needed, but must not fill the pipe.
        std::thread::spawn(move || said.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self {
            driver,
            port: port.unwrap(),
            session: String::new(),
            _profile: profile,
        };
        let folder = format!("--user-data-dir={}", browser._profile.path().display());
        let args = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            &folder,
        ];
        let chrome = json!({"goog:chromeOptions": {"args": args}});
        let wanted = json!({"capabilities": {"alwaysMatch": chrome}});
        let session = browser.call("POST", "/session", &wanted);
        let id = session["sessionId"].as_str();
        browser.session = id.unwrap_or_else(|| panic!("no session: {session}")).into();
        Some(browser)
    }

    /// One WebDriver call; returns its value.
    ///
    /// `method` and `path` are those of the WebDriver protocol. An error of the driver comes as a
    /// value with a field `error`, and the caller checks for it.
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = body.to_string();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
             Content-Type: application/json\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        // chromedriver keeps the connection open, so the length alone tells where the body ends.
        let mut stream = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(told) = line.strip_prefix("content-length:") {
                length = told.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let mut answer: Value = serde_json::from_slice(&body).unwrap();
        answer["value"].take()
    }

    /// A command of this session, such as `url` or `execute/sync`.
    pub(crate) fn command(&self, name: &str, body: &Value) -> Value {
        let path = format!("/session/{}/{name}", self.session);
        self.call("POST", &path, body)
    }

    /// Runs a script in the page and returns its result.
    ///
    /// The script is the body of a function; its `return` is the result. The test fails if the
    /// script throws.
    #[track_caller]
    pub(crate) fn js(&self, script: &str) -> Value {
        let value = self.command("execute/sync", &json!({"script": script, "args": []}));
        assert!(value["error"].is_null(), "{script}: {value}");
        value
    }

    /// A command of the Chrome DevTools protocol, which emulates the device and its settings.
    pub(crate) fn devtools(&self, command: &str, parameters: Value) {
        let body = json!({"cmd": command, "params": parameters});
        let value = self.command("goog/cdp/execute", &body);
        assert!(value["error"].is_null(), "{command}: {value}");
    }

    /// The visible text of the page.
    pub(crate) fn text(&self) -> String {
        let text = self.js("return document.body.innerText");
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page shows all of `parts`, and fails after [`PATIENCE`] with the whole text.
    /// The page updates once a second, so a text may take a moment.
    #[track_caller]
    pub(crate) fn sees(&self, parts: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.text();
            let missing = parts.iter().find(|part| !text.contains(**part));
            let Some(missing) = missing else { return };
            assert!(Instant::now() < deadline, "no `{missing}` in:\n{text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the page does not show this any more.
    #[track_caller]
    pub(crate) fn sees_no(&self, part: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.text().contains(part) {
            assert!(
                Instant::now() < deadline,
                "`{part}` stays in:\n{}",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the page has this title.
    #[track_caller]
    pub(crate) fn is_titled(&self, title: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.js("return document.title");
            if found == title {
                return;
            }
            assert!(Instant::now() < deadline, "the title is {found}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Goes to an address. An address of the same page with another part after `#` loads nothing
    /// anew, so a blank page comes between.
    pub(crate) fn go(&self, url: &str) {
        self.command("url", &json!({"url": "about:blank"}));
        self.command("url", &json!({"url": url}));
    }

    /// Shows the page as on a screen of this width in px, in this theme (`light` or `dark`).
    pub(crate) fn look_as(&self, width: u32, theme: &str) {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1,
                          "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", size);
        let theme = json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
        self.devtools("Emulation.setEmulatedMedia", theme);
    }

    /// Writes a picture of the whole page (PNG).
    pub(crate) fn picture(&self, file: &Path) {
        let height = self.js("return Math.min(4000, document.documentElement.scrollHeight)");
        let width = self.js("return innerWidth");
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let body = json!({"cmd": "Page.captureScreenshot",
                          "params": {"captureBeyondViewport": true, "clip": clip}});
        let value = self.command("goog/cdp/execute", &body);
        let data = value["data"].as_str().unwrap();
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes.unwrap()).unwrap();
    }

    /// What axe-core finds wrong with the page for people who use it otherwise than by eye and
    /// mouse. Empty when nothing is wrong.
    pub(crate) fn inaccessible(&self) -> Vec<String> {
        let script = format!(
            "{AXE}; const done = arguments[arguments.length - 1];
             axe.run().then((it) => done(it.violations.map((one) =>
               one.id + ': ' + one.nodes.map((node) => node.html).join(' | '))),
               (error) => done([String(error)]));"
        );
        let found = self.command("execute/async", &json!({"script": script, "args": []}));
        let found = found.as_array().unwrap_or_else(|| panic!("axe: {found}"));
        found
            .iter()
            .map(|it| it.as_str().unwrap().to_owned())
            .collect()
    }

    /// Clicks the first visible button with this text.
    #[track_caller]
    pub(crate) fn click(&self, text: &str) {
        let script = format!(
            "const all = [...document.querySelectorAll('button, a')].filter((it) =>
               it.textContent.trim() === {text} && it.getClientRects().length > 0 && !it.disabled);
             const shown = document.querySelector('dialog[open]');
             const one = all.find((it) => !shown || shown.contains(it));
             if (one) one.click();
             return Boolean(one);",
            text = json!(text)
        );
        assert_eq!(
            self.js(&script),
            true,
            "no button `{text}` in:\n{}",
            self.text()
        );
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            let path = format!("/session/{}", self.session);
            let _closed = self.call("DELETE", &path, &json!({}));
        }
        let _ended = self.driver.kill();
        let _reaped = self.driver.wait();
    }
}
