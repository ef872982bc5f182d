//! The one address a provider is configured with: where its requests go, and which host its manifest names.

use crate::{Fault, FaultCode};

/// A base URL, taken apart just far enough: `http(s)://host[:port][/path]`.
///
/// The host matches requests against the manifest as `host` or `host:port`, so both are made from one text here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    text: String,
    host: String,
}

impl BaseUrl {
    /// Reads a base URL; slashes at its end are dropped. The fault names `field` and says what to write.
    pub fn parse(field: &str, text: &str) -> Result<Self, Fault> {
        let fault = |rule: &str| {
            let what =
                format!("`{field}` {rule}: write http(s)://host[:port][/path], without a user, a query or a fragment");
            Fault::new(FaultCode::BadInput, what)
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| fault("has no scheme"))?;
        let own_port = match scheme {
            "https" => "443",
            "http" => "80",
            _ => return Err(fault("is neither http nor https")),
        };
        let odd = |c: char| c.is_whitespace() || c.is_control() || "@?#\\{}\"<>".contains(c);
        if rest.contains(odd) || !rest.is_ascii() {
            return Err(fault("has a character that cannot be there"));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        // The colons of an IPv6 address are inside its brackets.
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, Some(port)),
            _ => (authority, None),
        };
        let named = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if !(is_v6(name) || (!name.is_empty() && name.chars().all(named))) {
            return Err(fault("has no host that can be used"));
        }
        if port.is_some_and(|port| port.parse::<u16>().map_or(true, |number| number == 0)) {
            return Err(fault("has a port that is no number from 1 to 65535"));
        }
        let name = name.to_ascii_lowercase();
        let host = match port {
            Some(port) if port != own_port => format!("{name}:{port}"),
            _ => name,
        };
        Ok(BaseUrl {
            text: format!("{scheme}://{host}{}", path.trim_end_matches('/')),
            host,
        })
    }

    /// `host` or `host:port`, as a manifest lists it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The base URL with a path behind it. `path` begins with a slash, and what of it is not constant is
    /// [`crate::escape`]d.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }
}

/// `[::1]`.
fn is_v6(name: &str) -> bool {
    name.strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| inner.parse::<core::net::Ipv6Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_written_as_manifests_have_them() {
        for (text, host, joined) in [
            (
                "https://api.acme.example/v1/",
                "api.acme.example",
                "https://api.acme.example/v1/x",
            ),
            ("http://GPU.local:8188", "gpu.local:8188", "http://gpu.local:8188/x"),
            ("https://acme.example:443", "acme.example", "https://acme.example/x"),
            (
                "http://acme.example:443",
                "acme.example:443",
                "http://acme.example:443/x",
            ),
            ("http://[::1]:8188/", "[::1]:8188", "http://[::1]:8188/x"),
            ("http://[::1]", "[::1]", "http://[::1]/x"),
        ] {
            let base = BaseUrl::parse("base_url", text).map_err(|f| f.message);
            let base = base.as_ref().map(|b| (b.host().to_owned(), b.join("/x")));
            assert_eq!(base, Ok((host.to_owned(), joined.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_is_no_base_url_says_so() {
        for text in [
            "",
            "acme.example",
            "ftp://acme.example",
            "https://",
            "https:///v1",
            "https://me@acme.example",
            "https://acme.example?x=1",
            "https://acme.example/#x",
            "https://acme.example/{{secret:KEY}}",
            "https://acme.example:",
            "https://acme.example:0",
            "https://acme.example:99999",
            "https://[::1",
            "https://[acme]",
            "https://ac me",
            "https://b\u{fc}cher.example",
        ] {
            let fault = BaseUrl::parse("base_url", text).err();
            let fault = fault.map(|f| (f.code, f.message.contains("`base_url`")));
            assert_eq!(fault, Some((FaultCode::BadInput, true)), "{text:?}");
        }
    }
}
