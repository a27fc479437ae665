//! The console: pages for people, in the binary.
//!
//! In: requests for the files of the folder `console`. Out: the files, as they stand there. They hold nobody's data:
//! what they show they ask the service for, as whoever looks, see [`super::connect`]. There is no framework and no build;
//! what is read in the repository is what runs in the browser.
//!
//! Always: a page runs no script and takes no style but these files', talks to this server alone, and stands in no page of
//! others. It is asked for anew each time, and sent only where it has changed: pages and server are of one version.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rust_embed::{EmbeddedFile, RustEmbed};

/// What pages may do. Styles that scripts set on single elements are no inline styles in this sense.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      media-src 'self' blob:; worker-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

#[derive(RustEmbed)]
#[folder = "console/"]
struct Files;

/// The paths.
pub(super) fn routes() -> Router {
    // Relative: a proxy may have put a path in front.
    Router::new()
        .route("/", get(async || to("console/")))
        .route("/console", get(async || to("console/")))
        .route("/console/", get(async |headers: HeaderMap| file("index.html", &headers)))
        .route(
            "/console/{*path}",
            get(async |Path(path): Path<String>, headers: HeaderMap| file(&path, &headers)),
        )
}

fn to(place: &'static str) -> Response {
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, place)]).into_response()
}

/// What a browser takes a file for.
fn kind(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

fn file(path: &str, headers: &HeaderMap) -> Response {
    let Some(EmbeddedFile { data, metadata }) = Files::get(path) else {
        return (StatusCode::NOT_FOUND, "there is no such page; the console begins at /console/\n")
            .into_response();
    };
    let tag = format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(metadata.sha256_hash()));
    let mut answer = if headers.get(header::IF_NONE_MATCH).is_some_and(|known| *known == *tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, kind(path))], data).into_response()
    };
    let answered = answer.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        answered.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answered.insert(header::ETAG, tag);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_a_kind_that_browsers_run() {
        let mut count = 0;
        for path in Files::iter() {
            assert_ne!(kind(&path), "application/octet-stream", "{path}");
            count += 1;
        }
        assert!(count > 10, "{count}");
    }

    #[test]
    fn a_file_is_sent_once_and_confined() {
        let first = file("index.html", &HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        let policy = first.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"));
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        assert_eq!(file("index.html", &headers).status(), StatusCode::NOT_MODIFIED);
    }

    #[test]
    fn nothing_outside_of_the_folder_is_served() {
        for path in
            ["", "../Cargo.toml", "/etc/passwd", "lib", "lib/../../Cargo.toml", "nothing.html"]
        {
            assert_eq!(file(path, &HeaderMap::new()).status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
