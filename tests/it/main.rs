//! Keyward from outside: the real program, between a client and an upstream that are raw sockets. Every test says what the
//! client got and what the upstream received.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so and stops")]

mod support; // the program, an upstream that remembers, a client of exact bytes

mod vidbeo; // keys with permissions and addresses
