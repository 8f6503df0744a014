//! Deliveries that could not be made.

use super::{Group, Slot, State};
use crate::ids::Offset;

impl Group {
    /// The delivery that was just asked for can't be made. It goes on taking credit until its time is over, so
    /// that no more is tried at once than members may hold; then the message is ready, and has not failed.
    pub fn not_sent(&mut self, offset: Offset) {
        if let Some(slot) = self.leases.find(offset) {
            let message = self.leases.get_mut(slot);
            message.is_unsent = matches!(message.state(), State::Leased(_));
        }
    }

    /// Ends a delivery that was not made.
    pub(super) fn take_back(&mut self, slot: Slot) {
        self.end_lease(slot).expect("only a leased message is unsent and held, or due");
        self.leases.set(slot, State::Ready);
    }
}
