//! Which addresses a delivery may go to: public ones, unless the sink allows others.
//!
//! A delivery file may be written by somebody who does not run the machine. Without this guard they
//! could have the service call what only the machine can reach: a metadata address, a database, the
//! service itself (server-side request forgery). Literal addresses are checked when the file is
//! loaded, in the form that the `url` crate normalises every spelling to. Names are checked whenever
//! they are resolved, on the addresses that are then connected to, so that a name which changes its
//! address between check and use gains nothing.
//!
//! Public is what the IANA special-purpose registries (RFC 6890 and its updates) leave.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// A name without any public address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{host} has no public address; set allow_private: true if the sink is meant to be on a private \
     network"
)]
pub(super) struct NotPublic {
    /// The name or address.
    pub(super) host: String,
}

/// Whether packets to `address` leave for the public internet.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match a {
        // "This network", private, loopback, multicast, reserved, broadcast.
        0 | 10 | 127 | 224..=255 => true,
        // Shared address space of carriers (RFC 6598).
        100 => (64..=127).contains(&b),
        // Link-local, and with it the metadata services of clouds.
        169 => b == 254,
        172 => (16..=31).contains(&b),
        // Private, protocol assignments, documentation, the 6to4 relays that are no more (RFC 7526).
        192 => b == 168 || (b == 0 && (c == 0 || c == 2)) || (b == 88 && c == 99),
        // Benchmarks (RFC 2544), documentation.
        198 => b == 18 || b == 19 || (b == 51 && c == 100),
        203 => b == 0 && c == 113,
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    // Addresses that stand for an IPv4 address are what that is: mapped (RFC 4291) and NAT64 (RFC
    // 6052), which is how a machine without IPv4 sees every public IPv4 host.
    let mapped = (a, b, c, d, e, f) == (0, 0, 0, 0, 0, 0xffff);
    let nat64 = (a, b, c, d, e, f) == (0x64, 0xff9b, 0, 0, 0, 0);
    if mapped || nat64 {
        let [g, h] = [g.to_be_bytes(), h.to_be_bytes()];
        let [w, x] = g;
        let [y, z] = h;
        return is_public_v4(Ipv4Addr::new(w, x, y, z));
    }
    // All that is assigned for public use lies in 2000::/3. Loopback, ULA, link-local, multicast, the
    // old IPv4-compatible form and the local NAT64 prefix do not.
    let global = a & 0xe000 == 0x2000;
    // Protocol assignments with Teredo (2001::/23), documentation (2001:db8::/32, 3fff::/20), 6to4.
    let special =
        (a == 0x2001 && (b < 0x200 || b == 0xdb8)) || a == 0x2002 || (a == 0x3fff && b < 0x1000);
    global && !special
}

/// Those of `addresses` that are public.
///
/// # Errors
/// [`NotPublic`] if none is.
pub(super) fn public_only(
    host: &str,
    addresses: impl Iterator<Item = SocketAddr>,
) -> Result<Vec<SocketAddr>, NotPublic> {
    let public: Vec<SocketAddr> = addresses.filter(|address| is_public(address.ip())).collect();
    if public.is_empty() { Err(NotPublic { host: host.to_owned() }) } else { Ok(public) }
}

/// The system's resolver, less every address that is not public.
#[derive(Debug, Clone, Copy)]
pub(super) struct PublicResolver;

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The client puts the URL's port in place of 0.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public = public_only(name.as_str(), found)?;
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn special_addresses_are_not_public() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.3",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.3",
            "::ffff:169.254.169.254",
            "64:ff9b::a00:1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::808:808",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(ip(text)), "{text}");
        }
    }

    #[test]
    fn ordinary_addresses_are_public() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2001:4860:4860::8888",
            "2a00:1450:4001::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(ip(text)), "{text}");
        }
    }

    #[test]
    fn a_name_keeps_its_public_addresses_only() {
        let found = ["10.0.0.1:0", "8.8.8.8:0", "[::1]:0"].map(|text| text.parse().unwrap());
        let kept = public_only("mixed.example", found.into_iter()).unwrap();
        assert_eq!(kept, ["8.8.8.8:0".parse().unwrap()]);
        let none = public_only("inside.example", ["10.0.0.1:0".parse().unwrap()].into_iter());
        assert_eq!(none, Err(NotPublic { host: "inside.example".to_owned() }));
    }

    #[tokio::test]
    async fn a_name_of_this_machine_does_not_resolve() {
        let error = match PublicResolver.resolve("localhost".parse().unwrap()).await {
            Ok(_) => panic!("resolved"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains("no public address"), "{error}");
    }

    proptest! {
        #[test]
        fn private_ranges_hold_no_public_address(host: u32) {
            for (network, bits) in [
                (0x0000_0000_u32, 8), (0x0a00_0000, 8), (0x6440_0000, 10), (0x7f00_0000, 8),
                (0xa9fe_0000, 16), (0xac10_0000, 12), (0xc000_0000, 24), (0xc000_0200, 24),
                (0xc0a8_0000, 16), (0xc612_0000, 15), (0xc633_6400, 24), (0xcb00_7100, 24),
                (0xe000_0000, 4), (0xf000_0000, 4),
            ] {
                let address = Ipv4Addr::from_bits(network | host & (u32::MAX >> bits));
                prop_assert!(!is_public(address.into()), "{address}");
            }
        }

        #[test]
        fn an_embedded_address_is_as_public_as_itself(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            let nat64 = Ipv6Addr::from_bits(0x64_ff9b << 96 | u128::from(bits));
            prop_assert_eq!(is_public(v4.into()), is_public(v4.to_ipv6_mapped().into()));
            prop_assert_eq!(is_public(v4.into()), is_public(nat64.into()));
            prop_assert!(!is_public(v4.to_ipv6_compatible().into()));
        }

        #[test]
        fn nothing_outside_2000_is_public_but_what_stands_for_ipv4(bits: u128) {
            let address = Ipv6Addr::from_bits(bits);
            if bits >> 125 != 1 && bits >> 32 != 0xffff && bits >> 32 != 0x64_ff9b << 64 {
                prop_assert!(!is_public(address.into()), "{address}");
            }
        }

        #[test]
        fn local_ranges_of_ipv6_hold_no_public_address(host: u128) {
            for (network, bits) in [
                (0xfc00_u128 << 112, 7), (0xfe80 << 112, 10), (0xff00 << 112, 8),
                (0x2001_0db8 << 96, 32), (0x2002 << 112, 16), (0x2001 << 112, 32),
            ] {
                let address = Ipv6Addr::from_bits(network | host & (u128::MAX >> bits));
                prop_assert!(!is_public(address.into()), "{address}");
            }
        }

        #[test]
        fn what_is_kept_of_a_name_is_public(addresses in prop::collection::vec(any::<IpAddr>(), 0..8)) {
            let sockets = addresses.iter().map(|ip| SocketAddr::new(*ip, 0));
            if let Ok(kept) = public_only("x", sockets) {
                prop_assert!(kept.iter().all(|address| is_public(address.ip())));
            }
        }
    }
}
