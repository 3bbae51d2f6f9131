//! `bcbridge hooks verify`: a captured request, checked as the receiver checks it, but to the end.
//!
//! It says of each part whether it is right, and of a wrong one why, as far as that can be told: it may try what a
//! capture commonly breaks. It sends nothing, stores nothing, and writes no secret and no header's value.

use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{FAILED, Output, write};
use crate::app::stores;
use crate::cli::ConfigArg;
use crate::config::{Settings, StoreSettings};
use crate::receiver::verify::{MAX_AHEAD_S, Refusal, Verified, Window};
use crate::receiver::{self, Examination, Limits};
use crate::telemetry::{Clock as _, SystemClock};

/// A captured head is a few kilobytes; what is larger is another file.
const MAX_HEAD_BYTES: u64 = 64 * 1024;
/// A callback's body is under a kilobyte, and the receiver takes 64; a little more is read to say so.
const MAX_BODY_BYTES: u64 = 1024 * 1024;

/// The request, and whose it should be.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct VerifyArgs {
    #[command(flatten)]
    pub(super) config: ConfigArg,
    /// The store that it was sent for, by its name in the settings. Not needed where there is one.
    #[arg(long, value_name = "NAME")]
    store: Option<String>,
    /// A file with the request's headers, one `name: value` a line.
    #[arg(long, value_name = "FILE")]
    headers: Option<PathBuf>,
    /// One header; may be given many times.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// The file with the body, byte for byte; - for standard input.
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// When the request arrived, in seconds since 1970. Default: now.
    #[arg(long, value_name = "SECONDS")]
    at: Option<i64>,
}

/// A request as it was captured.
#[derive(Debug)]
pub struct Captured {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
    /// When it arrived, in seconds since 1970.
    pub at_s: i64,
}

pub(super) fn run(
    args: &VerifyArgs,
    settings: &Settings,
    output: Output,
    out: &mut impl Write,
) -> Result<u8> {
    let store = chosen(settings, args.store.as_deref())?;
    let mut lines = match &args.headers {
        Some(file) => String::from_utf8(read(file, MAX_HEAD_BYTES)?).context("the headers are not text")?,
        None => String::new(),
    };
    for header in &args.header {
        lines.push('\n');
        lines.push_str(header);
    }
    let captured = Captured {
        headers: parse_headers(&lines)?,
        body: read(&args.body, MAX_BODY_BYTES)?,
        at_s: args.at.unwrap_or_else(|| SystemClock.wall_ms().div_euclid(1000)),
    };
    verify(settings, store, &captured, output, out)
}

fn chosen<'s>(settings: &'s Settings, name: Option<&str>) -> Result<&'s StoreSettings> {
    let names = || settings.stores.iter().map(|store| store.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, settings.stores.as_slice()) {
        (None, [one]) => Ok(one),
        (None, _) => bail!("there are several stores: name one of them with --store: {}", names()),
        (Some(name), _) => settings
            .store(name)
            .with_context(|| format!("there is no store {name:?}; there are: {}", names())),
    }
}

fn read(file: &Path, most: u64) -> Result<Vec<u8>> {
    let shown = file.display();
    let mut bytes = Vec::new();
    // One byte more tells that there is more.
    let result = if file == Path::new("-") {
        std::io::stdin().take(most + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
    };
    result.with_context(|| format!("reading {shown}"))?;
    if bytes.len() as u64 > most {
        bail!("{shown} is larger than {most} bytes: no request of BigCommerce's is");
    }
    Ok(bytes)
}

/// Lines as tools write them: a request line, `>` of curl's and HTTP/2's own headers are passed over.
fn parse_headers(lines: &str) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines.lines() {
        let line = line.strip_prefix("> ").unwrap_or(line).trim();
        if line.is_empty() || line.starts_with(':') || line.contains(" HTTP/") {
            continue;
        }
        let (name, value) = line.split_once(':').context("a header is not written as `name: value`")?;
        let name: HeaderName = name.trim().parse().context("a header's name is none")?;
        let value = HeaderValue::from_str(value.trim())
            .with_context(|| format!("the value of header {name} is none (it is hidden)"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Judges the request and writes a row for each part of it; exit code 1 when a part is wrong.
///
/// # Errors
/// The store's settings are not to be used, or the output not be written.
pub fn verify(
    settings: &Settings,
    store: &StoreSettings,
    captured: &Captured,
    output: Output,
    out: &mut impl Write,
) -> Result<u8> {
    let examined = examine(settings, store, captured, &captured.body)?;
    let mut rows = vec![size(captured)];
    rows.extend(signature(settings, store, captured, &examined)?);
    for (name, is_right) in &examined.headers {
        let why = match captured.headers.get_all(name).iter().count() {
            _ if *is_right => "",
            0 => "it was not sent: the hook is from before it was set, see hooks plan",
            1 => "it has another value than the settings list",
            _ => "it was sent more than once",
        };
        rows.push(row(&format!("header {name}"), *is_right, why));
    }
    rows.push(owner(settings, store, captured, &examined)?);
    let is_wrong = rows.iter().any(|row| row["result"] == "wrong");
    write(output, &["part", "result", "why"], &rows, out)?;
    Ok(if is_wrong { FAILED } else { 0 })
}

fn examine(
    settings: &Settings,
    store: &StoreSettings,
    captured: &Captured,
    body: &[u8],
) -> Result<Examination> {
    let max_behind_s = i64::try_from(settings.receiver.past_window.as_secs()).unwrap_or(i64::MAX);
    let window = Window { now_s: captured.at_s, max_behind_s };
    let auth = stores::auth(store)?;
    let examined = receiver::examine(&auth, &captured.headers, body, window);
    examined.with_context(|| format!("the settings of store {:?}", store.name))
}

fn row(part: &str, is_right: bool, why: &str) -> Value {
    json!({ "part": part, "result": if is_right { "right" } else { "wrong" }, "why": why })
}

fn unchecked(part: &str, why: &str) -> Value {
    json!({ "part": part, "result": "not checked", "why": why })
}

fn size(captured: &Captured) -> Value {
    let (found, most) = (captured.body.len(), Limits::default().body_bytes);
    row("size", found <= most, &format!("{found} bytes of body, at most {most} are taken"))
}

/// The signature and the timestamp under it.
fn signature(
    settings: &Settings,
    store: &StoreSettings,
    captured: &Captured,
    examined: &Examination,
) -> Result<[Value; 2]> {
    Ok(match &examined.signature {
        Ok(verified) => match verified.timestamp() {
            Some(_) => [row("signature", true, ""), row("timestamp", true, &age(captured))],
            None => {
                let why = "the store's `signature` setting lets it through unsigned";
                [unchecked("signature", why), unchecked("timestamp", why)]
            }
        },
        // These are said of well-signed requests only.
        Err(why @ (Refusal::TooOld | Refusal::InFuture)) => {
            let window = settings.receiver.past_window.as_secs();
            let allowed = format!(
                "{why}: {}; at most {window} s old and {MAX_AHEAD_S} s ahead are taken",
                age(captured)
            );
            [row("signature", true, ""), row("timestamp", false, &allowed)]
        }
        Err(Refusal::NoMatch) => {
            let why = guess(settings, store, captured)?;
            [row("signature", false, &why), unchecked("timestamp", "the signature is wrong")]
        }
        Err(why @ Refusal::BadTimestamp) => {
            [unchecked("signature", "the timestamp is wrong"), row("timestamp", false, &why.to_string())]
        }
        Err(why @ (Refusal::MissingHeader | Refusal::RepeatedHeader)) => {
            let odd = ["webhook-id", "webhook-timestamp", "webhook-signature"]
                .into_iter()
                .filter(|name| captured.headers.get_all(*name).iter().count() != 1);
            let why = format!("{why}: {}", odd.collect::<Vec<_>>().join(", "));
            [row("signature", false, &why), unchecked("timestamp", "the signature is wrong")]
        }
        Err(why) => {
            [row("signature", false, &why.to_string()), unchecked("timestamp", "the signature is wrong")]
        }
    })
}

fn age(captured: &Captured) -> String {
    let sent =
        captured.headers.get("webhook-timestamp").and_then(|value| value.to_str().ok()?.parse::<i64>().ok());
    match sent.map(|sent| captured.at_s.saturating_sub(sent)) {
        Some(age) if age >= 0 => format!("it was {age} s old"),
        Some(ahead) => format!("it was {} s ahead", ahead.unsigned_abs()),
        None => String::new(),
    }
}

/// Why no signature matches, if one of the common reasons fits.
fn guess(settings: &Settings, store: &StoreSettings, captured: &Captured) -> Result<String> {
    let is_signed = |result: Result<Verified, Refusal>| match result {
        Ok(verified) => verified.event_id().is_some(),
        Err(why) => matches!(why, Refusal::TooOld | Refusal::InFuture),
    };
    let trimmed = captured.body.trim_ascii_end();
    if trimmed.len() < captured.body.len()
        && is_signed(examine(settings, store, captured, trimmed)?.signature)
    {
        return Ok(
            "it matches without the line break at the end of the body: the capture added it".to_owned()
        );
    }
    for other in settings.stores.iter().filter(|other| other.name != store.name) {
        if is_signed(examine(settings, other, captured, &captured.body)?.signature) {
            return Ok(format!("it matches a client secret of store {:?}", other.name));
        }
    }
    let secrets = store.client_secrets.len();
    Ok(format!(
        "it matches no client secret of the store ({secrets} tried): another app's hook, or the body was changed"
    ))
}

/// Whether the body names this store.
fn owner(
    settings: &Settings,
    store: &StoreSettings,
    captured: &Captured,
    examined: &Examination,
) -> Result<Value> {
    if examined.is_anothers {
        for other in settings.stores.iter().filter(|other| other.name != store.name) {
            if !examine(settings, other, captured, &captured.body)?.is_anothers {
                let why = format!("the body names the store that is called {:?} here", other.name);
                return Ok(row("store", false, &why));
            }
        }
        return Ok(row("store", false, "the body's producer names another store than store_hash"));
    }
    let body: Option<Value> = serde_json::from_slice(&captured.body).ok();
    Ok(match body.as_ref().map(|body| body["producer"].as_str()) {
        Some(Some(_)) => row("store", true, ""),
        Some(None) => {
            unchecked("store", "the body names no producer; such a callback is taken, and set aside later")
        }
        None => unchecked("store", "the body is not JSON; such a callback is taken, and set aside later"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_tools_write_them() {
        let text = "POST /webhooks/main HTTP/1.1\r\nWebhook-Id: msg_1\r\n> webhook-timestamp: 17\n:path: /x\n\nX-Key:a:b";
        let headers = parse_headers(text).unwrap();
        assert_eq!(headers.len(), 3);
        assert_eq!(
            (&headers["webhook-id"], &headers["webhook-timestamp"], &headers["x-key"]),
            (
                &HeaderValue::from_static("msg_1"),
                &HeaderValue::from_static("17"),
                &HeaderValue::from_static("a:b"),
            )
        );
        assert!(parse_headers("hush").unwrap_err().to_string().contains("name: value"));
        assert!(!format!("{:#}", parse_headers("x: hu\u{1}sh").unwrap_err()).contains("hu"));
    }
}
