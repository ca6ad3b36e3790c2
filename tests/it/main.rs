//! Keyward from outside: the real program, between a client and an upstream that are raw sockets. Every test says what the
//! client got and what the upstream received.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so and stops")]

mod support; // the program, an upstream that remembers, a client of exact bytes
mod tools; // other programs, and commands that end

mod apivideo; // uploads, public ones too, and operations by method
mod cablecast; // a key in the URL of an old XML server
mod cognitive3d; // a header with a level in it, and the tree of scopes
mod crowds; // more than there is room for
mod drain; // stopping without losing a request
mod faults; // what goes wrong on the way, and what is answered then
mod forwarding; // what passes, what is removed and what is added
mod grpc; // calls by a library, to a server of the same
mod hostile; // what attackers send, by row of the catalogue
mod http2; // the same rules for those who speak HTTP/2
mod ledger; // who changed what, how often keys were used, who has heard of it
mod limits; // how often a key may be used
mod management; // the API by which keys are made, changed and deleted
mod postgres; // keys in a database that many share
mod proxy_protocol; // who the client is, as a balancer tells it
mod reload; // another config, while it runs
mod revocation; // how soon a change of the store holds
mod secrets; // where a key must not turn up
mod snapshot; // starting while the store is away
mod streaming; // bodies that do not fit into memory
mod tls; // HTTPS, and certificates that change
mod traces; // spans for an OpenTelemetry collector
mod upstream_http2; // an upstream that speaks HTTP/2, as gRPC servers do
mod upstream_tls; // an upstream by https, and what only looks like it
mod vidbeo; // keys with permissions and addresses
mod websocket; // tunnels: when they open, and how they end

mod bad_input; // what people get wrong
mod clients; // programs that people use on either side of a proxy
mod crash; // kill -9 at any moment
mod demo; // the product at work, without a config
mod docs; // the README does what it says
mod icecast; // a real server from before there were keys
mod leaks; // everything that is ever written, searched for keys
mod ops; // probes, status, metrics, the access log
mod zero_loss; // stops, reloads and a thousand requests a second
