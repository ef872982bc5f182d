//! Which addresses may be connected to (against server-side request forgery).
//!
//! The check sits where names become addresses, inside the client, so that what was checked is what is connected to:
//! a name that changes its mind between two look-ups (DNS rebinding) gains nothing. URLs with an address instead of
//! a name never reach the resolver; [`address_allowed`] checks them.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use url::{Host, Url};

/// Resolves names to public addresses only.
pub(super) struct PublicOnly {
    allow_private: bool,
}

impl PublicOnly {
    pub(super) fn new(allow_private: bool) -> Self {
        PublicOnly { allow_private }
    }
}

/// The name has addresses, and none of them is public.
#[derive(Debug, thiserror::Error)]
#[error("the host has no public address")]
pub(super) struct NoPublicAddress;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|a| allow_private || is_public(a.ip())).collect();
            if public.is_empty() {
                return Err(NoPublicAddress.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// False when the URL names a non-public address outright.
pub(super) fn address_allowed(url: &Url, allow_private: bool) -> bool {
    allow_private
        || match url.host() {
            Some(Host::Ipv4(ip)) => is_public(ip.into()),
            Some(Host::Ipv6(ip)) => is_public(ip.into()),
            Some(Host::Domain(_)) => true,
            None => false,
        }
}

/// False when a URL that a client gave us to pass on names this machine or a private network outright. What a name
/// resolves to is the business of whoever fetches it; ours goes through [`PublicOnly`].
pub fn names_public_host(url: &Url, allow_private: bool) -> bool {
    let is_local_name = |name: &str| {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        ["localhost", "local", "internal"].iter().any(|local| {
            name.strip_suffix(local)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    };
    let local = matches!(url.host(), Some(Host::Domain(name)) if is_local_name(name));
    allow_private || (address_allowed(url, false) && !local)
}

/// True for addresses of the public internet.
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = a == 0
        || ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_multicast()
        || a >= 240
        // Carrier-grade NAT, protocol assignments, documentation, relay anycast, benchmarks.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113);
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    if let Some(v4) = ip.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    match s {
        // NAT64 and 6to4 carry an IPv4 address, which is where the packet ends up.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Teredo and other protocol assignments (2001::/23), documentation.
        [0x2001, b, ..] if b < 0x200 || b == 0xdb8 => false,
        [0x3fff, b, ..] if b < 0x1000 => false,
        // Only 2000::/3 is given out; this leaves out loopback, link-local, unique local and multicast.
        [a, ..] => (0x2000..0x4000).contains(&a),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_clients_name_no_private_host() {
        let names = |url: &str, allow| names_public_host(&Url::parse(url).unwrap(), allow);
        for private in [
            "http://localhost:8000/a.png",
            "http://LOCALHOST./a.png",
            "http://metadata.google.internal/",
            "http://printer.local/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://[::ffff:127.0.0.1]/",
            "http://169.254.169.254/",
        ] {
            assert!(!names(private, false), "{private}");
            assert!(names(private, true), "{private}");
        }
        for public in [
            "https://example.com/",
            "https://notlocalhost.com/",
            "https://international.example/",
            "http://8.8.8.8/",
        ] {
            assert!(names(public, false), "{public}");
        }
    }

    #[test]
    fn only_the_public_internet() {
        let refused = [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.100.100.200",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.192",
            "192.0.2.1",
            "203.0.113.9",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "4000::1",
        ];
        for ip in refused {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn odd_spellings_of_an_address() {
        for url in [
            "http://127.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://[::ffff:a00:1]/",
            "http://0/",
        ] {
            assert!(!address_allowed(&Url::parse(url).unwrap(), false), "{url}");
            assert!(address_allowed(&Url::parse(url).unwrap(), true), "{url}");
        }
    }
}
