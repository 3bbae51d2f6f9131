//! `receiver:` and `console:`: the two listeners.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::defaults;
use super::mistake::Mistake;
use super::section::{Reading, Section, quoted};
use super::settings::{Cidr, ConsoleSettings, ReceiverSettings, SpoolSettings};
use super::stores::url_help;
use super::tree::{Node, Place, Value};
use super::values;

pub(super) const KEYS: &[&str] = &[
    "listen",
    "public_url",
    "past_window",
    "max_connections",
    "max_connections_per_peer",
    "trusted_proxies",
    "spool",
];
pub(super) const SPOOL_KEYS: &[&str] = &["dir", "max_bytes"];
pub(super) const CONSOLE_KEYS: &[&str] = &["listen", "token", "token_file"];

const LISTEN: &str = "an address and a port, such as 0.0.0.0:8080 or [::1]:8080";
/// Each connection costs a task and some buffers; more than this on one process is an attack or a mistake.
const MAX_CONNECTIONS: u64 = 65_536;
/// A token of fewer characters can be guessed.
const SHORT_TOKEN_CHARS: usize = 16;
/// One segment of the spool must fit.
const MIN_SPOOL_BYTES: u64 = 1 << 20;

pub(super) fn read(cx: &mut Reading<'_>, root: &Section<'_>) -> ReceiverSettings {
    let nothing = Node { at: Place::default(), value: Value::Null };
    let section = Section::open(cx, root.get("receiver").unwrap_or(&nothing), "receiver", KEYS);
    let hour = Duration::from_secs(3600);
    let listen = section.parsed(cx, "listen", LISTEN, values::listen);
    let public_url = public_url(cx, &section);
    let past_window = section.duration(cx, "past_window", Duration::from_secs(60)..=hour * 24 * 30);
    let all = section.whole(cx, "max_connections", 1..=MAX_CONNECTIONS).and_then(|n| u32::try_from(n).ok());
    let peer = section
        .whole(cx, "max_connections_per_peer", 1..=MAX_CONNECTIONS)
        .and_then(|n| u32::try_from(n).ok());
    let max_connections = all.unwrap_or(defaults::MAX_CONNECTIONS);
    ReceiverSettings {
        listen: listen.unwrap_or_else(|| address(defaults::RECEIVER_LISTEN)),
        public_url,
        past_window: past_window.unwrap_or(defaults::PAST_WINDOW),
        max_connections,
        max_connections_per_peer: peer.unwrap_or(defaults::MAX_CONNECTIONS_PER_PEER).min(max_connections),
        trusted_proxies: trusted_proxies(cx, &section),
        spool: spool(cx, &section),
    }
}

fn public_url(cx: &mut Reading<'_>, section: &Section<'_>) -> Option<url::Url> {
    let text = section.text(cx, "public_url").filter(|text| !text.is_empty());
    let Some(text) = text else {
        cx.warnings.push(
            "receiver.public_url is not set: webhooks cannot be created, only received by hooks that exist"
                .to_owned(),
        );
        return None;
    };
    let node = section.get("public_url")?;
    match values::https(&text, true) {
        Ok(url) => Some(url),
        Err(bad) => {
            let message = format!("`receiver.public_url` {}", url_help(bad));
            let allowed = "https://host[:port][/path]; http only for this machine";
            cx.wrong(Mistake::new(&node.at, message, allowed).help("BigCommerce calls https addresses only"));
            None
        }
    }
}

fn trusted_proxies(cx: &mut Reading<'_>, section: &Section<'_>) -> Vec<Cidr> {
    let mut blocks = Vec::new();
    for (text, node) in section.texts(cx, "trusted_proxies").unwrap_or_default() {
        match values::cidr(&text) {
            Some(block) => blocks.push(block),
            None => {
                let message = format!("{} in `receiver.trusted_proxies` is no address block", quoted(node));
                cx.wrong(Mistake::new(&node.at, message, "10.0.0.0/8, fd00::/8 or one address"));
            }
        }
    }
    blocks
}

fn spool(cx: &mut Reading<'_>, receiver: &Section<'_>) -> SpoolSettings {
    let nothing = Node { at: Place::default(), value: Value::Null };
    let section = Section::open(cx, receiver.get("spool").unwrap_or(&nothing), "receiver.spool", SPOOL_KEYS);
    let dir =
        section.parsed(cx, "dir", "a directory", |text| (!text.is_empty()).then(|| PathBuf::from(text)));
    let max_bytes =
        section.parsed(cx, "max_bytes", "a size of 1MiB or more, such as 512MiB or 10GiB", |text| {
            values::bytes(text).filter(|size| *size >= MIN_SPOOL_BYTES)
        });
    if receiver.has("spool") {
        let text = "accepted, not active in this release: callbacks are answered 503 while Kafka is down";
        cx.warnings.push(format!("receiver.spool: {text}"));
    }
    SpoolSettings {
        dir: dir.unwrap_or_else(|| PathBuf::from(defaults::SPOOL_DIR)),
        max_bytes: max_bytes.unwrap_or(defaults::SPOOL_MAX_BYTES),
    }
}

/// `console:`. Without a token only a loopback address is allowed.
pub(super) fn read_console(cx: &mut Reading<'_>, root: &Section<'_>) -> ConsoleSettings {
    let nothing = Node { at: root.at.clone(), value: Value::Null };
    let section = Section::open(cx, root.get("console").unwrap_or(&nothing), "console", CONSOLE_KEYS);
    let listen = section.parsed(cx, "listen", LISTEN, values::listen);
    let listen = listen.unwrap_or_else(|| address(defaults::CONSOLE_LISTEN));
    let token = section.secret(cx, "token").filter(|token| !token.expose_secret().is_empty());
    if token.as_ref().is_some_and(|token| token.expose_secret().chars().count() < SHORT_TOKEN_CHARS) {
        cx.warnings.push(format!(
            "console.token has fewer than {SHORT_TOKEN_CHARS} characters and can be guessed: make one with `openssl rand -hex 32`"
        ));
    }
    if token.is_none() && !listen.ip().is_loopback() {
        let at = section.get("listen").map_or(&section.at, |node| &node.at);
        let message = format!("`console.listen` is {listen} and there is no `console.token`");
        let mistake = Mistake::new(at, message, "a token, or a loopback address such as 127.0.0.1:8081");
        cx.wrong(mistake.help("set `console.token`: whoever reaches the console can replay and reload"));
    }
    ConsoleSettings { listen, token }
}

fn address(text: &str) -> std::net::SocketAddr {
    text.parse().expect("a default address parses: a test reads both")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_addresses_parse() {
        assert_eq!(address(defaults::RECEIVER_LISTEN).port(), 8080);
        assert!(address(defaults::CONSOLE_LISTEN).ip().is_loopback());
    }
}
