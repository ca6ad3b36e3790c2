//! How many connections each peer has, where that is limited: one client cannot take the room of all.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use dashmap::DashMap;

/// The connections of all peers, in all workers. It is asked once for each connection, and not at all without a limit.
#[derive(Default)]
pub(super) struct Peers(DashMap<IpAddr, usize>);

/// A connection that counts until this is dropped.
pub(super) struct Place {
    peers: Arc<Peers>,
    peer: IpAddr,
}

impl Peers {
    /// Counts a connection of a peer, if it has fewer than so many.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr, limit: usize) -> Option<Place> {
        let peer = household(peer);
        let mut count = self.0.entry(peer).or_default();
        // One that is refused has others, or the limit would be 0, which is none.
        (*count < limit).then(|| {
            *count += 1;
            Place { peers: self.clone(), peer }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut count) = self.peers.0.get_mut(&self.peer) {
            *count = count.saturating_sub(1);
        }
        self.peers.0.remove_if(&self.peer, |_, count| *count == 0);
    }
}

/// Whoever has one IPv6 address has at least the 2^64 of its network, so they count as one.
fn household(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_so_many_and_the_others_have_theirs() {
        let peers = Arc::<Peers>::default();
        let enter = |peer: &str| peers.enter(peer.parse().unwrap(), 2);
        let places = [enter("10.0.0.1"), enter("::ffff:10.0.0.1")];
        assert!(places.iter().all(Option::is_some));
        assert!(enter("10.0.0.1").is_none());
        assert!(enter("10.0.0.2").is_some());
        drop(places);
        assert!(enter("10.0.0.1").is_some());
        let _two = [enter("2001:db8::1"), enter("2001:db8::ffff:1")];
        assert!(enter("2001:db8::2").is_none(), "one network");
        assert!(enter("2001:db8:0:1::1").is_some(), "another");
        drop(_two);
        assert!(peers.0.is_empty(), "nothing is kept of those who left");
    }
}
