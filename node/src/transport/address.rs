//! Where others are: `host:port`, looked up each time that it is needed, since names move.

use std::io;
use std::net::SocketAddr;

/// The address that is used of all that a name stands for: the first of IPv4, else the first. Whoever listens and whoever
/// dials have to choose alike.
pub fn preferred(found: impl IntoIterator<Item = SocketAddr>) -> io::Result<SocketAddr> {
    let mut found = found.into_iter().peekable();
    let first = found.peek().copied();
    let chosen = found.find(SocketAddr::is_ipv4).or(first);
    chosen.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
}

/// Looks an address up. One that is written as numbers needs no name service.
pub async fn look_up(address: &str) -> io::Result<SocketAddr> {
    preferred(tokio::net::lookup_host(address).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn the_first_address_of_ipv4_is_preferred_in_whatever_order_they_come() {
        let found = addresses(&["[::1]:1", "127.0.0.1:1", "[::2]:1", "127.0.0.2:1"]);
        assert_eq!(preferred(found.clone()).expect("there are four"), found[1]);
        assert_eq!(preferred(addresses(&["[::2]:1", "[::1]:1"])).expect("there are two"), addresses(&["[::2]:1"])[0]);
        assert!(preferred([]).is_err());
    }
}
