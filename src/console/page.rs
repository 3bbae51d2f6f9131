//! The page for people: one file without data, which fetches what it shows.
//!
//! It is the same for everyone, so it can be given to a browser that has not shown a token yet; the numbers come from
//! `/readyz`, `/metrics` and `/api/status` under the token that the person types in. It loads nothing from elsewhere,
//! and its content policy allows only the one script and the one style sheet it was built with, by their hashes.

use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use sha2::{Digest as _, Sha256};

const FRAME: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("page.css");

/// The page, put together once.
#[derive(Debug)]
pub(super) struct Page {
    html: String,
    policy: HeaderValue,
}

impl Page {
    pub(super) fn new() -> Self {
        let html = FRAME
            .replace("/*style*/", STYLE)
            .replace("/*script*/", SCRIPT)
            .replace("{version}", env!("CARGO_PKG_VERSION"));
        let hash = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
        let policy = format!(
            "default-src 'none'; connect-src 'self'; script-src 'sha256-{}'; style-src 'sha256-{}'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(SCRIPT),
            hash(STYLE)
        );
        let policy = HeaderValue::try_from(policy).expect("base64 and the words above are visible ASCII");
        Self { html, policy }
    }

    pub(super) fn reply(&self) -> Response {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        ([(CONTENT_TYPE, html), (CONTENT_SECURITY_POLICY, self.policy.clone())], self.html.clone())
            .into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_from_elsewhere_and_holds_no_loose_placeholder() {
        let page = Page::new();
        for word in [
            "http://",
            "https://",
            "//cdn",
            "src=",
            "@import",
            "url(",
            "/*style*/",
            "/*script*/",
            "{version}",
        ] {
            assert!(!page.html.contains(word), "{word}");
        }
    }

    #[test]
    fn the_policy_names_exactly_what_stands_between_the_tags() {
        let page = Page::new();
        for tag in ["script", "style"] {
            let (_, rest) = page.html.split_once(&format!("<{tag}>")).unwrap();
            let (text, _) = rest.split_once(&format!("</{tag}>")).unwrap();
            let hash = STANDARD.encode(Sha256::digest(text.as_bytes()));
            assert!(page.policy.to_str().unwrap().contains(&format!("{tag}-src 'sha256-{hash}'")));
        }
    }

    #[test]
    fn the_script_writes_text_and_never_markup() {
        for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!SCRIPT.contains(word), "{word}");
        }
    }
}
