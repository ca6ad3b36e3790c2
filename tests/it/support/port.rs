//! Addresses where nobody listens.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// Below the ports that the kernel gives to whoever asks for any: one of those may be somebody else's a moment later.
const FIRST: u16 = 10_240;
const COUNT: u16 = 20_000;
/// How many the tests of one process find before they look where those of another began.
const EACH: u32 = 10;

/// An address of this machine where nobody listens, for what is not there, is not there yet, or goes and comes back.
pub(crate) fn unused() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() * EACH % u32::from(COUNT)).unwrap();
    let ports = std::iter::repeat_with(|| FIRST + (own + NEXT.fetch_add(1, Relaxed)) % COUNT);
    let mut free =
        ports.take(usize::from(COUNT)).filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    (Ipv4Addr::LOCALHOST, free.next().expect("a port is free")).into()
}
