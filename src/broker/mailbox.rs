//! The one door of a shard's thread: messages from many threads, taken all at once.
//!
//! What letters may wait here is bounded by [`Mailbox::room`]: a session takes room for a letter's
//! bytes before it posts it, and the shard gives it back with the answer. Letters without bytes, by which
//! sessions say what became of them, take none, and the other messages are bounded by their kind: at most
//! one of each batch, checkpoint or stop.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::limits::MAILBOX_BYTES_MAX;

use super::lock;

/// A bounded mailbox; see the module.
#[derive(Debug)]
pub struct Mailbox<M> {
    state: Mutex<State<M>>,
    arrived: Condvar,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct State<M> {
    messages: Vec<M>,
    asleep: bool,
}

impl<M> Default for Mailbox<M> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State { messages: Vec::new(), asleep: false }),
            arrived: Condvar::new(),
            room: Arc::new(Semaphore::new(MAILBOX_BYTES_MAX)),
        }
    }
}

impl<M> Mailbox<M> {
    /// Puts a message in, and wakes the owner if it sleeps.
    pub fn post(&self, message: M) {
        let mut state = lock(&self.state);
        state.messages.push(message);
        if std::mem::take(&mut state.asleep) {
            drop(state);
            self.arrived.notify_one();
        }
    }

    /// Takes all messages; with none there, waits until one comes or `patience` is over.
    pub fn drain(&self, into: &mut Vec<M>, patience: Option<Duration>) {
        let mut state = lock(&self.state);
        if state.messages.is_empty() && patience != Some(Duration::ZERO) {
            state.asleep = true;
            let holds = "a mailbox is never left half changed";
            state = match patience {
                None => {
                    self.arrived.wait_while(state, |state| state.messages.is_empty()).expect(holds)
                }
                Some(patience) => {
                    self.arrived
                        .wait_timeout_while(state, patience, |state| state.messages.is_empty())
                        .expect(holds)
                        .0
                }
            };
            state.asleep = false;
        }
        into.append(&mut state.messages);
    }

    /// What `take` gives, which is asked only while the owner sleeps and nothing waits for it.
    pub fn at_rest<T>(&self, take: impl FnOnce() -> Option<T>) -> Option<T> {
        let state = lock(&self.state);
        if state.asleep && state.messages.is_empty() { take() } else { None }
    }

    /// Room for letters, in bytes.
    pub fn room(&self) -> &Arc<Semaphore> {
        &self.room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_in_order_and_all_at_once() {
        let mailbox = Mailbox::default();
        mailbox.post(1);
        mailbox.post(2);
        let mut got = vec![0];
        mailbox.drain(&mut got, None);
        assert_eq!(got, [0, 1, 2]);
        mailbox.drain(&mut got, Some(Duration::ZERO));
        assert_eq!(got, [0, 1, 2]);
    }

    #[test]
    fn a_sleeping_owner_is_woken() {
        let mailbox = Arc::new(Mailbox::default());
        let owner = {
            let mailbox = Arc::clone(&mailbox);
            std::thread::spawn(move || {
                let mut got = Vec::new();
                while got.len() < 3 {
                    mailbox.drain(&mut got, None);
                }
                got
            })
        };
        for n in 0..3 {
            mailbox.post(n);
        }
        assert_eq!(owner.join().unwrap(), [0, 1, 2]);
    }

    #[test]
    fn it_is_at_rest_while_its_owner_sleeps_and_no_mail_is_there() {
        let mailbox = Arc::new(Mailbox::default());
        let is_at_rest = |mailbox: &Mailbox<i32>| mailbox.at_rest(|| Some(())).is_some();
        assert!(!is_at_rest(&mailbox), "the owner is awake");
        let owner = {
            let mailbox = Arc::clone(&mailbox);
            std::thread::spawn(move || mailbox.drain(&mut Vec::new(), None))
        };
        while !is_at_rest(&mailbox) {
            std::thread::yield_now();
        }
        mailbox.post(1);
        assert!(!is_at_rest(&mailbox), "there is mail, or the owner is awake again");
        owner.join().unwrap();
        assert!(!is_at_rest(&mailbox));
    }
}
