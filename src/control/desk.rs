//! Where other threads hand questions in, and wait for the answer without being in anybody's way. There is room for so many at
//! a time; one more hears at once that there is none.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::sent::{Coming, Elsewhere, Readers, Sent};
use super::{Ask, Page};

/// Questions at a time that are judged or worked on.
const HANDED_IN: usize = 64;
/// How long anybody waits for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why nobody has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// There is no room for one more, here…
    NoRoom,
    /// …or where the question was asked.
    Overloaded,
    /// It takes longer than anybody waits, and goes on.
    GoesOn,
    /// It takes longer than requests may where it was asked, and goes on.
    OutOfTime,
    /// It was begun, and never ended.
    Lost,
}

/// Where questions are handed in.
#[derive(Clone)]
pub struct Desk {
    questions: mpsc::UnboundedSender<HandedIn>,
    room: Arc<Semaphore>,
    readers: Readers,
    patience: Duration,
    apology: fn(Unanswered) -> Page,
}

/// What was handed in and not answered yet.
pub struct Questions(mpsc::UnboundedReceiver<HandedIn>);

struct HandedIn {
    ask: Ask,
    answer: oneshot::Sender<Page>,
    place: Arc<Place>,
}

/// The place of a question, as long as it is judged or worked on.
pub(super) struct Place {
    room: Arc<Semaphore>,
    taken: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Place {
    pub(super) fn leave(&self) {
        self.hold(None);
    }

    /// Resolves when there is room again.
    pub(super) async fn come_back(&self) {
        // Nobody closes it.
        self.hold(self.room.clone().acquire_owned().await.ok());
    }

    fn hold(&self, place: Option<OwnedSemaphorePermit>) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }
}

impl Desk {
    /// A desk, and the side of those who answer. `apology` is what is said where nobody does.
    pub fn new(apology: fn(Unanswered) -> Page) -> (Self, Questions) {
        let (questions, received) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(HANDED_IN));
        (Self { questions, room, readers: Readers::default(), patience: PATIENCE, apology }, Questions(received))
    }

    /// What is said where nobody has answered.
    pub fn apology(&self, why: Unanswered) -> Page {
        (self.apology)(why)
    }

    /// Asks.
    pub async fn ask(&self, ask: Ask, coming: Coming) -> Page {
        self.answer(ask, coming).await.unwrap_or_else(|why| self.apology(why))
    }

    async fn answer(&self, mut ask: Ask, coming: Coming) -> Result<Page, Unanswered> {
        let taken = self.room.clone().try_acquire_owned().map_err(|_| Unanswered::NoRoom)?;
        let place = Arc::new(Place { room: self.room.clone(), taken: Mutex::new(Some(taken)) });
        let (wish, wished) = oneshot::channel();
        ask.sent = match coming.is_nothing() {
            true => {
                drop(wish);
                Sent::Nothing
            }
            false => Sent::Coming(Elsewhere { wish, place: place.clone(), readers: self.readers.clone() }),
        };
        let (answer, answered) = oneshot::channel();
        self.questions.send(HandedIn { ask, answer, place }).map_err(|_| Unanswered::Lost)?;
        match self.in_time(wished).await? {
            Ok(wish) => coming.grant(wish).await,
            Err(_) => drop(coming),
        }
        self.in_time(answered).await?.map_err(|_| Unanswered::Lost)
    }

    async fn in_time<F: Future>(&self, answer: F) -> Result<F::Output, Unanswered> {
        tokio::time::timeout(self.patience, answer).await.map_err(|_| Unanswered::GoesOn)
    }
}

/// Answers what is handed in, for ever. Whoever leaves before the answer, or cannot wait for it, has been heard all the same: a
/// change is made as a whole.
///
/// # Errors
/// None: when nobody can hand anything in any more, it waits.
pub async fn attend<A, F>(mut questions: Questions, answer: A) -> std::io::Result<()>
where
    A: Fn(Ask) -> F + Send + Sync + 'static,
    F: Future<Output = Page> + Send + 'static,
{
    while let Some(HandedIn { ask, answer: to, place }) = questions.0.recv().await {
        let page = answer(ask);
        tokio::spawn(async move {
            let page = page.await;
            drop(place);
            let _ = to.send(page);
        });
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::{Request, StatusCode};
    use tokio::sync::watch;

    use super::*;

    /// A desk where all that is asked is done when `go` says so, and what says how much has been.
    fn desk() -> (Desk, watch::Sender<bool>, watch::Receiver<usize>) {
        let (desk, questions) = Desk::new(|why| Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why:?}")));
        let ((go, gone), (done, is_done)) = (watch::channel(false), watch::channel(0));
        tokio::spawn(attend(questions, move |_| {
            let (mut gone, done) = (gone.clone(), done.clone());
            async move {
                let _ = gone.wait_for(|gone| *gone).await;
                done.send_modify(|done| *done += 1);
                Page::text(StatusCode::OK, "done")
            }
        }));
        (desk, go, is_done)
    }

    async fn said(desk: &Desk) -> String {
        let ask = Ask::of(Request::new(()).into_parts().0, IpAddr::from([127, 0, 0, 1]));
        desk.ask(ask, Coming::nothing()).await.body
    }

    /// One more than there is room for hears it at once, and whoever leaves gives nobody's place away before the work is done.
    #[tokio::test]
    async fn a_desk_has_room_for_so_many_and_tells_the_rest() {
        let (desk, go, _) = desk();
        let mut waiting: Vec<_> = (0..HANDED_IN).map(|_| Box::pin(said(&desk))).collect();
        for question in &mut waiting {
            assert!(tokio::time::timeout(Duration::ZERO, question).await.is_err());
        }
        assert_eq!(said(&desk).await, "NoRoom");
        drop(waiting.pop());
        tokio::task::yield_now().await;
        assert_eq!(said(&desk).await, "NoRoom", "it is still being worked on");
        go.send_replace(true);
        for question in waiting {
            assert_eq!(question.await, "done");
        }
        assert_eq!(said(&desk).await, "done");
    }

    /// What takes too long for those who wait is done all the same, and they hear that it goes on.
    #[tokio::test]
    async fn whoever_cannot_wait_ends_nothing() {
        let (mut desk, go, mut done) = desk();
        desk.patience = Duration::from_millis(20);
        assert_eq!((said(&desk).await.as_str(), *done.borrow()), ("GoesOn", 0));
        go.send_replace(true);
        assert!(done.wait_for(|done| *done == 1).await.is_ok());
    }

    #[tokio::test]
    async fn where_nobody_answers_everybody_hears_it() {
        let (desk, questions) = Desk::new(|why| Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why:?}")));
        drop(questions);
        assert_eq!(said(&desk).await, "Lost");
    }
}
