//! Waking many sessions of one thread at the price of one.
//!
//! A batch has answers for many sessions. To wake a task of another thread's runtime costs a system
//! call each time, whether that thread sleeps or not; a task that wakes its neighbours costs none. So
//! what wakes a session goes to its thread's bell, which wakes one task there, the ringer, which wakes
//! the rest.

use std::future::poll_fn;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use super::lock;

/// The bell of one thread; see the module.
#[derive(Debug, Default)]
pub struct Bell {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Who is to be woken.
    sleepers: Vec<Waker>,
    /// The task that wakes them, if it sleeps.
    ringer: Option<Waker>,
}

impl Bell {
    /// Wakes a session of this thread, soon: the ringer has its turn first.
    pub fn wake(&self, sleeper: Waker) {
        let mut state = lock(&self.state);
        state.sleepers.push(sleeper);
        let ringer = state.ringer.take();
        drop(state);
        ringer.into_iter().for_each(Waker::wake);
    }

    /// The ringer's work, without end: a task of the thread.
    pub async fn serve(&self) {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        let sleepers = std::mem::take(&mut state.sleepers);
        state.ringer = Some(cx.waker().clone());
        drop(state);
        sleepers.into_iter().for_each(Waker::wake);
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn one_wake_of_the_ringer_wakes_all() {
        let (ringer, sleeper) = (Arc::<Count>::default(), Arc::<Count>::default());
        let (bell, waker) = (Bell::default(), Waker::from(Arc::clone(&ringer)));
        let cx = Context::from_waker(&waker);
        // What came before there was a ringer is not forgotten.
        bell.wake(Arc::clone(&sleeper).into());
        assert!(bell.poll(&cx).is_pending());
        assert_eq!((ringer.get(), sleeper.get()), (0, 1));
        for _ in 0..3 {
            bell.wake(Arc::clone(&sleeper).into());
        }
        assert_eq!((ringer.get(), sleeper.get()), (1, 1));
        assert!(bell.poll(&cx).is_pending());
        assert_eq!(sleeper.get(), 4);
        bell.wake(Arc::clone(&sleeper).into());
        assert_eq!(ringer.get(), 2, "it sleeps again, and is woken again");
    }
}
