//! Time limits.

use super::*;

async fn outlives(doing: Doing, limits: WaitLimits, wait: Duration) -> bool {
    let sweeper = Sweeper::default();
    let watch = sweeper.watch(limits);
    watch.begin();
    watch.enter(doing);
    tokio::select! {
        () = sweeper.run(|| (), |_| ()) => unreachable!("it sweeps for ever"),
        _ = drive(&watch, std::future::pending::<()>(), |_| ()) => false,
        () = tokio::time::sleep(wait) => true,
    }
}

#[tokio::test]
async fn ends_what_has_waited_too_long_and_nothing_else() {
    let (short, long, wait) = (Duration::from_millis(100), Duration::from_secs(60), Duration::from_millis(900));
    let none = WaitLimits::NONE;
    assert!(!outlives(Doing::Idle, WaitLimits { idle: short, ..none }, wait).await);
    let all_but = |idle, body, request| WaitLimits { idle, body, pause: short, request, head: short, handshake: short };
    assert!(outlives(Doing::Idle, all_but(long, short, short), wait).await);
    assert!(!outlives(Doing::Head, WaitLimits { head: short, ..none }, wait).await);
    assert!(!outlives(Doing::Handshake, WaitLimits { handshake: short, ..none }, wait).await);
    assert!(!outlives(Doing::Body, WaitLimits { body: short, ..none }, wait).await);
    assert!(!outlives(Doing::Pause, WaitLimits { pause: short, ..none }, wait).await);
    assert!(!outlives(Doing::Pause, WaitLimits { request: short, ..none }, wait).await);
    assert!(!outlives(Doing::Body, WaitLimits { request: short, ..none }, wait).await);
    assert!(!outlives(Doing::Work, WaitLimits { request: short, ..none }, wait).await);
    assert!(!outlives(Doing::Asked, WaitLimits { request: short, ..none }, wait).await);
    assert!(outlives(Doing::Work, all_but(short, short, long), wait).await);
}

#[tokio::test]
async fn a_request_that_has_no_answer_is_asked_for_one_before_it_is_cut_off() {
    let sweeper = Sweeper::default();
    let watch = sweeper.watch(WaitLimits { request: Duration::from_millis(100), ..WaitLimits::NONE });
    watch.begin();
    let mut counted = Vec::new();
    let exchange = async {
        assert_eq!(watch.in_time(std::future::pending::<()>()).await, None);
        // Whoever is told has time to read it.
        watch.enter(Doing::Body);
        tokio::time::sleep(SWEEP * 2).await;
        assert!(!watch.was_closed());
    };
    let late = std::cell::RefCell::new(&mut counted);
    tokio::select! {
        () = sweeper.run(|| (), |what| late.borrow_mut().push(what)) => unreachable!("it sweeps for ever"),
        _ = drive(&watch, exchange, |_| ()) => {}
    }
    assert_eq!((counted, watch.late()), (vec![Late::Request], None));
    watch.begin();
    assert_eq!(watch.in_time(async { 7 }).await, Some(7), "the next one has all its time");
}

#[tokio::test]
async fn what_may_be_given_up_ends_when_it_is_asked_to() {
    let sweeper = Sweeper::default();
    let watch = sweeper.watch(WaitLimits::NONE);
    assert_eq!(attempt(&watch, async { 7 }).await, Some(7));
    let (attempted, ()) = tokio::join!(attempt(&watch, std::future::pending::<()>()), async {
        tokio::task::yield_now().await;
        sweeper.send_all(Signal::Finish);
    });
    assert_eq!(attempted, None);
    assert!(!watch.was_closed());
}
