//! Who sent the request, as far as the token says; and from where.

use salvo::{Depot, Request};
use std::net::IpAddr;

use super::problem::{Code, Problem, Result};
pub use crate::auth::Caller;

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
