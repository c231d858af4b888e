//! Addresses as they stand in files and arguments: `host:port`, the host being a name, an IPv4 or a bracketed IPv6
//! address.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use quorate_protocol::configuration::ADDRESS_BYTES_MAX;

/// How to mend a wrong address.
pub(super) const MEND: &str = "write it as host:port, for example \"127.0.0.1:4100\"";

/// Longest label of a host name, in bytes. (RFC 1035)
const LABEL_BYTES_MAX: usize = 63;

/// Why `text` is no address that others can reach, if it is none.
pub(super) fn refuse(text: &str) -> Option<&'static str> {
    if text.len() > ADDRESS_BYTES_MAX {
        return Some("longer than 255 bytes");
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Some("not an address");
    };
    if !is_host(host) {
        return Some("not an address");
    }
    match port.parse::<u16>() {
        Ok(0) => Some("port 0 is no port that others can reach"),
        Ok(_) if port.bytes().all(|byte| byte.is_ascii_digit()) => None,
        _ => Some("the port is not a number from 1 to 65535"),
    }
}

/// The address of `port` on `host`, which is a name, an IPv4 address or an IPv6 address without brackets.
pub(super) fn join(host: &str, port: u16) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(address) => SocketAddr::new(IpAddr::V6(address), port).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        return address.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let looks_like_number = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if looks_like_number { host.parse::<IpAddr>().is_ok() } else { host.split('.').all(is_label) }
}

fn is_label(label: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !label.is_empty() && label.len() <= LABEL_BYTES_MAX && label.bytes().all(allowed) && !label.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_of_both_kinds_are_taken() {
        for text in ["127.0.0.1:4100", "[::1]:4100", "replica-0.example.org:4100", "localhost:1", "a_b:65535"] {
            assert_eq!(refuse(text), None, "{text}");
        }
    }

    #[test]
    fn what_nobody_can_reach_is_refused() {
        let wrong = ["", ":", "1.2.3", "1.2.3:4100", "::1:4100", "[::1:4100", "host", "host:", "host:0", "host:65536"];
        for text in wrong.into_iter().chain(["host:+1", "ho st:1", "a..b:1", "-a:1", "300.1.1.1:1", "host:1 "]) {
            assert!(refuse(text).is_some(), "{text}");
        }
        assert!(refuse(&format!("{}:4100", "a.".repeat(126) + "a")).is_some());
    }

    #[test]
    fn a_host_and_a_port_make_an_address() {
        assert_eq!(join("10.0.0.1", 4100), "10.0.0.1:4100");
        assert_eq!(join("fe80::1", 4100), "[fe80::1]:4100");
        assert_eq!(join("example.org", 4100), "example.org:4100");
    }
}
