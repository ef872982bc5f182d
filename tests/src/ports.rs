//! Free ports that stay free: a process that is killed must find its port again when it is restarted.
//!
//! The kernel's own choice (`bind` to port 0) comes from the range it also takes the ports of outgoing connections
//! from, so that any client may sit on the port of a server that is down for a moment. Ports below that range are taken
//! by nobody by accident.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result};

/// Where the search begins; well-known servers live below.
const LOWEST: u16 = 12_000;

/// Linux' default beginning of the range of outgoing connections.
const OUTGOING_FROM: u16 = 32_768;

/// How many ports are tried.
const TRIES: usize = 1000;

/// A port on 127.0.0.1 that nobody listens on. Somebody else may take it before the caller does, so the caller tries
/// another one when it cannot be bound.
///
/// # Errors
/// If there is none.
pub fn free_port() -> Result<u16> {
    let above = outgoing_from().filter(|&from| from > LOWEST + 1000);
    let range = LOWEST..above.unwrap_or(OUTGOING_FROM);
    (0..TRIES)
        .map(|_| range.start + random() % (range.end - range.start))
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .with_context(|| format!("no free port among {TRIES} of {range:?}"))
}

/// Where the kernel's range of outgoing connections begins.
fn outgoing_from() -> Option<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_whitespace().next()?.parse().ok()
}

/// Test processes that start together must not look at the same ports.
fn random() -> u16 {
    let bytes = uuid::Uuid::new_v4().into_bytes();
    u16::from_be_bytes([bytes[0], bytes[1]])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_outside_the_range_of_outgoing_connections() {
        let port = free_port().unwrap();
        assert!((LOWEST..outgoing_from().unwrap_or(OUTGOING_FROM)).contains(&port));
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    }
}
