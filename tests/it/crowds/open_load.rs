//! An open load: requests come when they come, however long the answers take. The upstream is what has no more room, and twice
//! what it can do must not leave it with less.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{get, serve};
use crate::support::upstream::PAGE;
use crate::support::{Key, Keyward, Upstream, ok};

/// What the upstream can do: so many requests at a time, each of which takes so long.
const PLACES: usize = 8;
const SERVICE: Duration = Duration::from_millis(50);
/// Requests per second that it can answer.
const CAPACITY: u32 = PLACES as u32 * 20;
/// Connections that requests are sent over in turn: at twice the capacity each has 200 ms for a request.
const CONNECTIONS: u32 = 64;
/// How long requests come.
const WINDOW: Duration = Duration::from_secs(2);

/// An upstream with places, and how many requests it ever had at a time.
fn upstream_with_places() -> (Upstream, Arc<AtomicUsize>) {
    let (places, there, most) = (Arc::new((Mutex::new(PLACES), Condvar::new())), AtomicUsize::new(0), Arc::default());
    let seen = Arc::<AtomicUsize>::clone(&most);
    let upstream = Upstream::forgetful(move |turn| {
        seen.fetch_max(there.fetch_add(1, SeqCst) + 1, SeqCst);
        let (free, freed) = &*places;
        // Whoever finds no place waits for one.
        *freed.wait_while(free.lock().unwrap(), |free| *free == 0).unwrap() -= 1;
        thread::sleep(SERVICE);
        *free.lock().unwrap() += 1;
        freed.notify_one();
        there.fetch_sub(1, SeqCst);
        turn.answer(&ok(PAGE))
    });
    (upstream, most)
}

/// What came of a window.
#[derive(Debug, Default)]
struct Window {
    served: usize,
    refused: usize,
    /// How long those waited that were refused.
    waited: Vec<Duration>,
}

/// Sends so many requests per second, each at its time, and waits for their answers.
fn window(keyward: &Keyward, key: &Key, rate: u32) -> Window {
    let (start, gap) = (Instant::now() + Duration::from_millis(50), Duration::from_secs(1) / rate);
    let one = |place: u32| {
        let (mut client, mut seen) = (keyward.connect(), Window::default());
        for due in (0..).map(|turn| start + gap * (place + turn * CONNECTIONS)).take_while(|due| *due < start + WINDOW)
        {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let sent = Instant::now();
            let response = client.exchange(&get(key));
            match response.status {
                200 => seen.served += 1,
                503 => {
                    assert_eq!(response.value("retry-after").as_deref(), Some("5"));
                    seen.refused += 1;
                    seen.waited.push(sent.elapsed());
                }
                status => panic!("{status}: {}", response.text()),
            }
        }
        seen
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CONNECTIONS).map(|place| scope.spawn(move || one(place))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).fold(Window::default(), |all, one| Window {
            served: all.served + one.served,
            refused: all.refused + one.refused,
            waited: [all.waited, one.waited].concat(),
        })
    })
}

#[test]
fn twice_what_the_upstream_can_do_leaves_it_what_it_can_do() {
    let (upstream, most) = upstream_with_places();
    let (keyward, key) = serve(&upstream, &format!("max_requests: {PLACES}"));
    window(&keyward, &key, CAPACITY);
    let before = keyward.memory();
    // A machine that has too much else to do may spoil one round, but not each of them.
    let mut rounds = Vec::new();
    let holds = (0..5).any(|_| {
        let (peak, twice) = (window(&keyward, &key, CAPACITY), window(&keyward, &key, 2 * CAPACITY));
        let sent = twice.served + twice.refused;
        assert!(twice.refused * 4 > sent, "nobody is kept waiting: {} of {sent} were refused", twice.refused);
        let mut waited = twice.waited;
        waited.sort_unstable();
        let middle = waited[waited.len() / 2];
        rounds.push((peak.served, twice.served, twice.refused, middle));
        twice.served * 10 >= peak.served * 9 && middle < SERVICE / 2
    });
    assert!(holds, "served at capacity, served and refused at twice that, how soon: {rounds:?}");
    assert_eq!(most.load(SeqCst), PLACES, "the upstream never had more than it has places for");
    let after = keyward.memory();
    assert!(after < before + (8 << 20), "{before} bytes before, {after} after");
}
