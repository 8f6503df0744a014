//! What must hold of a group between two events.

use super::{Group, State};

impl Group {
    /// Asserts everything that must hold between two events. Takes time in proportion to what is in
    /// flight: for tests.
    pub fn check(&self) {
        self.progress.check();
        self.members.check();
        self.leases.check();
        for offset in self.unsaved.offsets() {
            assert!(self.leases.find(offset).is_some(), "{offset} is done with and has attempts");
        }
        assert!(self.progress.floor() < self.next, "the floor is below what is next");
        assert!(!self.is_stuck(), "a message is ready, a member has credit, and it was not sent");
        let mut given_out = 0;
        let mut leased = 0;
        for (slot, message) in self.leases.iter() {
            let offset = message.offset;
            assert!(!self.progress.is_settled(offset), "{offset} is settled and in memory");
            assert!(message.failures <= message.attempts, "{offset} failed more than was tried");
            assert!(message.state() != State::New, "{offset} was taken and not given out");
            given_out += u64::from(offset < self.next);
            if let State::Leased(lease) = message.state() {
                leased += 1;
                let holder = self.members.get(lease.holder);
                assert_eq!(holder.held().get(lease.place), Some(&slot), "{offset} is held once");
                assert_eq!(message.last, Some(holder.id), "{offset} was last given to its holder");
            }
        }
        let held: usize = self.members.iter().map(|member| member.held().len()).sum();
        assert_eq!(held, leased, "what members hold are the leases");
        let unsettled = self.progress.lag(self.next.prev());
        assert_eq!(given_out, unsettled, "what was given out is settled or in memory");
    }
}
