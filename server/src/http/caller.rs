//! Who sent the request, as far as the token says; and from where.

use salvo::http::header::USER_AGENT;
use salvo::{Depot, Request};
use std::net::IpAddr;

use super::problem::{Code, Problem, Result};
pub use crate::auth::Caller;
use crate::store::Origin;

/// As much of it as is kept.
const USER_AGENT_MAX_CHARS: usize = 200;

impl Caller {
    /// The caller of this request; every route behind the authentication hoop has one.
    pub fn of(depot: &Depot) -> Result<&Caller> {
        depot
            .get_typed::<Caller>()
            .map_err(|_| Problem::new(Code::Unauthorized, "Missing authentication token"))
    }
}

/// The client's address: the peer, or behind a trusted proxy what that proxy saw, which is the last entry of
/// `X-Forwarded-For` (the earlier ones are whatever the client wrote).
pub(super) fn address(req: &Request, trust_proxy_headers: bool) -> Option<IpAddr> {
    let forwarded = || {
        let last = req.headers().get_all("x-forwarded-for").iter().next_back()?;
        parse_address(last.to_str().ok()?.rsplit(',').next()?.trim())
    };
    let peer = || req.remote_addr().clone().into_std().map(|a| a.ip());
    match trust_proxy_headers {
        true => forwarded().or_else(peer),
        false => peer(),
    }
}

/// Where a sign-in comes from, for its owner to recognise it.
pub(super) fn origin(req: &Request, trust_proxy_headers: bool) -> Origin {
    let user_agent = req.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
    Origin {
        user_agent: user_agent.map(|text| text.chars().take(USER_AGENT_MAX_CHARS).collect()),
        address: address(req, trust_proxy_headers).map(|address| address.to_string()),
    }
}

/// An address with or without a port.
fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|a| a.ip()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trusted_proxy_names_the_client() {
        let mut req = Request::new();
        *req.remote_addr_mut() = "192.0.2.1:5000".parse::<std::net::SocketAddr>().unwrap().into();
        req.headers_mut()
            .append("x-forwarded-for", "198.51.100.7, 203.0.113.9".parse().unwrap());
        assert_eq!(address(&req, false), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(address(&req, true), Some("203.0.113.9".parse().unwrap()));
        req.headers_mut()
            .append("x-forwarded-for", "[2001:db8::1]:443".parse().unwrap());
        assert_eq!(address(&req, true), Some("2001:db8::1".parse().unwrap()));
        req.headers_mut().append("x-forwarded-for", "nonsense".parse().unwrap());
        assert_eq!(address(&req, true), Some("192.0.2.1".parse().unwrap()));
    }
}
