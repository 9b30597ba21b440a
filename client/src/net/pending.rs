//! Requests that wait for their answer: a ring of places indexed by opaque.
//!
//! An opaque counts up, and its place is its value modulo the ring's size, so that finding a request costs one look and no
//! hashing; an opaque whose place is still taken by an older request is skipped, and a ring that is half full grows. An
//! opaque is used again only after four billion others: a late answer never finds a stranger's request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mezzo_protocol::remoting::{Frame, HeaderView};
use tokio::sync::oneshot;

/// Places of a new ring; it doubles when half of them are taken.
const FIRST_PLACES: usize = 64;

/// Why a request cannot wait here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RegisterError {
    /// The bound is reached.
    Full,
    /// The connection is closed.
    Closed,
}

/// Takes the answers to several requests that were sent together. Called by the connection's reader with the parsed
/// header, so that nobody parses it again.
pub(crate) trait AnswerSink: Send + Sync {
    /// The answer to the request with this index within its run.
    fn answer(&self, index: usize, header: &HeaderView<'_>, frame: &Frame);
    /// The connection ended: no more answers will come.
    fn lost(&self);
}

/// Who waits at a place.
enum Waiting {
    One(oneshot::Sender<Frame>),
    Run(Arc<dyn AnswerSink>, usize),
}

struct Place {
    opaque: i32,
    waiting: Waiting,
}

struct State {
    /// A power of two of places.
    places: Vec<Option<Place>>,
    taken: usize,
    next_opaque: i32,
    closed: bool,
}

impl State {
    fn index(&self, opaque: i32) -> usize {
        // As many bits as the ring has places: the sign bit is one like any other.
        usize::try_from(opaque.cast_unsigned()).unwrap_or(0) & (self.places.len() - 1)
    }

    fn put(&mut self, waiting: Waiting) -> i32 {
        if self.taken * 2 >= self.places.len() {
            self.grow();
        }
        loop {
            let opaque = self.next_opaque;
            self.next_opaque = opaque.wrapping_add(1);
            let index = self.index(opaque);
            // At least half of the places are free, so this ends within a turn.
            if let Some(place @ None) = self.places.get_mut(index) {
                *place = Some(Place { opaque, waiting });
                self.taken += 1;
                return opaque;
            }
        }
    }

    fn remove(&mut self, opaque: i32) -> Option<Waiting> {
        let index = self.index(opaque);
        let place = self.places.get_mut(index)?.take_if(|place| place.opaque == opaque)?;
        self.taken -= 1;
        Some(place.waiting)
    }

    fn grow(&mut self) {
        let larger: Vec<_> = std::iter::repeat_with(|| None).take(self.places.len() * 2).collect();
        for place in std::mem::replace(&mut self.places, larger).into_iter().flatten() {
            // Places that differed in fewer bits differ in more.
            let index = self.index(place.opaque);
            if let Some(free) = self.places.get_mut(index) {
                *free = Some(place);
            }
        }
    }
}

/// The bounded table of one connection's unanswered requests.
pub(crate) struct Pending {
    state: Mutex<State>,
    max: usize,
}

impl Pending {
    /// An empty table for at most `max` requests.
    pub(crate) fn new(max: usize) -> Self {
        let places = std::iter::repeat_with(|| None).take(FIRST_PLACES).collect();
        Self { state: Mutex::new(State { places, taken: 0, next_opaque: 0, closed: false }), max }
    }

    /// A new opaque and the place where its answer will arrive.
    pub(crate) fn register(self: &Arc<Self>) -> Result<Waiter, RegisterError> {
        let mut state = self.lock();
        self.check_room(&state, 1)?;
        let (sender, receiver) = oneshot::channel();
        let opaque = state.put(Waiting::One(sender));
        drop(state);
        Ok(Waiter { opaque, receiver, answered: false, table: Arc::clone(self) })
    }

    /// Opaques for `count` requests whose answers `sink` takes: all of them or none.
    pub(crate) fn register_run(
        self: &Arc<Self>,
        count: usize,
        sink: &Arc<dyn AnswerSink>,
    ) -> Result<RunPlaces, RegisterError> {
        let mut state = self.lock();
        self.check_room(&state, count)?;
        let opaques = (0..count).map(|index| state.put(Waiting::Run(Arc::clone(sink), index))).collect();
        drop(state);
        Ok(RunPlaces { opaques, table: Arc::clone(self) })
    }

    /// Hands an answer to its request; `false` if nobody waits for it any more.
    pub(crate) fn complete(&self, header: &HeaderView<'_>, frame: &Frame) -> bool {
        let waiting = self.lock().remove(header.opaque);
        match waiting {
            Some(Waiting::One(waiter)) => waiter.send(frame.clone()).is_ok(),
            Some(Waiting::Run(sink, index)) => {
                sink.answer(index, header, frame);
                true
            }
            None => false,
        }
    }

    /// No answers will come: wakes all who wait.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.taken = 0;
        let waiting: Vec<_> = state.places.iter_mut().filter_map(Option::take).collect();
        drop(state);
        for place in waiting {
            if let Waiting::Run(sink, _) = place.waiting {
                sink.lost();
            }
        }
    }

    /// Requests that wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().taken
    }

    const fn check_room(&self, state: &State, count: usize) -> Result<(), RegisterError> {
        if state.closed {
            return Err(RegisterError::Closed);
        }
        if state.taken.saturating_add(count) > self.max {
            return Err(RegisterError::Full);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of ours panics while it holds the lock, and each change is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("waiting", &self.len()).field("max", &self.max).finish()
    }
}

/// One waiting request. Dropping it gives its place free.
#[derive(Debug)]
pub(crate) struct Waiter {
    opaque: i32,
    receiver: oneshot::Receiver<Frame>,
    answered: bool,
    table: Arc<Pending>,
}

impl Waiter {
    /// What connects request and answer.
    pub(crate) const fn opaque(&self) -> i32 {
        self.opaque
    }

    /// Waits for the answer; `None` if the connection ends before.
    pub(crate) async fn answer(&mut self) -> Option<Frame> {
        let answer = (&mut self.receiver).await.ok();
        self.answered = true;
        answer
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // An answered request has left its place already: the usual case takes no lock.
        if !self.answered {
            self.table.lock().remove(self.opaque);
        }
    }
}

/// The waiting requests of one run. Dropping it gives up those that are not answered.
#[derive(Debug)]
pub(crate) struct RunPlaces {
    opaques: Vec<i32>,
    table: Arc<Pending>,
}

impl RunPlaces {
    /// What connects requests and answers, in the order of the run.
    pub(crate) fn opaques(&self) -> &[i32] {
        &self.opaques
    }
}

impl RunPlaces {
    /// Gives up those that are not answered; returns how many they are.
    pub(crate) fn give_up(&mut self) -> usize {
        let mut state = self.table.lock();
        self.opaques.drain(..).filter_map(|opaque| state.remove(opaque)).count()
    }
}

impl Drop for RunPlaces {
    fn drop(&mut self) {
        if !self.opaques.is_empty() {
            self.give_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use mezzo_protocol::remoting::{HeaderEncoding, RemotingCommand, frame};

    /// An answer to `opaque` with this body.
    fn frame(opaque: i32, body: &'static str) -> Frame {
        let mut bytes = BytesMut::new();
        let answer = RemotingCommand::response(opaque, 0).with_body(body);
        answer.encode(HeaderEncoding::Json, &mut bytes).unwrap();
        frame::split(&mut bytes, 1 << 16).unwrap().unwrap()
    }

    fn complete(table: &Pending, frame: &Frame) -> bool {
        table.complete(&HeaderView::parse(frame).unwrap(), frame)
    }

    /// Remembers the order in which answers came.
    #[derive(Default)]
    struct Seen(Mutex<Vec<Option<usize>>>);

    impl AnswerSink for Seen {
        fn answer(&self, index: usize, _header: &HeaderView<'_>, _frame: &Frame) {
            self.0.lock().unwrap().push(Some(index));
        }

        fn lost(&self) {
            self.0.lock().unwrap().push(None);
        }
    }

    #[tokio::test]
    async fn an_answer_finds_its_request_whatever_the_order() {
        let table = Arc::new(Pending::new(8));
        let (mut first, mut second) = (table.register().unwrap(), table.register().unwrap());
        let (one, two) = (frame(first.opaque(), "1"), frame(second.opaque(), "2"));
        assert!(complete(&table, &two) && complete(&table, &one));
        assert_eq!((first.answer().await, second.answer().await), (Some(one.clone()), Some(two)));
        assert!(!complete(&table, &one));
    }

    #[tokio::test]
    async fn the_table_is_bounded_and_given_up_places_are_free_again() {
        let table = Arc::new(Pending::new(1));
        let held = table.register().unwrap();
        assert_eq!(table.register().err(), Some(RegisterError::Full));
        drop(held);
        assert_eq!(table.len(), 0);
        assert!(table.register().is_ok());
    }

    #[tokio::test]
    async fn closing_wakes_all_and_refuses_new_ones() {
        let table = Arc::new(Pending::new(8));
        let mut waiter = table.register().unwrap();
        table.close();
        assert_eq!(waiter.answer().await, None);
        assert_eq!(table.register().err(), Some(RegisterError::Closed));
    }

    #[test]
    fn opaques_wrap_around_those_that_still_wait() {
        let table = Arc::new(Pending::new(8));
        table.lock().next_opaque = i32::MAX;
        let held = table.register().unwrap();
        let next = table.register().unwrap();
        assert_eq!((held.opaque(), next.opaque()), (i32::MAX, i32::MIN));
        table.lock().next_opaque = i32::MAX;
        assert_eq!(table.register().unwrap().opaque(), i32::MIN + 1);
    }

    #[test]
    fn a_ring_that_grows_loses_nobody() {
        let table = Arc::new(Pending::new(10_000));
        let held: Vec<_> = (0..5_000).map(|_| table.register().unwrap()).collect();
        let opaques: std::collections::BTreeSet<_> = held.iter().map(Waiter::opaque).collect();
        assert_eq!((opaques.len(), table.len()), (5_000, 5_000));
        assert!(held.iter().all(|waiter| complete(&table, &frame(waiter.opaque(), ""))));
    }

    #[test]
    fn an_opaque_whose_place_is_taken_is_skipped() {
        let table = Arc::new(Pending::new(100));
        let slow = table.register().unwrap();
        for _ in 0..FIRST_PLACES - 1 {
            drop(table.register().unwrap());
        }
        assert_eq!(table.register().unwrap().opaque(), slow.opaque() + 1 + FIRST_PLACES as i32);
    }

    #[test]
    fn a_run_gets_its_answers_by_index_and_gives_the_rest_up() {
        let (table, seen) = (Arc::new(Pending::new(3)), Arc::new(Seen::default()));
        let sink: Arc<dyn AnswerSink> = Arc::<Seen>::clone(&seen);
        assert_eq!(table.register_run(4, &sink).err(), Some(RegisterError::Full));
        let run = table.register_run(3, &sink).unwrap();
        assert!(complete(&table, &frame(run.opaques()[2], "")));
        assert!(complete(&table, &frame(run.opaques()[0], "")));
        let late = frame(run.opaques()[1], "");
        drop(run);
        assert!(!complete(&table, &late));
        let _lost = table.register_run(1, &sink).unwrap();
        table.close();
        assert_eq!(*seen.0.lock().unwrap(), [Some(2), Some(0), None]);
    }
}
