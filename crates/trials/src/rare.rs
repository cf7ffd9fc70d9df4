//! How often what is rare came about. A trial that never meets what it is there for proves nothing of it.

use std::{fmt, ops::AddAssign};

/// What came about in a trial, or in many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rare {
    /// Commands that the store held though their callers were told that it could not say so.
    pub doubted: usize,
    /// Those of them that were emergencies.
    pub doubted_emergencies: usize,
    /// Those of them that somebody asked for again, and that were sent.
    pub doubted_and_sent: usize,
    /// Requests that were answered with what came of another copy of them.
    pub copies: usize,
    /// Emergencies that were put on record by a journal.
    pub journalled: usize,
    /// Nonces that stood in a journal when its process died.
    pub nonces_left: usize,
    /// Writes to a journal of which a part may be there, since its process, its machine or its disk failed with it.
    pub torn: usize,
    /// Open commands that a process found which did not accept them.
    pub taken_over: usize,
    /// Those of them of which nobody knew whether they had left.
    pub taken_over_unclear: usize,
    /// Commands that waited while somebody set the clock.
    pub waited_over_jump: usize,
    /// Requests that came with a nonce of before, to the letter.
    pub identical: usize,
    /// Commands that had to be sent at another's broker, since nothing stood in their way.
    pub due_outside: usize,
    /// The same where several servers share it.
    pub due_of_several: usize,
    /// Emergencies of which it was seen that they had to leave at once, since nothing stood in their way.
    pub at_once: usize,
    /// Movements that were withdrawn for an emergency.
    pub preempted: usize,
    /// Pairs of commands that had to leave in their order.
    pub in_order: usize,
    /// Commands that were asked for while their dock was known to be gone.
    pub for_absent: usize,
    /// The same at a broker that confirms what nobody gets.
    pub for_absent_at_older: usize,
    /// Commands that were handed to the broker while their dock was gone, and nobody could know it.
    pub tried_absent: usize,
    /// Starts that were refused to a server whose clock was off.
    pub refused_for_clock: usize,
    /// Commands of one server that another sent whose clock on the wall was another.
    pub sent_by_other_clock: usize,
    /// What servers heard of what others told.
    pub told: usize,
    /// Of it, that they may have missed something.
    pub told_off: usize,
    /// Commands that a server had another accept, past the store.
    pub asked_directly: usize,
    /// Of these, those of which it did not hear what came of them.
    pub unheard_directly: usize,
    /// Commands that were handed on since another server may have kept them back.
    pub handed_as_known: usize,
    /// Servers that stood still and went on.
    pub stood_still: usize,
    /// Writes that the store beside refused.
    pub refused_beside: usize,
    /// Writes that it made although it refused others.
    pub written_beside: usize,
    /// Commands that came to their dock more than once, though they were written once.
    pub came_twice: usize,
    /// Commands that came to their dock after another that was written to it later.
    pub overtaken: usize,
    /// Pages of the database beside that a power cut left half written.
    pub pages_torn_beside: usize,
    /// How many it had under way at once.
    pub at_once_beside: usize,
}

impl AddAssign for Rare {
    fn add_assign(&mut self, other: Self) {
        self.doubted += other.doubted;
        self.doubted_emergencies += other.doubted_emergencies;
        self.doubted_and_sent += other.doubted_and_sent;
        self.copies += other.copies;
        self.journalled += other.journalled;
        self.nonces_left += other.nonces_left;
        self.torn += other.torn;
        self.taken_over += other.taken_over;
        self.taken_over_unclear += other.taken_over_unclear;
        self.waited_over_jump += other.waited_over_jump;
        self.identical += other.identical;
        self.due_outside += other.due_outside;
        self.due_of_several += other.due_of_several;
        self.at_once += other.at_once;
        self.preempted += other.preempted;
        self.in_order += other.in_order;
        self.for_absent += other.for_absent;
        self.for_absent_at_older += other.for_absent_at_older;
        self.tried_absent += other.tried_absent;
        self.refused_for_clock += other.refused_for_clock;
        self.sent_by_other_clock += other.sent_by_other_clock;
        self.told += other.told;
        self.told_off += other.told_off;
        self.asked_directly += other.asked_directly;
        self.unheard_directly += other.unheard_directly;
        self.handed_as_known += other.handed_as_known;
        self.stood_still += other.stood_still;
        self.came_twice += other.came_twice;
        self.overtaken += other.overtaken;
        self.pages_torn_beside += other.pages_torn_beside;
        self.refused_beside += other.refused_beside;
        self.written_beside += other.written_beside;
        self.at_once_beside = self.at_once_beside.max(other.at_once_beside);
    }
}

impl fmt::Display for Rare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "commands in doubt: {} ({} emergencies, {} sent when asked for again); copies: {}; emergencies by a journal: {}; \
             nonces that a journal was left with: {}; torn writes: {}; commands taken over: {} ({} unclear); \
             waiting while the clock was set: {}; identical requests: {}; had to be sent at another's broker: {}, by several servers: {}; \
             came twice: {}; overtaken on their way: {}; emergencies seen to leave at once: {}; movements withdrawn for one: {}; \
             pairs that had to keep their order: {}; asked for while their dock was known to be gone: {} ({} at a broker of MQTT 3.1.1), \
             tried while it was gone: {}; starts refused for a clock: {}; sent by another clock: {}; heard of what others told: {} (missed: {}); asked directly: {} (unheard: {}, handed on as known: {}); stood still and went on: {}",
            self.doubted,
            self.doubted_emergencies,
            self.doubted_and_sent,
            self.copies,
            self.journalled,
            self.nonces_left,
            self.torn,
            self.taken_over,
            self.taken_over_unclear,
            self.waited_over_jump,
            self.identical,
            self.due_outside,
            self.due_of_several,
            self.came_twice,
            self.overtaken,
            self.at_once,
            self.preempted,
            self.in_order,
            self.for_absent,
            self.for_absent_at_older,
            self.tried_absent,
            self.refused_for_clock,
            self.sent_by_other_clock,
            self.told,
            self.told_off,
            self.asked_directly,
            self.unheard_directly,
            self.handed_as_known,
            self.stood_still,
        )?;
        if self.at_once_beside > 0 {
            write!(
                f,
                "; beside: writes refused: {}, written all the same: {}, at once: {}, pages torn: {}",
                self.refused_beside,
                self.written_beside,
                self.at_once_beside,
                self.pages_torn_beside
            )?;
        }
        Ok(())
    }
}
