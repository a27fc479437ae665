//! Which pages a browser may call from. A page's script can connect to anything that its reader's machine
//! reaches, also to a server that trusts that machine; the header `Origin` says which page it was, and no script
//! can change it. Clients that are no browsers send none.

use axum::http::{HeaderMap, HeaderValue, header};

/// Origins that may call besides the server's own.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct Origins {
    all: bool,
    /// Whether callers prove who they are, so that a page gets nowhere without a token.
    guarded: bool,
    /// Scheme, host and port, in lower case.
    listed: Vec<String>,
}

impl Origins {
    /// From the setting `allowed_origins`; `guarded` where callers prove who they are.
    pub(in crate::server) fn new(text: &str, guarded: bool) -> Self {
        let words = || text.split(',').map(str::trim).filter(|word| !word.is_empty());
        Self {
            guarded,
            all: words().any(|word| word == "*"),
            listed: words().map(str::to_ascii_lowercase).collect(),
        }
    }

    /// Whether a request with these headers comes from a page that may call, or from no page.
    pub(in crate::server) fn admit(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else {
            return true;
        };
        let Ok(origin) = origin.to_str().map(str::to_ascii_lowercase) else {
            return false;
        };
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let own = origin.split_once("://").is_some_and(|(_, from)| {
            host.is_some_and(|host| host.eq_ignore_ascii_case(from))
                && (self.guarded || is_name_of_ours(from))
        });
        own || self.lists(&origin)
    }

    /// Whether a request with these headers calls this server by a name that is known to be its own. Where callers
    /// prove who they are, a page that has made another one point here has no token.
    pub(in crate::server) fn knows_host(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let Some(host) = host.map(str::to_ascii_lowercase) else {
            return false;
        };
        let named =
            |origin: &String| origin.split_once("://").is_some_and(|(_, name)| name == host);
        self.guarded || self.all || is_name_of_ours(&host) || self.listed.iter().any(named)
    }

    /// Whether the settings name it.
    pub(in crate::server) fn lists(&self, origin: &str) -> bool {
        self.all || self.listed.iter().any(|listed| *listed == origin)
    }

    /// Whether the settings name what a browser calls its page's origin.
    pub(in crate::server) fn lists_header(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.lists(&origin.to_ascii_lowercase()))
    }
}

/// What a page of ours can be called by without a setting: this machine, or an address. A name could be anybody's
/// who lets it point here (DNS rebinding), and would be Host and Origin both.
fn is_name_of_ours(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(allowed: &str, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        Origins::new(allowed, false).admit(&headers)
    }

    #[test]
    fn who_is_no_browser_may_call_and_so_may_pages_of_this_server() {
        assert!(admits("", "emotion.example", None));
        for own in ["localhost:9464", "127.0.0.1:9464", "[::1]:9464", "10.0.0.7"] {
            assert!(admits("", own, Some(&format!("http://{own}"))), "{own}");
        }
    }

    #[test]
    fn other_pages_may_call_only_if_they_are_listed() {
        assert!(!admits("", "localhost:9464", Some("https://evil.example")));
        assert!(!admits("", "localhost:9464", Some("http://localhost:3000")));
        assert!(!admits("", "localhost:9464", Some("null")));
        // A name that somebody has made point here.
        assert!(!admits("", "evil.example:9464", Some("http://evil.example:9464")));
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "emotion.example".parse().unwrap());
        headers.insert(header::ORIGIN, "https://emotion.example".parse().unwrap());
        assert!(Origins::new("", true).admit(&headers), "it has no token");
        let listed = "https://app.example, http://localhost:3000";
        assert!(admits(listed, "localhost:9464", Some("http://localhost:3000")));
        assert!(admits(listed, "emotion.example", Some("https://APP.example")));
        assert!(!admits(listed, "emotion.example", Some("http://app.example")));
        assert!(admits("*", "emotion.example", Some("https://any.example")));
    }

    #[test]
    fn a_server_that_asks_nobody_who_they_are_is_called_by_its_own_names() {
        let knows = |allowed: &str, guarded, host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            Origins::new(allowed, guarded).knows_host(&headers)
        };
        for own in ["localhost:9464", "LOCALHOST", "127.0.0.1:9464", "[::1]:9464", "10.0.0.7"] {
            assert!(knows("", false, own), "{own}");
        }
        assert!(!knows("", false, "evil.example:9464") && knows("", true, "emotion.example"));
        let proxy = "https://emotion.example";
        assert!(knows(proxy, false, "emotion.example") && knows("*", false, "any.example"));
        assert!(!knows(proxy, false, "emotion.example.evil") && !knows(proxy, false, "https"));
        assert!(!Origins::new("", false).knows_host(&HeaderMap::new()));
    }
}
